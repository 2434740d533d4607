"""``selfee ask``: one question, a chain of answer, feedback and revision on stderr, the final answer on stdout."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.chain.allowance import Allowance
from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy, policy_for
from selfee.chain.templates import explain_choice, mode_for, use_template
from selfee.cli.choosing import Chooser, Choosing
from selfee.cli.model_file import CacheTypeName
from selfee.cli.options import FlagGroup, with_flags
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.shared_options import (
    ApiKeyFile,
    AtLeast,
    AtMost,
    CachedAs,
    Colored,
    Context,
    Drafting,
    Driven,
    ModelName,
    ModeName,
    Quiet,
    Repack,
    Revisions,
    Template,
    TemplateName,
    Threads,
    Timeout,
    Words,
)
from selfee.engines.base import SamplingParams
from selfee.errors import UsageError
from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL, BuiltinModel

if TYPE_CHECKING:
    from selfee.cli.session import SessionPlan
    from selfee.engines.open import AnyEngine

EXAMPLES = """Examples:

\b
  selfee ask "Why is the sky blue?"
  selfee ask "Why is the sky blue?" --revisions 2 --seed 1
  selfee ask "Summarise this" < notes.txt
  selfee ask -m model.gguf "Plan a day" --json
  selfee ask -m selfee-13b.ggmlv3.q5_0.bin --template selfee "Plan a day"
  selfee ask "What is 17 times 23?" --best-of 5 --keep vote --vote-on number
  selfee ask "Write a haiku" --total-tokens 2000 --check-command "./is_haiku.py" --until-passed
  SELFEE_API_KEY=… selfee ask -m https://host/v1#model "Plan a day"

