"""What could stand at the cursor of a command line that begins with ``selfee``."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MODEL_WORDS = ("MODEL", "MODELS", "NAME", "FILE", "FILES")
"""Arguments of these names may be models: those that have a name are offered beside files."""


@dataclass(frozen=True)
class Candidate:
    """One word, and what it means."""

    text: str
    help: str = ""


@dataclass(frozen=True)
class Candidates:
    """What fits, and whether names of files fit too."""

    words: tuple[Candidate, ...] = ()
    files: bool = False

    def lines(self) -> str:
        """As the shells' scripts read it: whether files fit, then a line a word, with a tab before its help."""
        rows = [f"{word.text}\t{' '.join(word.help.split())}" for word in self.words]
        return "\n".join(["files" if self.files else "words", *rows]) + "\n"


def complete(command: Any, words: Sequence[str], models: Callable[[], Mapping[str, str]]) -> Candidates:
    """What may take the place of the last of ``words``, which may be empty. ``models``: their names, and what they are.

    Raises nothing for words that do not fit: then nothing, or files, are offered.
    """
    *before, current = _joined(words) or [""]
    place = _Place(command)
    for word in before:
        place.read(word)
    if place.waiting is not None:
        return _values(place.waiting, current, models)
    if current.startswith("-") and not place.only_arguments:
        name, equals, value = current.partition("=")
        if equals:
            option = place.option(name)
            found = Candidates() if option is None else _values(option, value, models)
            return Candidates(tuple(Candidate(f"{name}={word.text}", word.help) for word in found.words), found.files)
        return Candidates(tuple(_starting(place.flags(), current)))
    if children := getattr(place.command, "commands", None):
        offered = (Candidate(name, _first_sentence(place.help_of(name))) for name in children)
        return Candidates(tuple(_starting(offered, current)))
    argument = place.argument()
    return Candidates() if argument is None else _values(argument, current, models)


class _Place:
    """Where the words so far have led."""

    def __init__(self, command: Any) -> None:
        self.command = command
        self.waiting: Any = None  # an option whose value comes next
        self.only_arguments = False
        self._arguments = 0
        self._given: set[str] = set()

    def read(self, word: str) -> None:
        """Go one word further."""
        if self.waiting is not None:
            self.waiting = None
        elif word == "--":
            self.only_arguments = True
        elif word.startswith("-") and len(word) > 1 and not self.only_arguments:
            name, equals, _ = word.partition("=")
            option = self.option(name)
            if option is not None:
                self._given.add(option.name)
                self.waiting = None if equals or option.is_flag else option
        elif word in (children := getattr(self.command, "commands", {})):
            self.command, self._arguments = children[word], 0
        else:
            self._arguments += 1

    def option(self, name: str) -> Any:
        """The option of this name, or None."""
        return next((option for option in self._options() if name in (*option.opts, *option.secondary_opts)), None)

    def flags(self) -> Iterator[Candidate]:
        """All flags that may still be given; those that may be given once and have been are left out."""
        for option in self._options():
            if option.name in self._given and not option.multiple:
                continue
            for flag in (*option.opts, *option.secondary_opts):
                yield Candidate(flag, _first_sentence(option.help or ""))
        yield Candidate("--help", "Show this message and exit.")

    def argument(self) -> Any:
        """The argument that comes next, or None."""
        found = [option for option in self.command.params if option.param_type_name == "argument"]
        if self._arguments < len(found):
            return found[self._arguments]
        return found[-1] if found and found[-1].nargs == -1 else None

    def help_of(self, name: str) -> str:
        """What a command in here does; those at the top are not imported to say it."""
        from selfee.cli.app import COMMANDS

        if self.command.name == "selfee":
            return COMMANDS[name]
        return str(self.command.commands[name].help or "")

    def _options(self) -> list[Any]:
        return [option for option in self.command.params if option.param_type_name == "option"]


def _values(parameter: Any, current: str, models: Callable[[], Mapping[str, str]]) -> Candidates:
    """What a parameter may be."""
    kind = parameter.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return Candidates(tuple(_starting((Candidate(str(member.value)) for member in kind), current)))
    metavar = str(parameter.metavar or parameter.name or "").upper().strip("[].")
    is_model = "--model" in parameter.opts or metavar in MODEL_WORDS
    if kind in (int, float):
        return Candidates()
    known = models().items() if is_model else ()
    names = (Candidate(name, what) for name, what in known)
    return Candidates(tuple(_starting(names, current)), files=True)


def _joined(words: Sequence[str]) -> list[str]:
    """``--flag``, ``=`` and a value as one word again: bash parts words at ``=``."""
    result: list[str] = []
    for word in words:
        if result and (word == "=" or result[-1].endswith("=")) and result[-1].startswith("--"):
            result[-1] += word
        else:
            result.append(word)
    return result


def _starting(candidates: Iterator[Candidate], beginning: str) -> Iterator[Candidate]:
    return (candidate for candidate in candidates if candidate.text.startswith(beginning))


def _first_sentence(text: str) -> str:
    return text.partition("  [default")[0].split(". ")[0].strip().rstrip(".")
