"""From what was made to cases with grades: each task's checker, what a vote counts, who graded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from selfee.chain.checkers import Checker, ChoiceChecker, NumberChecker, ProgramChecker
from selfee.chain.checkers.number import final_number
from selfee.chain.checkers.program import same_program
from selfee.chain.checkers.sandbox import Isolation
from selfee.chain.votes import Extractor
from selfee.eval.revising.cases import RIGHT, Case, graded
from selfee.eval.revising.making import Pool
from selfee.eval.revising.problems import Problem
from selfee.eval.revising.result import Grader

TASKS = {"gsm8k": "number", "aqua": "letter", "mbpp": "tests", "humaneval": "tests"}
"""Task -> the name of its checker."""


def checker_of(problem: Problem, *, any_name: bool = False) -> Checker:
    """Who says whether an answer to this problem is right. Raises UsageError for a reference that cannot be used.

    ``any_name`` is for answers to programming tasks whose author did not see the tests; see ``ProgramChecker``.
    """
    row = problem.source
    if problem.task == "gsm8k":
        return NumberChecker(problem.reference)
    if problem.task == "aqua":
        return ChoiceChecker(problem.reference, row["options"])
    if problem.task == "humaneval":
        test = f"{row['test']}\n\ncheck({row['entry_point']})\n"
        return ProgramChecker([test], prefix=_imports(row["prompt"]))
    return ProgramChecker(row["test_list"], setup=row.get("test_setup_code") or "", any_name=any_name)


def extractor_of(problem: Problem) -> Extractor:
    """What two answers must have in common to count as the same vote."""
    if problem.task == "gsm8k":
        return final_number
    if problem.task == "aqua":
        return ChoiceChecker(problem.reference, problem.source["options"]).chosen
    return same_program


def grade_pools(pools: Sequence[Pool], threads: int = 2) -> Iterator[tuple[int, Case]]:
    """Cases in the order of the pools, as they are graded; programs of several run at a time."""
    with ThreadPoolExecutor(threads) as workers:
        yield from enumerate(workers.map(grade_pool, pools))


def grade_pool(pool: Pool) -> Case:
    """Every answer of a pool checked."""
    checker = checker_of(pool.problem)
    return Case(
        id=pool.problem.id,
        chain=graded(pool.chain, checker),
        criticised=tuple(graded(chain, checker) for chain in pool.criticised),
        plain=tuple(graded(chain, checker) for chain in pool.plain),
        longer=None if pool.longer is None else graded(pool.longer, checker),
        resampled=None if pool.resampled is None else graded(pool.resampled, checker),
        scale=RIGHT,
        extractor=extractor_of(pool.problem),
    )


def grader_of(task: str) -> Grader:
    """Who graded a task's answers."""
    return Grader(TASKS[task], "gold", RIGHT)


def sandbox_notes(tasks: Iterable[str]) -> list[str]:
    """What a reader must know about how programs were run."""
    from selfee.chain.checkers.sandbox import isolation_here

    if not any(TASKS[task] == "tests" for task in tasks):
        return []
    if isolation_here() is Isolation.FULL:
        return ["programs ran confined: no files but the standard library, no network, no processes, memory and time"]
    return ["programs ran with limited protection: this machine cannot filter system calls or files"]


def _imports(prompt: str) -> str:
    """The imports at the beginning of a task, which an answer may leave out."""
    lines = [line for line in prompt.splitlines() if line.startswith(("import ", "from "))]
    return "".join(f"{line}\n" for line in lines)
