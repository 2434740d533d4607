"""``selfee revisions``: does revising help, and would the same tokens have been better spent otherwise?"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.chain.budgets import Budgets
from selfee.cli.ask import open_model, suited
from selfee.cli.model_file import CacheTypeName
from selfee.cli.options import FlagGroup, with_flags
from selfee.cli.output import Color, Screen, screen_of
from selfee.cli.shared_options import (
    ApiKeyFile,
    Colored,
    Context,
    Driven,
    ModelName,
    ModeName,
    Quiet,
    Threads,
    Timeout,
    Words,
)
from selfee.engines.base import SamplingParams
from selfee.errors import UsageError
from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL

if TYPE_CHECKING:
    from selfee.eval.revising.making import Maker, Plan, Pool
    from selfee.eval.revising.problems import Problem
    from selfee.eval.revising.result import Analysis, Group

EXAMPLES = """Examples:

\b
  selfee revisions gsm8k_test.jsonl --limit 40 -o runs/gsm8k
  selfee revisions gsm8k_test.jsonl mbpp.jsonl --limit 40,20 -m model.gguf --parallel 4 -o runs/both
  selfee revisions --answers enforce_0.jsonl --answers enforce_3.jsonl --reviews reviews.jsonl -o runs/released
  selfee revisions mbpp.jsonl --answers training_chains.jsonl -o runs/training

\b
Every chain is kept in a journal in the folder: kill it whenever you like, the same command goes on where it stood.
analysis.json in the folder holds every figure; selfee report renders it.
"""

BUDGETS = FlagGroup(Budgets, prefix="max_", suffix="_tokens", help="Tokens that each {field} may use.")
SAMPLING = FlagGroup(
    SamplingParams,
    ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed"),
    words={"seed": "The same seed and settings give the same chains; default 0"},
)

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("revisions", epilog=EXAMPLES)
@with_flags(BUDGETS, SAMPLING)
def revisions(
    budgets: Budgets,
    params: SamplingParams,
    call: typer.Context,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the journal and the results.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Problems: lines of GSM8K, AQuA, MBPP or HumanEval."),
    ] = None,
    answers: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Write nothing: analyse the chains of this file. May be given again."),
    ] = None,
    reviews: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Judges' points for --answers: review files or judgments.jsonl."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="FILE", help="Model file whose vocabulary counts the tokens of --answers.")
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    count: Annotated[
        int, typer.Option("-r", "--revisions", min=1, max=20, help="Revisions enforced in each chain.")
    ] = 3,
    limit: Annotated[
        str | None,
        typer.Option(metavar="COUNTS", help="Take only the first so many of each file: 40, or 40,20 for two files."),
    ] = None,
    attempts: Annotated[int, typer.Option(min=1, max=1000, help="Separate attempts at a problem, at most.")] = 32,
    longer: Annotated[bool, typer.Option("--longer/--no-longer", help="Also ask for one long answer.")] = True,
    mode: Driven = ModeName.AUTO,
    prompts: Words = None,
    parallel: Annotated[
        int, typer.Option(min=1, max=256, help="Problems worked on at a time; a local model reads them together.")
    ] = 4,
    context: Context = None,
    threads: Threads = None,
    api_key_file: ApiKeyFile = None,
    timeout: Timeout = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the analysis as JSON.")] = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Make what is missing, or read what others made; grade all of it; say what revising did."""
    from selfee.cli.revisions_read import analyse_recorded
    from selfee.eval.revising.making import Maker, Plan
    from selfee.journal import Journal

    stdout, stderr = screen_of(sys.stdout, color), None if quiet else screen_of(sys.stderr, color)
    paths = [Path(name) for name in files or ()]
    if answers:
        groups, settings = analyse_recorded(answers, reviews or [], tokenizer, paths, stderr)
        _deliver(_analysis(groups, settings), out, stdout, as_json)
        return
    if not paths or reviews or tokenizer:
        raise UsageError("problems: none to answer; expected a FILE of problems, or --answers with chains to read")
    problems = _read(paths, limit)
    if model in BUILTIN_MODELS:
        mode, prompts, params = suited(BUILTIN_MODELS[model], mode, prompts, params, call, samples=True)
    seed = 0 if params.seed is None else params.seed
    plan = Plan(count, seed, replace(params, seed=None), budgets, mode.value, prompts, attempts, longer)
    _make_folder(out)
    engine = open_model(
        model,
        context,
        threads,
        None,
        CacheTypeName.F16,
        True,
        api_key_file,
        timeout,
        stderr,
        parallel=parallel,
    )
    with engine, Journal(out / "journal.db") as journal:
        identity = _identity(model)
        pools = _make(Maker(engine, identity, plan, journal), problems, parallel, stderr)
    _write_chains(out, pools)
    settings = _settings(model, identity, plan, paths, limit)
    _deliver(_analysis(_groups(pools, plan, str(settings["model"]), stderr), settings), out, stdout, as_json)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--out {out}: cannot be made ({error.strerror}); expected a folder; choose another"
        ) from error


