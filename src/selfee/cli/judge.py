"""``selfee judge``: models judge answers, both orders of every pair, in one run that can be killed."""

from __future__ import annotations

import enum
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.cli.answer import name_of
from selfee.cli.ask import open_model, require_model
from selfee.cli.judge_work import Comparing, Judging, folder_questions, plan_work
from selfee.cli.model_file import CacheTypeName
from selfee.cli.options import FlagGroup, with_flags
from selfee.cli.output import Color, Screen, screen_of
from selfee.cli.paying import PAYING, SERVER_PARALLEL, Paying, cost_text, find_price, is_server, open_server
from selfee.cli.question_options import Questioning
from selfee.cli.shared_options import ApiKeyFile, Colored, Context, Quiet, Threads, Timeout
from selfee.errors import UsageError

if TYPE_CHECKING:
    from selfee.engines.paid.journalled import JournalledEngine
    from selfee.eval.folder import Folder
    from selfee.eval.judging.run import Assignment, Judged
    from selfee.eval.questions import Question
    from selfee.eval.scoring.judgment import Judgment
    from selfee.journal import Journal

JUDGE_HELP = "Who judges: a server (http://127.0.0.1:8080/v1#name), a model file, a name; may be given more than once."
EXAMPLES = """Examples:

\b
  selfee judge run/answers/mine.jsonl chatgpt.jsonl -o run -m https://host/v1#gpt-4o
  selfee judge run/answers/mine.jsonl -o run -m http://127.0.0.1:8080/v1#judge --form pair-label
  selfee judge run/answers/mine.jsonl@3 run/answers/mine.jsonl@0 -o run -m judge.gguf --form single-score
  selfee judge a.jsonl b.jsonl --questions q.jsonl -o run -m URL --prompts p.jsonl --reviewers r.jsonl
  selfee judge a.jsonl b.jsonl -o run -m URL --prompts mt_bench_judge_prompts.jsonl --form pair-label
  selfee judge run/answers/mine.jsonl chatgpt.jsonl -o run -m URL --dry-run --price-in 2.5 --price-out 10
  selfee judge run/answers/mine.jsonl@3 chatgpt.jsonl -o run -m URL --controls 20 --repeats 2 --max-cost 5

\b
FILE means every number of revisions in it, FILE@2 one, FILE@auto what the model delivers by itself. With one file, each
number of revisions is compared with the one before. Every pair is judged in both orders. A reply that cannot be read is
asked for again, and recorded as unreadable if that does not help: it never counts as a score. Next: selfee report.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_WHICH = FlagGroup(Questioning, fields=("limit", "ids", "categories"), has_variables=False)
_COMPARING = FlagGroup(Comparing, has_variables=False)
_JUDGING = FlagGroup(Judging, has_variables=False)


class FormName(enum.Enum):
    """What a judge is asked for."""

    PAIR_SCORES = "pair-scores"
    PAIR_LABEL = "pair-label"
    SINGLE_SCORE = "single-score"


@dataclass(frozen=True)
class _Opening:
    """How judges are opened."""

    parallel: int | None
    context: int | None
    threads: int | None
    api_key_file: Path | None
    timeout: float | None
    screen: Screen | None

    def parallel_of(self, model: str) -> int:
        return self.parallel or (SERVER_PARALLEL if is_server(model) else 1)


@app.command("judge", epilog=EXAMPLES)
@with_flags(_JUDGING, _COMPARING, _WHICH, PAYING)
def judge(
    judging: Judging,
    comparing: Comparing,
    which: Questioning,
    paying: Paying,
    answers: Annotated[list[str], typer.Argument(metavar="FILE[@N]", help="Answers: ours, or of any known format.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder of the evaluation.")],
    judges: Annotated[list[str], typer.Option("-m", "--judge", "--model", help=JUDGE_HELP)],
    questions: Annotated[
        Path | None, typer.Option("--questions", help="File with the questions.  [default: DIR/questions.jsonl]")
    ] = None,
    references: Annotated[Path | None, typer.Option(help="File with good answers, for judging math and code.")] = None,
    form: Annotated[
        FormName | None, typer.Option(help="What the judge is asked for.  [default: pair-scores, or the prompts' own]")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="File with judge prompts, the original's or MT-bench's.  [default: ours]")
    ] = None,
    reviewers: Annotated[Path | None, typer.Option(help="File with the original's reviewers, for --prompts.")] = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, max=512, help="Judgments at a time.  [default: 1 here, 8 on a server]")
    ] = None,
    context: Context = None,
    threads: Threads = None,
    api_key_file: ApiKeyFile = None,
    timeout: Timeout = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask nothing: say how many judgments, tokens and dollars it would take.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Plan every judgment first, then ask what is missing, judge by judge."""
    from selfee.eval.folder import Folder
    from selfee.eval.scoring.judgment import Form
    from selfee.journal import Journal

    folder = Folder(out)
    asked = folder_questions(folder, questions, references, which)
    wished = None if form is None else Form(form.value)
    work = plan_work(answers, asked, comparing, judging, wished, prompts, reviewers)
    names = _file_names(judges, work, comparing)
    screen = None if quiet else screen_of(sys.stderr, color)
    opening = _Opening(parallel, context, threads, api_key_file, timeout, screen)
    for model in judges:
        require_model(model, api_key_file, screen)
    folder.make()
    folder.add_questions(asked)
    told: list[dict[str, Any]] = []
    with Journal(folder.journal) as journal:
        for model in judges:
            with _opened(model, opening, paying, journal) as engine:
                if dry_run:
                    told.append(_reckon(engine, model, work, judging, paying, journal))
                else:
                    told.append(_judge_all(folder, asked, names[model], engine, work, judging, opening, model))
    _tell(told, screen, as_json=as_json)
    if any(one.get("stopped") or one.get("failed") for one in told):
        raise typer.Exit(1)


