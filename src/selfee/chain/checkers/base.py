"""What checks an answer from outside the chain, and how a chain survives whatever it does."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from selfee.chain.types import Check, Cost, Instruction
from selfee.errors import UsageError

_LONGEST_REASON = 300  # characters


class Signal(enum.Enum):
    """What a checker knows that the chain does not; reports must keep these apart (Huang et al. 2023, Kamoi 2024)."""

    SELF = "self"  # nothing: the same model looks once more
    EXTERNAL = "external"  # tests, tools, another model: what a user has at work too
    GOLD = "gold"  # the right answer: results are an upper bound, never what the method achieves


@runtime_checkable
class Checker(Protocol):
    """Looks at finished answers."""

    name: str
    signal: Signal

    def check(self, instruction: Instruction, answer: str) -> Check:
        """What it finds. Whatever it raises becomes a Check that says so."""
        ...


CheckFunction = Callable[[Instruction, str], "Check | bool | float | None"]
"""Says of an answer whether it passes, or how good it is."""


class FunctionChecker:
    """Any Python function of instruction and answer that returns a Check, whether it passes, or a score.

    A function that compares with the right answer must say so: ``signal=Signal.GOLD``.
    """

    def __init__(
        self,
        function: CheckFunction,
        *,
        name: str = "",
        signal: Signal = Signal.EXTERNAL,
    ) -> None:
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.signal = signal
        self._function = function

    def check(self, instruction: Instruction, answer: str) -> Check:
        """What the function says; None = it cannot tell."""
        found: Any = self._function(instruction, answer)
        if isinstance(found, Check):
            return found
        if found is None or isinstance(found, bool):
            return Check(found)
        if isinstance(found, int | float):
            return Check(None, float(found))
        raise UsageError(f"returned a {type(found).__name__}; expected a Check, a bool, a number or None")


def as_checker(checker: Checker | CheckFunction | None) -> Checker | None:
    """A checker, or a plain function made one. Raises UsageError for what is neither."""
    if checker is None or isinstance(checker, Checker):
        if checker is not None and not isinstance(checker.signal, Signal):
            raise UsageError(f"checker: its signal is {checker.signal!r}; expected a Signal")
        return checker
    if callable(checker):
        return FunctionChecker(checker)
    raise UsageError(f"checker: a {type(checker).__name__} cannot check; expected a Checker or a function")


def run_check(checker: Checker, instruction: Instruction, answer: str) -> Check:
    """Ask a checker; one that raises, or returns nonsense, gives a Check with ``failed`` set. Its time is noted."""
    started = time.monotonic()
    try:
        check = checker.check(instruction, answer)
        if not isinstance(check, Check):
            raise UsageError(f"returned a {type(check).__name__}; expected a Check")
    except (Exception, SystemExit) as error:  # it is somebody else's code, and must not cost the user the chain
        check = failure(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    cost = replace(check.cost or Cost(), seconds=time.monotonic() - started)
    return replace(check, reason=one_line(check.reason), cost=cost)


def failure(reason: str) -> Check:
    """The Check of a checker that could not do its work."""
    return Check(None, reason=one_line(reason), failed=True)


def one_line(text: str) -> str:
    """A text as one line of bearable length."""
    line = " ".join(text[: 8 * _LONGEST_REASON].split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"
