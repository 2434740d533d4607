"""Which words a row's teacher is asked with: one of the known sets by the row's source, or the user's own file."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from selfee.chain.prompts import PROMPT_SETS, SELFEE_ALPACA, SELFEE_CODE, PromptSet, Turn
from selfee.data.sample import Sample
from selfee.errors import BadFileError, UsageError
from selfee.journal import key_of

AUTO = "auto"
_TURNS = ("answer", "critique", "revise", "critique_again", "revise_later")
_REQUIRED = ("answer", "critique", "revise")


class Wording:
    """Chooses the prompt set for a sample."""

    def __init__(self, name: str) -> None:
        self._fixed = None if name == AUTO else find_wording(name)
        self.sets = (SELFEE_ALPACA, SELFEE_CODE) if self._fixed is None else (self._fixed,)

    @property
    def digest(self) -> str:
        """A hash of all words that may be used."""
        return key_of([prompt_digest(prompts) for prompts in self.sets])

    def of(self, sample: Sample) -> PromptSet:
        """As SelFee did: the critic with the right answer before it where there is one, else the general one."""
        if self._fixed is not None:
            return self._fixed
        return SELFEE_CODE if sample.reference else SELFEE_ALPACA


def prompt_digest(prompts: PromptSet) -> str:
    """A hash of a prompt set's words and rules."""
    return key_of(asdict(prompts))


def find_wording(name: str) -> PromptSet:
    """A known set, or the one in a file. Raises UsageError, BadFileError."""
    if name in PROMPT_SETS:
        return PROMPT_SETS[name]
    if name.endswith((".toml", ".json")):
        return read_prompts(Path(name))
    raise UsageError(
        f"prompts: {name!r} is unknown; expected {AUTO}, one of {', '.join(PROMPT_SETS)}, or a .toml or .json file"
    )


def read_prompts(path: Path) -> PromptSet:
    """The prompt set in a file: fields as ``PromptSet``'s; a turn is a text (the user's), or role and text.

    Raises BadFileError naming the field.
    """
    try:
        text = path.read_text(encoding="utf-8")
        row = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadFileError(f"{path}: cannot be read ({reason}); expected prompts as TOML or JSON") from error
    if not isinstance(row, dict):
        raise BadFileError(f"{path}: found a {type(row).__name__}; expected fields")
    known = {field.name for field in fields(PromptSet)}
    if unknown := sorted(set(row) - known):
        raise BadFileError(f"{path}: unknown field '{unknown[0]}'; expected some of {', '.join(sorted(known))}")
    for name in _REQUIRED:
        if not row.get(name):
            raise BadFileError(f"{path}: no field '{name}'; expected the turns to ask for it")
    values: dict[str, Any] = {"name": path.stem} | row
    for name in _TURNS:
        if name in values:
            values[name] = _turns(values[name], f"{path}: {name}")
    if isinstance(values.get("critique_stop"), list):
        values["critique_stop"] = tuple(values["critique_stop"])
    if values.get("keeps") == "all":  # TOML has no null
        values["keeps"] = None
    _check_kinds(values, path)
    return PromptSet(**values)


def _turns(value: Any, where: str) -> tuple[Turn, ...]:
    listed = value if isinstance(value, list) else [value]
    turns = []
    for turn in listed:
        if isinstance(turn, str):
            turn = {"role": "user", "text": turn}
        if not isinstance(turn, dict) or not isinstance(turn.get("text"), str) or set(turn) - _TURN_FIELDS:
            raise BadFileError(f"{where}: found {str(turn)[:60]!r}; expected a text, or role, text and with_reference")
        role = turn.get("role", "user")
        if role not in ("system", "user", "assistant"):
            raise BadFileError(f"{where}: role is {role!r}; expected system, user or assistant")
        turns.append(Turn(role, turn["text"], bool(turn.get("with_reference", "{reference}" in turn["text"]))))
    return tuple(turns)


_TURN_FIELDS = {"role", "text", "with_reference"}
_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "keeps": (int, type(None)),
    "one_conversation": (bool,),
    "critique_prefix": (str,),
    "critique_stop": (tuple,),
    "ask_verdict": (str,),
}


def _check_kinds(values: dict[str, Any], path: Path) -> None:
    for name, kinds in _KINDS.items():
        if name in values and not isinstance(values[name], kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise BadFileError(f"{path}: field '{name}' is a {type(values[name]).__name__}; expected {expected}")