def _file_names(judges: Sequence[str], work: Sequence[Assignment], comparing: Comparing) -> dict[str, str]:
    """A file for each judge and form: judgments of several commands come together there."""
    form = work[0].template.form.value
    names = {model: f"{comparing.name or name_of(model)}.{form}" for model in judges}
    if len(set(names.values())) < len(set(judges)):
        names = {model: f"{name}-{number}" for number, (model, name) in enumerate(names.items(), start=1)}
    return names


@contextmanager
def _opened(model: str, opening: _Opening, paying: Paying, journal: Journal) -> Iterator[JournalledEngine]:
    from selfee.cli.answer import identity_of
    from selfee.engines.paid.journalled import journal_local

    parallel = opening.parallel_of(model)
    if is_server(model):
        with open_server(
            model,
            paying,
            journal,
            parallel=parallel,
            api_key_file=opening.api_key_file,
            timeout=opening.timeout,
            context=opening.context,
        ) as served:
            yield served
        return
    if paying.max_cost is not None:
        raise UsageError(f"--max-cost: {model} is no server and costs nothing; leave it out")
    with open_model(
        model,
        opening.context,
        opening.threads,
        None,
        CacheTypeName.F16,
        True,
        opening.api_key_file,
        opening.timeout,
        opening.screen,
        parallel,
    ) as engine:
        yield journal_local(engine, journal, model=identity_of(model))


