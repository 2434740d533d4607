"""``selfee answer``: a model answers a set of questions, for every number of revisions, in one run that goes on."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.chain.budgets import Budgets
from selfee.cli.ask import BUDGETS, SAMPLING, open_model, require_model, suited
from selfee.cli.model_file import CacheTypeName
from selfee.cli.options import with_flags
from selfee.cli.output import Color, Screen, screen_of
from selfee.cli.paying import PAYING, SERVER_PARALLEL, Paying, cost_text, is_server, open_server, reading_of
from selfee.cli.question_options import QUESTIONING, Questioning, chosen_questions
from selfee.cli.shared_options import (
    ApiKeyFile,
    CachedAs,
    Colored,
    Context,
    Drafting,
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
    from selfee.eval.answering.run import Outcome
    from selfee.eval.answers import Answer
    from selfee.eval.folder import Folder
    from selfee.eval.questions import Question
    from selfee.journal import Journal

EXAMPLES = """Examples:

\b
  selfee answer question.jsonl -m model.gguf -o run
  selfee answer mt_bench_question.jsonl -o run --name small --revisions 2 --limit 10
  selfee answer gsm8k_test.jsonl -m http://127.0.0.1:8080/v1#name -o run --parallel 16
  selfee answer tasks.jsonl -o run --text-field prompt --id-field key
  selfee answer mbpp.jsonl -o run --ids 11,12,13 --seed 7

\b
One chain that must revise N times holds those with fewer revisions, and the one that the model would have ended itself:
answers for 0 to N revisions and for the model's own choice come from one run. A run that was stopped goes on where it
stood when the same command is given again. Next: selfee judge, selfee report.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_SAMPLING = replace(
    SAMPLING, words=dict(SAMPLING.words) | {"seed": "The same seed gives the same answers.  [default: 0]"}
)


@dataclass(frozen=True)
class _Opening:
    """How the model is opened."""

    model: str
    context: int | None
    threads: int | None
    cache_type: CacheTypeName
    drafting: bool
    api_key_file: Path | None
    timeout: float | None
    parallel: int