def _read(files: Sequence[Path], limit: str | None) -> list[Problem]:
    from selfee.eval.revising.problems import read_problems

    limits = _limits(limit, len(files))
    return [problem for path, most in zip(files, limits, strict=True) for problem in read_problems(path, most)]


def _limits(text: str | None, count: int) -> list[int | None]:
    if text is None:
        return [None] * count
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) < 10**9 for part in parts) or len(parts) not in (1, count):
        raise UsageError(f"--limit {text!r}: expected a number such as 40, or one for each of the {count} files")
    numbers = [int(part) for part in parts]
    return list(numbers if len(numbers) == count else numbers * count)


def _identity(model: str) -> str:
    """What tells this model from others: the hash of its file, else what the user typed."""
    from selfee.cli.model_file import local_file
    from selfee.eval.answering.files import model_sha256

    is_elsewhere = model.lower().startswith(("http://", "https://", "script:"))
    return model if is_elsewhere else f"sha256:{model_sha256(local_file(model))}"


def _make(maker: Maker, problems: Sequence[Problem], parallel: int, stderr: Screen | None) -> list[Pool]:
    """Chains and attempts for every problem, in their order."""
    from selfee.cli.chunk_progress import ChunkDisplay

    display = None if stderr is None else ChunkDisplay(stderr, len(problems), unit="problems")
    if display is not None:
        display.begin("answering")
        show = display
        maker.tally.listeners.append(lambda tally: show.chunk(tally.problems, f"{tally.chains + tally.known} chains"))
    found: dict[int, Pool] = {}
    try:
        for index, pool in maker.make(problems, parallel):
            found[index] = pool
    finally:
        if display is not None:
            display.clear()
    return [found[index] for index in range(len(problems))]


def _groups(pools: Sequence[Pool], plan: Plan, source: str, stderr: Screen | None) -> list[Group]:
    """Grade everything, and say what it says, task by task."""
    from selfee.cli.chunk_progress import ChunkDisplay
    from selfee.eval.revising.analysing import analyse
    from selfee.eval.revising.cases import Case
    from selfee.eval.revising.grading import grade_pools, grader_of, sandbox_notes

    display = None if stderr is None else ChunkDisplay(stderr, len(pools), unit="problems")
    tasks: dict[str, list[Case]] = {}
    try:
        for index, case in grade_pools(pools):
            tasks.setdefault(pools[index].problem.task, []).append(case)
            if display is not None:
                display.step("grading", index + 1)
    finally:
        if display is not None:
            display.clear()
    return [
        analyse(
            task, cases, source=source, grader=grader_of(task), revisions=plan.revisions, notes=sandbox_notes([task])
        )
        for task, cases in tasks.items()
    ]


def _settings(model: str, identity: str, plan: Plan, files: Sequence[Path], limit: str | None) -> dict[str, Any]:
    """All that is needed to make the chains again."""
    sampling = asdict(plan.params) | {"logit_bias": {}, "samplers": list(plan.params.samplers)}
    return {
        "model": Path(model).name if identity.startswith("sha256:") else model,
        "identity": identity,
        "questions": [path.name for path in files],
        "limit": limit,
        "revisions": plan.revisions,
        "seed": plan.seed,
        "mode": plan.mode,
        "prompts": plan.prompts,
        "budgets": asdict(plan.budgets),
        "params": sampling,
    }


def _analysis(groups: Sequence[Group], settings: dict[str, Any]) -> Analysis:
    from selfee import __version__
    from selfee.eval.revising.analysing import INTERVALS
    from selfee.eval.revising.result import Analysis
    from selfee.eval.revising.strategies import MATCHING

    command = shlex.join(["selfee", *sys.argv[1:]])
    return Analysis(tuple(groups), settings, MATCHING, INTERVALS, command, __version__)


def _write_chains(out: Path, pools: Sequence[Pool]) -> None:
    from selfee.eval.revising.making import pool_to_json
    from selfee.jsonl import write_jsonl

    write_jsonl(out / "chains.jsonl", (pool_to_json(pool) for pool in pools))


def _deliver(analysis: Analysis, out: Path, stdout: Screen, as_json: bool) -> None:
    """Write the file, then show the tables."""
    from selfee.cli.revisions_view import show_analysis
    from selfee.eval.revising.result_file import FILE_NAME, write_analysis

    _make_folder(out)
    write_analysis(out / FILE_NAME, analysis)
    if as_json:
        stdout.write_json(asdict(analysis), indent=1)
    else:
        show_analysis(analysis, stdout)