def _judge_all(
    folder: Folder,
    questions: Sequence[Question],
    name: str,
    engine: JournalledEngine,
    work: Sequence[Assignment],
    judging: Judging,
    opening: _Opening,
    model: str,
) -> dict[str, Any]:
    from selfee import __version__
    from selfee.cli.chunk_progress import ChunkDisplay
    from selfee.eval.judging.files import merge_judgments, write_reviews
    from selfee.eval.judging.run import judge_items

    display = None if opening.screen is None else ChunkDisplay(opening.screen, len(work), unit="judgments")
    unreadable = 0

    def listen(done: int, judgment: Judgment) -> None:
        nonlocal unreadable
        unreadable += not judgment.is_readable
        if display is not None:
            figure = f"{unreadable} unreadable" if unreadable else ""
            display.step(f"{engine.model} question {judgment.question_id}", done, figure=figure)

    try:
        judged = judge_items(engine, work, judging.rules, parallel=opening.parallel_of(model), listen=listen)
    except KeyboardInterrupt:
        if display is not None:
            display.note("stopped; what was paid for is kept: the same command goes on")
        raise
    finally:
        if display is not None:
            display.clear()
    path = folder.judgments(name)
    merged = merge_judgments(path, judged.judgments, [question.id for question in questions])
    reviewers = {each.template.name: each.template.reviewer for each in work if each.template.reviewer is not None}
    write_reviews(folder, merged, reviewers)
    summary = _summary(judged, path, len(work))
    settings = {"judge": engine.model, "rules": vars(judging.rules), "selfee": __version__}
    folder.note("judgments", name, settings | {"judgments": len(merged), "stopped": judged.stopped})
    return summary | {"judge": engine.model, "reading": engine.read()}


def _summary(judged: Judged, path: Path, total: int) -> dict[str, Any]:
    reasons = Counter(each.unreadable.value for each in judged.judgments if each.unreadable is not None)
    again = sum(len(each.earlier_replies) > 0 for each in judged.judgments)
    failures = [each.notes[-1] for each in judged.judgments if each.unreadable and each.unreadable.value == "failed"]
    return {
        "file": str(path),
        "wanted": total,
        "judgments": len(judged.judgments),
        "asked_again": again,
        "unreadable": {name: count for name, count in sorted(reasons.items()) if name != "failed"},
        "failed": len(failures),
        "why": failures[0] if failures else "",
        "stopped": judged.stopped,
    }


def _reckon(
    engine: JournalledEngine,
    model: str,
    work: Sequence[Assignment],
    judging: Judging,
    paying: Paying,
    journal: Journal,
) -> dict[str, Any]:
    from selfee.eval.judging.run import estimate

    price = find_price(f"{model.partition('#')[0]}#{engine.model}", paying) if is_server(model) else None
    return {"judge": engine.model, "dry_run": True} | vars(estimate(engine, work, judging.rules, journal, price))


def _tell(told: Sequence[dict[str, Any]], screen: Screen | None, *, as_json: bool) -> None:
    readings = [one.pop("reading", None) for one in told]
    if as_json:
        rows = [
            one | ({"usage": reading.to_json()} if reading is not None else {}) for one, reading in zip(told, readings)
        ]
        screen_of(sys.stdout, Color.NEVER).write_json(rows, indent=2)
        return
    for one, reading in zip(told, readings):
        if one.get("dry_run"):
            money = "no price is known" if one["cost"] is None else f"about ${one['cost']:.4f}"
            known = f", {one['known']} of them known" if one["known"] else ""
            sys.stdout.write(
                f"{one['judge']}: {one['judgments']} judgments{known}; about {one['prompt_tokens']:,} tokens to read, "
                f"{one['completion_tokens']:,} to write; {money}\n"
            )
            continue
        sys.stdout.write(f"{one['file']}\n")
        if screen is not None:
            screen.write("".join(screen.style(line, "dim") + "\n" for line in _lines(one, cost_text(reading))))


def _lines(one: dict[str, Any], cost: str) -> Iterator[str]:
    again = f", {one['asked_again']} asked again" if one["asked_again"] else ""
    count = sum(one["unreadable"].values())
    kinds = ", ".join(f"{number} {name}" for name, number in one["unreadable"].items())
    yield f"{one['judge']}: {one['judgments']} of {one['wanted']} judgments{again}"
    if count:
        yield f"{count} replies stayed unreadable ({kinds}): recorded as such, they count for nothing"
    if one["failed"]:
        yield f"{one['failed']} judgments failed ({one['why']}); the same command asks for them again"
    if one["stopped"]:
        yield one["stopped"]
    if cost:
        yield cost