Every flag --some-flag can also be set by the variable SELFEE_SOME_FLAG; the flag wins."""


class Show(enum.Enum):
    """What is shown."""

    FINAL = "final"
    CHAIN = "chain"
    RAW = "raw"


BUDGETS = FlagGroup(Budgets, prefix="max_", suffix="_tokens", help="Tokens that each {field} may use.")
SAMPLING = FlagGroup(
    SamplingParams,
    words={
        "temperature": "0 = always the most likely token; a built-in model brings its own default",
        "seed": "The same seed and settings give the same chain; without one, a fresh one is drawn and shown",
        "logit_bias": "Make tokens likelier or less likely: TOKEN=NUMBER,TOKEN=NUMBER",
        "samplers": "The order in which samplers are applied, with commas",
    },
)


ALLOWANCE = FlagGroup(
    Allowance,
    prefix="total_",
    words={
        "tokens": "Generate at most so many tokens in all, and revise until then unless --max-revisions forbids it",
        "seconds": "Take at most so many seconds in all, and revise until then unless --max-revisions forbids it",
    },
)
# A program must never be run because of a variable that somebody else has set.
CHOOSING = FlagGroup(Choosing, has_variables=False)

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("ask", epilog=EXAMPLES)
@with_flags(BUDGETS, SAMPLING, ALLOWANCE, CHOOSING)
def ask(
    budgets: Budgets,
    params: SamplingParams,
    allowance: Allowance,
    choosing: Choosing,
    call: typer.Context,
    question: Annotated[
        list[str] | None, typer.Argument(help="The question; - = standard input.", metavar="QUESTION")
    ] = None,
    model: ModelName = DEFAULT_MODEL,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="Read the question from this file.")] = None,
    input_text: Annotated[
        str | None, typer.Option("--input", help="Text that the question is about; - = standard input.")
    ] = None,
    revisions: Revisions = None,
    min_revisions: AtLeast = None,
    max_revisions: AtMost = None,
    mode: Driven = ModeName.AUTO,
    template: Template = TemplateName.AUTO,
    prompts: Words = None,
    show: Annotated[
        Show,
        typer.Option(
            help="chain: all on stderr, the final answer on stdout; final: that alone; raw: its text on stdout.",
            envvar="SELFEE_SHOW",
            show_envvar=False,
        ),
    ] = Show.CHAIN,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole chain as one JSON object.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="Print every event as a line of JSON.")] = False,
    session: Annotated[
        Path | None,
        typer.Option(
            help="Keep what the model has read in this file: restored at the start, saved at the end.",
            envvar="SELFEE_SESSION",
            show_envvar=False,
        ),
    ] = None,
    context: Context = None,
    threads: Threads = None,
    repack: Repack = None,
    cache_type: CachedAs = CacheTypeName.F16,
    drafting: Drafting = True,
    api_key_file: ApiKeyFile = None,
    timeout: Timeout = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End answers and revisions before this text; may be given more than once.")
    ] = None,
    color: Colored = Color.AUTO,
    quiet: Quiet = False,
) -> None:
    """Read the question, open the model, make the chain, deliver it."""
    from selfee.cli.delivery import Task, Wish, deliver
    from selfee.cli.question import read_question
    from selfee.cli.session import session_kept

    if as_json and as_jsonl:
        raise UsageError("--json and --jsonl: both given; expected one of them")
    chooser = Chooser(choosing, allowance, os.environ)
    policy = revision_policy(*revisions_asked(call, samples=chooser.samples), limited=allowance.is_limited)
    stdout, stderr = screen_of(sys.stdout, color), screen_of(sys.stderr, color)

    def notify(text: str) -> None:
        if not quiet:
            stderr.write(stderr.style(text, "dim") + "\n")

    plan = None if session is None else _session_plan(session, notify, stderr)
    instruction = read_question(question or [], file, input_text, sys.stdin, notify)
    form = "json" if as_json else "jsonl" if as_jsonl else "raw" if show is Show.RAW else "final"
    wish = Wish(form, shows_chain=form == "final" and show is Show.CHAIN and not quiet, is_quiet=quiet)
    mode = ModeName(mode_for(template.value, mode.value))
    is_chosen_for_me = mode is ModeName.AUTO and model not in BUILTIN_MODELS
    if model in BUILTIN_MODELS:
        mode, prompts, params = suited(BUILTIN_MODELS[model], mode, prompts, params, call, chooser.samples)
    with ExitStack() as engines:
        screen = None if quiet else stderr

        def open_one(name: str, size: int | None = None) -> AnyEngine:
            one = open_model(name, size, threads, repack, cache_type, drafting, api_key_file, timeout, screen)
            engines.enter_context(one)
            return one

        engine = open_one(model, context)
        use_template(engine, template.value)
        if is_chosen_for_me and (choice := explain_choice(engine, mode.value, model)):
            notify(choice)
        task = Task(instruction, policy, params, budgets, allowance, mode.value, prompts, tuple(stop or ()))
        with session_kept(engine, plan):
            deliver(engine, task, chooser, chooser.checker(engine, open_one), wish, stdout, stderr)


def revision_policy(
    exactly: int | None, at_least: int | None, at_most: int | None, *, limited: bool = False
) -> RevisionPolicy:
    """The policy that --revisions, --min-revisions and --max-revisions mean together.

    What is ``limited`` by tokens or seconds needs no limit by number, unless one is asked for.
    """
    if exactly is not None and (at_least is not None or at_most is not None):
        raise UsageError("--revisions: means minimum and maximum at once; leave --min-revisions, --max-revisions out")
    return policy_for(exactly, at_least, at_most, limited=limited)


def revisions_asked(call: typer.Context, *, samples: bool = False) -> list[int | None]:
    """--revisions, --min-revisions and --max-revisions; a variable that contradicts a flag is left out.

    Raises UsageError for such a flag beside --best-of.
    """
    names = ("revisions", "min_revisions", "max_revisions")
    sources = {name: call.get_parameter_source(name) for name in names}
    kinds = {name == "revisions" for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    if samples and kinds:
        raise UsageError(
            "--best-of: answers anew instead of revising; leave out --revisions, --min- and --max-revisions"
        )
    return [None if kinds and (name == "revisions") not in kinds else call.params[name] for name in names]


def suited(
    model: BuiltinModel,
    mode: ModeName,
    prompts: str | None,
    params: SamplingParams,
    call: typer.Context,
    samples: bool,
) -> tuple[ModeName, str | None, SamplingParams]:
    """Mode, words and sampling that suit a built-in model, where the user did not choose.

    Several attempts must differ, so a model that does best at temperature 0 is sampled at the usual one.
    """
    suits = {name: value for name, value in model.sampling.items() if call.params[name] is None}
    if samples and model.temperature == 0:
        suits.pop("temperature", None)
    params = replace(params, **suits)
    if mode is not ModeName.AUTO:
        return mode, prompts, params
    return ModeName(model.mode), prompts or model.prompts, params


def _session_plan(path: Path, notify: Callable[[str], None], stderr: Screen) -> SessionPlan:
    """What --session asks for. Raises UsageError where nothing can be saved there."""
    from selfee.cli.session import SessionPlan, check_session_path
    from selfee.cli.settings import remembered_fingerprints

    check_session_path(path)

    def warn(text: str) -> None:
        stderr.write(f"selfee: {for_terminal(text)}\n")

    return SessionPlan(path, remembered_fingerprints(os.environ), notify, warn)


def open_model(
    model: str,
    context: int | None,
    threads: int | None,
    repack: bool | None,
    cache_type: CacheTypeName,
    drafting: bool,
    api_key_file: Path | None,
    timeout: float | None,
    stderr: Screen | None,
    parallel: int = 1,
) -> AnyEngine:
    """Open what the user calls ``model``; a model that is not here yet is fetched, with progress on ``stderr``."""
    from selfee.engines.open import open_engine

    found = resolve_model(model, api_key_file, stderr)
    is_here = "api_key" not in found and not found["spec"].startswith("script:")
    with _loading(Path(found["spec"]).name, stderr if is_here else None):
        return open_engine(
            **found,
            context_length=context,
            threads=threads,
            repack=repack,
            parallel=parallel,
            drafting=drafting,
            cache_type=cache_type.cache_type,
            timeout=timeout,
        )


def require_model(model: str, api_key_file: Path | None, stderr: Screen | None) -> None:
    """Find a model, or fetch it, before a folder is made for what it will say. Raises UsageError for none."""
    resolve_model(model, api_key_file, stderr)
    script = Path(model.removeprefix("script:"))
    if model.startswith("script:") and not script.is_file():
        raise UsageError(f"{script}: no such file; expected a script of replies")


def resolve_model(model: str, api_key_file: Path | None, stderr: Screen | None) -> dict[str, Any]:
    """What ``open_engine`` needs to find a model: its file, which is fetched if it is not here, or key and proxy."""
    from selfee.cli.progress import DownloadDisplay, QuietDisplay
    from selfee.cli.settings import api_key, model_store, server_proxy
    from selfee.weights.fetch.model_names import is_model_url

    if model.lower().startswith(("http://", "https://")) and not is_model_url(model):
        return {"spec": model, "api_key": api_key(os.environ, model, api_key_file), "proxy": server_proxy(model)}
    if model.startswith("script:"):
        return {"spec": model}
    display = QuietDisplay() if stderr is None else DownloadDisplay(stderr)
    return {"spec": str(model_store(os.environ).resolve(model, display))}


@contextmanager
def _loading(name: str, screen: Screen | None) -> Iterator[None]:
    """Say on a terminal, for as long as it takes, that a model is being loaded."""
    is_shown = screen is not None and screen.has_color  # where there is no colour, no control sequence is wanted
    if screen is not None and is_shown:
        screen.write(screen.style(f"loading {for_terminal(name)} …", "dim"))
    try:
        yield
    finally:
        if screen is not None and is_shown:
            screen.write("\r\x1b[K")
