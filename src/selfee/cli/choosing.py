"""Which answer is delivered: flags for resampling, for checks, and for what decides."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfee.errors import UsageError

if TYPE_CHECKING:
    from selfee.chain.allowance import Allowance
    from selfee.chain.checkers import Checker
    from selfee.chain.resampling import Keep
    from selfee.chain.selectors import Selector

SELF = "self"
"""What --check-judge calls the model that answers."""

_SECRETS = ("SELFEE_API_KEY", "OPENAI_API_KEY", "HF_TOKEN")
"""Variables that a checking program is not given: it may run what a model wrote."""


class KeepName(enum.Enum):
    """What decides which answer is delivered."""

    LAST = "last"
    FIRST = "first"
    SCORE = "score"
    DOUBT = "doubt"
    CHECK = "check"
    VOTE = "vote"


@dataclass(frozen=True)
class Choosing:
    """How the answer that is delivered is found."""

    best_of: int | None = None  # Answer so many times instead of revising; 0 = as often as --total-tokens allow
    keep: KeepName | None = None  # What decides between answers: the critic's score or doubt, the check, a vote
    vote_on: str | None = None  # What attempts agree on: number, boxed, text, /PATTERN/, or short (whichever there is)
    check_regex: str | None = None  # An answer passes if this pattern is found in it
    check_command: str | None = None  # An answer passes if this program, reading it, ends with exit code 0
    check_judge: str | None = None  # An answer passes if this model gives it 9 of 10; self = the one that answers
    check_timeout: float | None = None  # Seconds that a pattern or program may take
    until_passed: bool = False  # End with the first answer that passes


class Chooser:
    """The flags, found to fit together. Raises UsageError naming those that do not, before a model is loaded."""

    def __init__(self, flags: Choosing, allowance: Allowance, environ: Mapping[str, str]) -> None:
        from selfee.chain.votes import find_extractor

        self._flags = flags
        self.extractor = find_extractor(flags.vote_on or "short")
        self.samples = flags.best_of is not None
        checks = [name for name in ("check_regex", "check_command", "check_judge") if getattr(flags, name) is not None]
        if len(checks) > 1:
            first, second = (f"--{name.replace('_', '-')}" for name in checks[:2])
            raise UsageError(f"{first} and {second}: both given; expected one check")
        if flags.check_timeout is not None and checks in ([], ["check_judge"]):
            raise UsageError("--check-timeout: there is no pattern or program; give --check-regex or --check-command")
        if flags.until_passed and not checks:
            raise UsageError("--until-passed: nothing says what passes; give --check-regex, -command or -judge")
        self._refuse_unfit_keep(bool(checks))
        if flags.best_of is not None and flags.best_of < 0:
            raise UsageError(f"--best-of: {flags.best_of} is negative; expected 1 or more, or 0 for as many as allowed")
        if flags.best_of == 0 and not allowance.is_limited:
            raise UsageError("--best-of 0: would never end; give --total-tokens or --total-seconds")
        self._checker = _plain_checker(flags, environ)

    def _refuse_unfit_keep(self, checks: bool) -> None:
        flags, keep = self._flags, self._flags.keep
        if keep is KeepName.CHECK and not checks:
            raise UsageError("--keep check: there is no check; give --check-regex, --check-command or --check-judge")
        if not self.samples and keep is KeepName.FIRST:
            raise UsageError("--keep first: is for several attempts; give --best-of, or --max-revisions 0")
        if self.samples and keep is KeepName.LAST:
            raise UsageError("--keep last: attempts know no order; with --best-of expected first")
        if self.samples and flags.until_passed and keep not in (None, KeepName.CHECK):
            raise UsageError("--until-passed: delivers what passes; leave --keep out")
        if flags.vote_on is not None and keep is not KeepName.VOTE:
            raise UsageError("--vote-on: there is no vote; give --keep vote")

    @property
    def count(self) -> int | None:
        """How many attempts; None = as many as the allowance holds."""
        return self._flags.best_of or None

    @property
    def until_passed(self) -> bool:
        """Whether the first that passes is the last."""
        return self._flags.until_passed

    @property
    def keep(self) -> Keep | None:
        """What decides between attempts; None = what suits."""
        from selfee.chain.resampling import KEEPS

        return next((keep for keep in KEEPS if self._flags.keep and keep == self._flags.keep.value), None)

    @property
    def selector(self) -> Selector | None:
        """What decides between a chain's answers; None = what suits."""
        from selfee.chain.selectors import SELECTORS, most_agreed

        if self._flags.keep is KeepName.VOTE:
            return most_agreed(self.extractor)
        return None if self._flags.keep is None else SELECTORS.get(self._flags.keep.value)

    def checker(self, engine: object, open_judge: Callable[[str], object]) -> Checker | None:
        """The check asked for, if any; ``engine`` is the one that answers."""
        from selfee.chain.checkers import JudgeChecker, Signal

        judge = self._flags.check_judge
        if judge is None:
            return self._checker
        return JudgeChecker(engine, signal=Signal.SELF) if judge == SELF else JudgeChecker(open_judge(judge))


def _plain_checker(flags: Choosing, environ: Mapping[str, str]) -> Checker | None:
    """The check by a pattern or program, if one is asked for."""
    from selfee.chain.checkers import CommandChecker, RegexChecker
    from selfee.chain.checkers.command import split_command

    timeout = flags.check_timeout
    if flags.check_regex is not None:
        return RegexChecker(flags.check_regex) if timeout is None else RegexChecker(flags.check_regex, timeout=timeout)
    if flags.check_command is not None:
        harmless = {name: value for name, value in environ.items() if name not in _SECRETS}
        words = split_command(flags.check_command)
        if timeout is None:
            return CommandChecker(words, environ=harmless)
        return CommandChecker(words, environ=harmless, timeout=timeout)
    return None
