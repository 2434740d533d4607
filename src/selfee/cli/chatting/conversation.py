"""A conversation as a file: every chain whole, so that nothing that was made is lost and anything can be looked at."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from selfee.chain.record import from_json, to_json
from selfee.chain.types import Chain, Exchange, Instruction
from selfee.errors import BadFileError, ResourceError, SelfeeError
from selfee.weights.writing import replacing

VERSION = 1
_LARGEST = 64 << 20  # bytes; a larger file is no conversation of ours


@dataclass
class Conversation:
    """What was asked and answered, oldest first."""

    system: str = ""
    model: str = ""
    chains: list[Chain] = field(default_factory=list)

    @property
    def history(self) -> tuple[Exchange, ...]:
        """Questions with the answers delivered; a chain without a finished answer tells the model nothing."""
        return tuple(
            Exchange(chain.instruction.question, chain.final) for chain in self.chains if chain.delivered is not None
        )

    def ask(self, text: str) -> Instruction:
        """A question that follows all that was said."""
        return Instruction(text, history=self.history, system=self.system)

    def save(self, path: Path) -> None:
        """Write the file anew, readable for its owner alone. Raises ResourceError; an older one is then still there."""
        row = {
            "selfee_conversation": VERSION,
            "model": self.model,
            "system": self.system,
            "chains": [_without_history(to_json(chain)) for chain in self.chains],
        }
        with replacing(path, is_private=True) as file:
            file.write(json.dumps(row, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"))

    @classmethod
    def load(cls, path: Path) -> Conversation:
        """Read a file that ``save`` wrote. Raises BadFileError naming what is wrong, ResourceError if there is none."""
        try:
            with path.open("rb") as file:
                data = file.read(_LARGEST + 1)
        except OSError as error:
            raise ResourceError(f"{path}: cannot be read ({error.strerror}); expected a conversation") from error
        if len(data) > _LARGEST:
            raise BadFileError(f"{path}: more than {_LARGEST >> 20} MiB; expected a conversation that /save wrote")
        try:
            row = json.loads(data.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:
            raise BadFileError(f"{path}: is no JSON ({error}); expected a conversation that /save wrote") from error
        if not isinstance(row, dict) or row.get("selfee_conversation") != VERSION:
            raise BadFileError(f"{path}: is no conversation of version {VERSION}; expected one that /save wrote")
        return cls._from_row(row, str(path))

    @classmethod
    def _from_row(cls, row: Mapping[str, Any], where: str) -> Conversation:
        system, model, chains = row.get("system", ""), row.get("model", ""), row.get("chains")
        if not (isinstance(system, str) and isinstance(model, str) and isinstance(chains, list)):
            raise BadFileError(f"{where}: system and model must be texts and chains a list; the file is damaged")
        conversation = cls(system, model)
        for number, chain in enumerate(chains):
            single = from_json(chain, f"{where}: chains[{number}]")
            told = replace(single.instruction, history=conversation.history, system=system)
            conversation.chains.append(replace(single, instruction=told))
        return conversation


def _without_history(row: dict[str, Any]) -> dict[str, Any]:
    """A chain's history is the chains before it."""
    return {name: value for name, value in row.items() if name not in ("history", "system")}


class Shelf:
    """The folder where conversations are kept without being asked for, newest last by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new_path(self) -> Path:
        """A name that is not taken, made of the time."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = datetime.now().strftime("%Y-%m-%d-%H%M%S")
        path, number = self._folder / f"{name}.json", 1
        while path.exists():
            path, number = self._folder / f"{name}-{number}.json", number + 1
        return path

    def latest(self) -> Path | None:
        """The conversation that was changed last."""
        return max(self._paths(), key=lambda path: path.stat().st_mtime_ns, default=None)

    def session_of(self, path: Path) -> Path:
        """Where the keys and values of a conversation are kept; those of all others are thrown away."""
        own = path.with_suffix(".session")
        for other in self._folder.glob("*.session"):
            if other != own:
                with suppress(OSError):
                    os.unlink(other)
        return own

    def _paths(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from self._folder.glob("*.json")


def try_to_save(conversation: Conversation, path: Path) -> str | None:
    """Save, or say in a sentence why not: a full disk must not end a conversation."""
    try:
        conversation.save(path)
    except (SelfeeError, OSError) as error:
        return f"{error} (the conversation goes on unsaved)"
    return None
