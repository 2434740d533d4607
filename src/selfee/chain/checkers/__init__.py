"""Whoever looks at an answer from outside the chain: a pattern, a program, another model, the right answer, tests.

A checker is chosen by the user and never by a model; what it finds is kept beside the answer (``Step.check``). It
never changes an answer, and one that hangs, crashes or lies about its score never costs the chain.
"""

from selfee.chain.checkers.base import Checker, FunctionChecker, Signal
from selfee.chain.checkers.choice import ChoiceChecker
from selfee.chain.checkers.command import CommandChecker
from selfee.chain.checkers.judge import JudgeChecker
from selfee.chain.checkers.number import NumberChecker
from selfee.chain.checkers.program import ProgramChecker
from selfee.chain.checkers.regex import RegexChecker

__all__ = [
    "Checker",
    "ChoiceChecker",
    "CommandChecker",
    "FunctionChecker",
    "JudgeChecker",
    "NumberChecker",
    "ProgramChecker",
    "RegexChecker",
    "Signal",
]
