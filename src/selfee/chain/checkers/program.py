"""Whether the program in an answer passes its tests: the program is found, confined and run."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Sequence

from selfee.chain.checkers.base import Signal
from selfee.chain.checkers.sandbox import Isolation, Limits, run_tests
from selfee.chain.types import Check, Instruction
from selfee.errors import UsageError

_FENCE = re.compile(
    r"^[ \t]*(?:```|~~~)[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n(?P<code>.*?)(?:^[ \t]*(?:```|~~~)|\Z)", re.M | re.S
)
_PYTHON = ("", "python", "py", "python3", "python2", "pycon", "ipython")
_BEGINS = re.compile(r"\s*(?:def|class|import|from|async\s+def|@\w)\b|\s*@\w")
_MOST_LINES = 400  # of text without fences that are searched for a program
_MOST_TRIES = 50  # places where it may begin, and to end each
_MOST_CHARACTERS = 100_000


class ProgramChecker:
    """Passes answers whose program passes ``tests``, each a few lines of Python with asserts; ``setup`` precedes each.

    ``prefix`` is put before the program, for tasks that give its beginning. The score is the share of tests passed.
    Programs run in the sandbox; how far this machine can confine them is ``isolation``.
    """

    def __init__(
        self,
        tests: Sequence[str],
        *,
        setup: str = "",
        prefix: str = "",
        limits: Limits | None = None,
        name: str = "tests",
        signal: Signal = Signal.GOLD,
    ) -> None:
        if not tests:
            raise UsageError("tests: there are none; expected at least one, or every program would pass")
        for test in (setup, *tests):
            _require_python(test)
        self.name = name
        self.signal = signal
        self.isolation: Isolation | None = None  # known once a program ran
        self._tests = tuple(tests)
        self._setup = setup
        self._prefix = prefix
        self._limits = limits
        self._names = frozenset(_names("\n".join((setup, *tests))))

    def check(self, instruction: Instruction, answer: str) -> Check:
        """Run the program of an answer. Raises EngineError if the sandbox fails itself."""
        source = find_program(answer, self._names)
        if source is None:
            return Check(False, 0.0, reason="no program found that Python can read")
        found = run_tests(self._prefix + source, self._tests, self._setup, self._limits)
        self.isolation = found.isolation
        reason = f"{found.passed} of {found.total} tests passed"
        reason += f", {found.inside} of them run in the program's own process" if found.inside else ""
        return Check(
            found.is_passed, found.passed / found.total, f"{reason}; {found.reason}" if found.reason else reason
        )


def find_program(answer: str, names: frozenset[str] = frozenset()) -> str | None:
    """The Python program in an answer: of its code blocks those that can be read, or lines of its text that can.

    Where one block defines a name that is looked for, it is the last that does; what blocks before it import or define
    is kept, since answers show a program in parts.
    """
    answer = answer[:_MOST_CHARACTERS].replace("\r\n", "\n")
    blocks = [
        textwrap.dedent(match["code"]) for match in _FENCE.finditer(answer) if match["language"].lower() in _PYTHON
    ]
    readable = [block for block in blocks if _parses(block)]
    if not readable:
        lines = "\n".join(blocks) if blocks else answer
        return _readable_part(lines)
    last = max((number for number, block in enumerate(readable) if names & _defines(block)), default=len(readable) - 1)
    kept = [block for block in readable[:last] if _only_defines(block)]
    return "\n\n".join([*kept, readable[last]])


def same_program(answer: str) -> str | None:
    """What two programs that differ in layout, comments and texts about themselves have in common (an Extractor)."""
    source = find_program(answer)
    if source is None:
        return None
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and body and _is_text(body[0]):
            node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _readable_part(text: str) -> str | None:
    """Lines that begin like a program, as far as Python can read them."""
    lines = text.split("\n")[:_MOST_LINES]
    starts = [number for number, line in enumerate(lines) if _BEGINS.match(line)]
    for start in starts[:_MOST_TRIES]:
        end = len(lines)
        for _ in range(_MOST_TRIES):
            while end > start and not lines[end - 1].strip():
                end -= 1
            if end <= start:
                break
            part = textwrap.dedent("\n".join(lines[start:end]))
            wrong = _wrong_line(part)
            if wrong is None:
                return part
            end = min(end - 1, start + wrong - 1)
    return None


def _wrong_line(source: str) -> int | None:
    """The line, from 1, that Python cannot read; None if it can read all."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a stranger's escapes in strings
            ast.parse(source)
    except SyntaxError as error:
        return max(1, error.lineno or 1)
    except (ValueError, RecursionError, MemoryError):
        return 1
    return None


def _parses(source: str) -> bool:
    """Whether Python can read it, and there is something in it."""
    return bool(source.strip()) and _wrong_line(source) is None and bool(ast.parse(source).body)


def _defines(source: str) -> set[str]:
    return {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)} | {
        target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _only_defines(source: str) -> bool:
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    return all(isinstance(node, kinds) for node in ast.parse(source).body)


def _names(source: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def _require_python(source: str) -> None:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UsageError(f"tests: {source[:60]!r} is no Python ({error}); expected asserts") from error
