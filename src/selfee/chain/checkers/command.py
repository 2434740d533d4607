"""A program as checker: it reads the answer on its standard input and says by its exit code what it thinks of it."""

from __future__ import annotations

import math
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence

from selfee.chain.checkers.base import Signal, failure, one_line
from selfee.chain.checkers.process import Outcome, run_bounded
from selfee.chain.types import Check, Instruction
from selfee.errors import UsageError

CANNOT_TELL = 125
"""Exit code of a program that cannot say, as ``git bisect run`` has it."""

_LONGEST_NUMBER = 64  # characters


class CommandChecker:
    """Exit code 0 = passed, 125 = cannot tell, others = not passed; a number on stdout's last line is the score.

    ``words`` are started without a shell: an answer is never part of a command line. Late or killed by a signal, the
    program has failed, not the answer. A program that runs what a model wrote runs it with your rights: give it a
    sandbox. Raises UsageError if there is no such program.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        timeout: float = 60.0,
        environ: Mapping[str, str] | None = None,
        signal: Signal = Signal.EXTERNAL,
    ) -> None:
        if isinstance(words, str) or not words:
            raise UsageError(f"command: found {words!r}; expected a program and its arguments as a sequence")
        if not 0 < timeout < math.inf:
            raise UsageError(f"command: timeout is {timeout} seconds; expected a number above 0")
        if shutil.which(words[0]) is None:
            raise UsageError(f"command: no program {words[0]!r} can be found; expected one that can be run")
        self.name = f"command {shlex.join(words)}"
        self.signal = signal
        self._words = tuple(words)
        self._timeout = timeout
        self._environ = environ

    def check(self, instruction: Instruction, answer: str) -> Check:
        """Run the program on an answer."""
        try:
            outcome = run_bounded(self._words, answer.encode("utf-8", "replace"), self._timeout, self._environ)
        except OSError as error:
            return failure(f"{self._words[0]}: cannot be started ({error.strerror or error})")
        return self._read(outcome)

    def _read(self, outcome: Outcome) -> Check:
        said = _last_line(outcome.stderr) or _last_line(outcome.stdout)
        if outcome.code is None:
            return failure(f"{self._words[0]}: killed after {self._timeout:g} s{_after(said)}")
        if outcome.code < 0:
            return failure(f"{self._words[0]}: died by {_signal_name(-outcome.code)}{_after(said)}")
        score = _read_score(_last_line(outcome.stdout))
        passed = None if outcome.code == CANNOT_TELL else outcome.code == 0
        return Check(passed, score, one_line(f"exit code {outcome.code}{_after(said)}"))


def split_command(line: str) -> tuple[str, ...]:
    """The words of a command as a person types it. Raises UsageError for quotes that are never closed."""
    try:
        words = tuple(shlex.split(line))
    except ValueError as error:
        raise UsageError(f"command: {line!r} cannot be read ({error}); expected closed quotes") from error
    if not words:
        raise UsageError("command: is empty; expected a program and its arguments")
    return words


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _after(said: str) -> str:
    return f": {said}" if said else ""


def _read_score(line: str) -> float | None:
    """A finite number that stands alone; NaN and infinity are none."""
    if len(line) > _LONGEST_NUMBER:
        return None
    try:
        score = float(line)
    except ValueError:
        return None
    return score if math.isfinite(score) else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
