"""A pattern as checker. Python's patterns can take for ever on a short text, so they are matched in another process."""

from __future__ import annotations

import json
import math
import re
import sys

from selfee.chain.checkers.base import Signal
from selfee.chain.checkers.process import run_bounded
from selfee.chain.types import Check, Instruction
from selfee.errors import EngineError, UsageError

_LONGEST_PATTERN = 10_000  # characters
_TIMEOUT = 5.0  # seconds
_PROGRAM = """
import json, re, sys
pattern, text = json.loads(sys.stdin.buffer.read())
match = re.search(pattern, text)
groups = [] if match is None else [group for group in match.groups() if group is not None][:1]
print(json.dumps(None if match is None else [part[:1000] for part in (match[0], *groups)]))
"""


class RegexChecker:
    """Passes answers in which the pattern is found (``re.search``). Raises UsageError for what is no pattern."""

    def __init__(self, pattern: str, *, timeout: float = _TIMEOUT, signal: Signal = Signal.EXTERNAL) -> None:
        check_pattern(pattern)
        if not 0 < timeout < math.inf:
            raise UsageError(f"pattern: timeout is {timeout} seconds; expected a number above 0")
        self.name = f"regex {pattern}"
        self.signal = signal
        self._pattern = pattern
        self._timeout = timeout

    def check(self, instruction: Instruction, answer: str) -> Check:
        """Look for the pattern."""
        found = search(self._pattern, answer, self._timeout)
        return Check(found is not None, reason="the pattern was not found" if found is None else f"found {found[0]!r}")


def check_pattern(pattern: str) -> None:
    """Raises UsageError for what is no regular expression of Python, or too long for one."""
    if len(pattern) > _LONGEST_PATTERN:
        raise UsageError(f"pattern: has {len(pattern)} characters; expected at most {_LONGEST_PATTERN}")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"pattern: {pattern[:80]!r} is not a regular expression ({error})") from error


def search(pattern: str, text: str, timeout: float = _TIMEOUT) -> list[str] | None:
    """The first match and, if it has one, its first group that matched, 1,000 characters of each; None = not found.

    Raises EngineError if it takes more than ``timeout`` seconds.
    """
    request = json.dumps([pattern, text]).encode()
    outcome = run_bounded([sys.executable, "-I", "-S", "-c", _PROGRAM], request, timeout)
    if outcome.code is None:
        raise EngineError(f"pattern: {pattern[:80]!r} was not matched within {timeout:g} s; expected a simpler one")
    if outcome.code != 0:
        raise EngineError(f"pattern: {pattern[:80]!r} could not be matched ({outcome.stderr.strip()[-200:]})")
    found: list[str] | None = json.loads(outcome.stdout)
    return found