@app.command("answer", epilog=EXAMPLES)
@with_flags(BUDGETS, _SAMPLING, QUESTIONING, PAYING)
def answer(
    budgets: Budgets,
    params: SamplingParams,
    questioning: Questioning,
    paying: Paying,
    call: typer.Context,
    questions: Annotated[Path, typer.Argument(metavar="QUESTIONS", help="File with the questions.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder of the evaluation.")],
    model: ModelName = DEFAULT_MODEL,
    name: Annotated[str | None, typer.Option(help="Name of these answers.  [default: the model's]")] = None,
    revisions: Annotated[
        int, typer.Option("-r", "--revisions", min=0, help="Answer for 0, 1, … so many enforced revisions.")
    ] = 3,
    enforce: Annotated[
        bool,
        typer.Option(
            "--enforce/--autonomous", help="Enforce revisions, or let the model end its chain itself (it may be short)."
        ),
    ] = True,
    references: Annotated[
        Path | None, typer.Option(help="File with good answers, as MT-bench's reference_answer; for judges.")
    ] = None,
    mode: Driven = ModeName.AUTO,
    prompts: Words = None,
    parallel: Annotated[
        int | None,
        typer.Option(min=1, max=512, help="Chains at a time.  [default: 1 here, 8 on a server]"),
    ] = None,
    stop_repeats: Annotated[
        bool, typer.Option("--stop-repeats/--go-on", help="End a chain whose revision repeats an earlier answer.")
    ] = True,
    context: Context = None,
    threads: Threads = None,
    cache_type: CachedAs = CacheTypeName.F16,
    drafting: Drafting = True,
    api_key_file: ApiKeyFile = None,
    timeout: Timeout = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Read the questions, make what chains are missing, write answers and how they came about."""
    from selfee.eval.answering.plan import Plan
    from selfee.eval.folder import Folder
    from selfee.journal import Journal

    asked = chosen_questions(questions, questioning, references)
    if model in BUILTIN_MODELS:
        mode, prompts, params = suited(BUILTIN_MODELS[model], mode, prompts, params, call, False)
    params = replace(params, seed=0 if params.seed is None else params.seed)
    plan = Plan(name or name_of(model), revisions, enforce, stop_repeats, params, budgets, mode.value, prompts, model)
    screen = screen_of(sys.stderr, color)
    folder = Folder(out)
    require_model(model, api_key_file, None if quiet else screen)
    folder.make()
    folder.add_questions(asked)
    opening = _Opening(
        model,
        context,
        threads,
        cache_type,
        drafting,
        api_key_file,
        timeout,
        parallel or (SERVER_PARALLEL if is_server(model) else 1),
    )
    with Journal(folder.journal) as journal:
        outcome, answers, reading = _answer_all(
            folder, asked, plan, opening, paying, journal, None if quiet else screen
        )
    _tell(folder, asked, plan, outcome, answers, reading, None if quiet else screen, as_json=as_json)
    if outcome.failures:
        raise typer.Exit(1)


def name_of(model: str) -> str:
    """A file name for what answers: letters, digits, dots, - and _ of the model's own."""
    last = model.rpartition("#")[2] if "#" in model else model.rstrip("/").rpartition("/")[2]
    last = re.sub(r"\.(gguf|bin|jsonl)$", "", last.removeprefix("script:"))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip(".-") or "model"


def _answer_all(
    folder: Folder,
    questions: Sequence[Question],
    plan: Any,
    opening: _Opening,
    paying: Paying,
    journal: Journal,
    screen: Screen | None,
) -> tuple[Outcome, list[Answer], Any]:
    from selfee import __version__
    from selfee.cli.chunk_progress import ChunkDisplay
    from selfee.eval.answering.files import describe, write_all
    from selfee.eval.answering.run import Progress, answer_questions

    display = None if screen is None else ChunkDisplay(screen, len(questions), unit="chains")

    def listen(progress: Progress) -> None:
        if display is not None:
            display.step(f"{plan.name} question {progress.question_id}", progress.done, progress.total)

    with _opened(opening, paying, journal, screen) as (engine, identity):
        plan = replace(plan, model=identity)
        try:
            outcome = answer_questions(engine, questions, plan, journal, parallel=opening.parallel, listen=listen)
        except KeyboardInterrupt:
            if display is not None:
                display.note("stopped; what is finished is kept: the same command goes on")
            raise
        finally:
            if display is not None:
                display.clear()
        answers = write_all(folder, questions, plan, outcome.made)
        told = describe(plan, engine, questions, {"selfee": __version__, "answered": len(answers)})
        folder.note("answers", plan.name, told)
        return outcome, answers, reading_of(engine)


@contextmanager
def _opened(opening: _Opening, paying: Paying, journal: Journal, screen: Screen | None) -> Iterator[tuple[Any, str]]:
    """The engine, and what its chains belong to: a server's model, or a file's name and checksum."""
    with ExitStack() as stack:
        if is_server(opening.model):
            served = open_server(
                opening.model,
                paying,
                journal,
                parallel=opening.parallel,
                api_key_file=opening.api_key_file,
                timeout=opening.timeout,
                context=opening.context,
            )
            engine: Any = stack.enter_context(served)
            yield engine, engine.model
            return
        if paying.max_cost is not None:
            raise UsageError(f"--max-cost: {opening.model} is no server and costs nothing; leave it out")
        engine = open_model(
            opening.model,
            opening.context,
            opening.threads,
            None,
            opening.cache_type,
            opening.drafting,
            opening.api_key_file,
            opening.timeout,
            screen,
            opening.parallel,
        )
        stack.enter_context(engine)
        yield engine, identity_of(opening.model)


def identity_of(model: str) -> str:
    """A model file's name and the beginning of its checksum: another file is another model, whatever it is called."""
    from selfee.cli.progress import QuietDisplay
    from selfee.cli.settings import model_store
    from selfee.eval.answering.files import model_sha256

    is_script = model.startswith("script:")
    named = model.removeprefix("script:") if is_script else model_store(os.environ).resolve(model, QuietDisplay())
    path = Path(named)
    return f"{path.name} {model_sha256(path)[:16]}"


def _tell(
    folder: Folder,
    questions: Sequence[Question],
    plan: Any,
    outcome: Outcome,
    answers: Sequence[Answer],
    reading: Any,
    screen: Screen | None,
    *,
    as_json: bool,
) -> None:
    statuses = Counter(turn.status for answer in answers for turn in answer.turns)
    failures = [vars(failure) for failure in outcome.failures]
    path = folder.answers(plan.name)
    if as_json:
        told: dict[str, Any] = {"answers": str(path), "chains": str(folder.chains(plan.name)), "failures": failures}
        told |= {"questions": len(questions), "systems": len(plan.systems), "statuses": dict(statuses)}
        told |= {"made": len(outcome.made) - outcome.recalled, "recalled": outcome.recalled}
        screen_of(sys.stdout, Color.NEVER).write_json(told, indent=2)
    else:
        sys.stdout.write(f"{path}\n")
    if screen is None:
        return
    made = len(outcome.made) - outcome.recalled
    recalled = f", {outcome.recalled} from the journal" if outcome.recalled else ""
    kinds = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    lines = [f"{len(answers)} answers to {len(questions)} questions from {made} new chains{recalled}: {kinds}"]
    if reading is not None and (money := cost_text(reading)):
        lines.append(money)
    lines += [f"question {each.question_id}: {each.reason}" for each in outcome.failures[:5]]
    if outcome.failures:
        lines.append(f"{len(outcome.failures)} chains failed; the same command asks for them again")
    screen.write("".join(screen.style(line, "dim") + "\n" for line in lines))
