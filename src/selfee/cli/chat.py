"""``selfee chat``: talk with a model that revises its answers; conversations are kept and can be gone on with."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfee.chain.budgets import Budgets
from selfee.chain.templates import explain_choice, mode_for, use_template
from selfee.cli.ask import BUDGETS, SAMPLING, open_model, revision_policy, revisions_asked
from selfee.cli.model_file import CacheTypeName
from selfee.cli.options import with_flags
from selfee.cli.output import Color, Screen, screen_of
from selfee.cli.shared_options import (
    ApiKeyFile,
    AtLeast,
    AtMost,
    CachedAs,
    Colored,
    Context,
    Driven,
    ModelName,
    ModeName,
    Revisions,
    Template,
    TemplateName,
    Threads,
    Timeout,
    Words,
)
from selfee.engines.base import SamplingParams
from selfee.errors import SelfeeError, UsageError
from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL

if TYPE_CHECKING:
    from selfee.cli.chatting.conversation import Shelf
    from selfee.cli.chatting.talk import Opened, Talk

EXAMPLES = """Examples:

\b
  selfee chat
  selfee chat -m model.gguf --min-revisions 1 --system "Answer in French."
  selfee chat --continue
  printf 'Why is the sky blue?\\n/more\\n/diff\\n' | selfee chat

/help lists what can be typed. Conversations are kept in the folder that SELFEE_CHATS names, else in the user's own data
folder; --no-keep keeps none."""

_LARGEST_CACHE = 512 << 20  # bytes of keys and values that are kept beside a conversation

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("chat", epilog=EXAMPLES)
@with_flags(BUDGETS, SAMPLING)
def chat(
    budgets: Budgets,
    params: SamplingParams,
    call: typer.Context,
    model: ModelName = DEFAULT_MODEL,
    system: Annotated[str | None, typer.Option(help="How the model is to behave.")] = None,
    goes_on: Annotated[bool, typer.Option("--continue", help="Go on with the conversation used last.")] = False,
    load: Annotated[Path | None, typer.Option(help="Go on with this conversation.")] = None,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Keep the conversation on disk.")] = True,
    fold: Annotated[bool, typer.Option("--fold", help="Show final answers only; /chain shows the rest.")] = False,
    revisions: Revisions = None,
    min_revisions: AtLeast = None,
    max_revisions: AtMost = None,
    mode: Driven = ModeName.AUTO,
    template: Template = TemplateName.AUTO,
    prompts: Words = None,
    context: Context = None,
    threads: Threads = None,
    cache_type: CachedAs = CacheTypeName.F16,
    api_key_file: ApiKeyFile = None,
    timeout: Timeout = None,
    color: Colored = Color.AUTO,
) -> None:
    """Open the model, then read, answer and revise until the user leaves."""
    from selfee.cli.chatting.conversation import Conversation, Shelf
    from selfee.cli.chatting.reading import keys_hidden, open_reader
    from selfee.cli.chatting.talk import Opened, Settings, Talk

    if goes_on and load is not None:
        raise UsageError("--continue and --load: both given; expected one of them")
    policy = revision_policy(*revisions_asked(call))
    screen, stderr = screen_of(sys.stdout, color), screen_of(sys.stderr, color)
    folder = chats_folder(os.environ)
    shelf = Shelf(folder)
    path = shelf.latest() if goes_on else load
    if goes_on and path is None:
        raise UsageError(f"--continue: no conversation in {folder}; expected one; start without it")
    conversation = Conversation() if path is None else Conversation.load(path)
    if conversation.model and not _was_given(call, "model"):
        model = conversation.model
    if system is not None:
        conversation.system = system
    conversation.model = model

    driven = mode_for(template.value, mode.value)

    def open_one(name: str) -> Opened:
        settings = Settings(policy, params, budgets, mode.value, prompts)
        if name in BUILTIN_MODELS:
            known = BUILTIN_MODELS[name]
            suits = {name: value for name, value in known.sampling.items() if not _was_given(call, name)}
            settings.params = replace(params, **suits)
            if settings.mode == "auto":
                settings.mode, settings.prompts = ModeName(known.mode).value, prompts or known.prompts
        engine = open_model(name, context, threads, None, cache_type, True, api_key_file, timeout, stderr)
        return Opened(engine, name, settings)

    opened = open_one(model)
    if template is not TemplateName.AUTO:
        use_template(opened.engine, template.value)
        opened.settings.mode = driven
    elif driven == "auto" and model not in BUILTIN_MODELS and (word := explain_choice(opened.engine, driven, model)):
        stderr.write(stderr.style(word, "dim") + "\n")
    hushed = partial(keys_hidden, sys.stdin)
    talk = Talk(opened, open_one, conversation, screen, shelf, path, keep, fold, hushed)
    try:
        _restore(talk, stderr)
        _greet(talk, screen)
        try:
            talk.run(open_reader(sys.stdin, folder / "history", screen.has_color))
        finally:  # also where the terminal was closed
            _save_cache(talk, shelf, stderr)
    finally:
        talk.opened.engine.close()


def chats_folder(environ: Mapping[str, str]) -> Path:
    """Where conversations are kept: ``SELFEE_CHATS``, else in the user's data folder."""
    from platformdirs import user_data_path

    named = environ.get("SELFEE_CHATS")
    return Path(named).expanduser() if named else user_data_path("selfee") / "chats"


def _was_given(call: typer.Context, name: str) -> bool:
    source = call.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT") and call.params[name] is not None


def _greet(talk: Talk, screen: Screen) -> None:
    if not screen.is_terminal:
        return
    said = f"{talk.opened.name} · /help for commands · Ctrl-C stops an answer, Ctrl-D leaves"
    screen.write(screen.style(said, "dim") + "\n")
    for turn in talk.conversation.history[-1:]:
        screen.write(screen.style(f"… {turn.question.splitlines()[0][:70]}", "dim") + "\n")


def _restore(talk: Talk, stderr: Screen) -> None:
    """What the model had read of this conversation, if it was kept; without it the model reads it again."""
    from selfee.cli.settings import remembered_fingerprints
    from selfee.engines.local import LocalEngine

    if talk.path is None or not isinstance(talk.opened.engine, LocalEngine):
        return
    file = talk.path.with_suffix(".session")
    if not file.exists():
        return
    try:
        talk.opened.engine.restore_session(file, remembered=remembered_fingerprints(os.environ))
    except SelfeeError as error:
        stderr.write(stderr.style(f"{error} (the conversation is read again)", "dim") + "\n")


def _save_cache(talk: Talk, shelf: Shelf, stderr: Screen) -> None:
    from selfee.cli.settings import remembered_fingerprints
    from selfee.engines.local import LocalEngine

    engine, path = talk.opened.engine, talk.path
    if not (talk.keeps and path is not None and isinstance(engine, LocalEngine)):
        return
    file = shelf.session_of(path)
    try:
        engine.save_session(file, remembered=remembered_fingerprints(os.environ))
    except SelfeeError as error:
        stderr.write(stderr.style(f"{error} (the conversation itself is kept)", "dim") + "\n")
        return
    with suppress(OSError):
        if file.exists() and file.stat().st_size > _LARGEST_CACHE:
            file.unlink()
