"""``selfee serve``: a model for any client, until it is told to end."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.chain.budgets import Budgets
from selfee.cli.ask import BUDGETS, SAMPLING, resolve_model, revision_policy
from selfee.cli.interrupts import INTERRUPTED
from selfee.cli.model_file import CacheTypeName
from selfee.cli.options import FlagGroup, with_flags
from selfee.cli.output import Color, for_terminal, screen_of
from selfee.cli.serving.fleet import Fleet, build
from selfee.cli.serving.settings import Addressing, Logging, read_keys
from selfee.cli.shared_options import (
    MODEL_HELP,
    ApiKeyFile,
    CachedAs,
    Context,
    Drafting,
    Driven,
    ModeName,
    Repack,
    Threads,
    Timeout,
    Words,
)
from selfee.engines.base import SamplingParams
from selfee.errors import UsageError
from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL

if TYPE_CHECKING:
    from selfee.serve.config import Defaults
    from selfee.serve.opening import Opening

EXAMPLES = """Examples:

\b
  selfee serve
  selfee serve -m model.gguf --port 9000 --parallel 4
  selfee serve -m smollm2-135m -m big=hf:org/repo/file.gguf
  selfee serve --host 0.0.0.0 --key-file keys.txt --tls-cert cert.pem --tls-key key.pem
  SELFEE_API_KEY=… selfee serve -m https://host/v1#model
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'

Every flag --some-flag can also be set by the variable SELFEE_SOME_FLAG; the flag wins."""

ADDRESSING = FlagGroup(Addressing)
LOGGING = FlagGroup(Logging)
FLEET = FlagGroup(Fleet)

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("serve", epilog=EXAMPLES)
@with_flags(ADDRESSING, LOGGING, FLEET, BUDGETS, SAMPLING)
def serve(
    addressing: Addressing,
    logging: Logging,
    fleet: Fleet,
    budgets: Budgets,
    params: SamplingParams,
    call: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            help=f"{MODEL_HELP} NAME=MODEL gives it another name; may be given more than once.  "
            f"[default: {DEFAULT_MODEL}]",
            envvar="SELFEE_MODEL",
            show_envvar=False,
        ),
    ] = None,
    min_revisions: Annotated[
        int | None,
        typer.Option(
            help="Enforce at least so many, where a request does not say.  [default: 0]",
            envvar="SELFEE_MIN_REVISIONS",
            show_envvar=False,
        ),
    ] = None,
    max_revisions: Annotated[
        int | None,
        typer.Option(
            help="Allow at most so many, where a request does not say.  [default: 3]",
            envvar="SELFEE_MAX_REVISIONS",
            show_envvar=False,
        ),
    ] = None,
    mode: Driven = ModeName.AUTO,
    prompts: Words = None,
    parallel: Annotated[
        int,
        typer.Option(
            help="Requests that go through the model together; further ones wait.",
            envvar="SELFEE_PARALLEL",
            show_envvar=False,
            min=1,
            max=64,
        ),
    ] = 8,
    context: Context = None,
    threads: Threads = None,
    repack: Repack = None,
    cache_type: CachedAs = CacheTypeName.F16,
    drafting: Drafting = True,
    api_key_file: ApiKeyFile = None,
    timeout: Timeout = None,
) -> None:
    """Open the models and serve them."""
    try:
        from selfee.serve.config import Defaults
        from selfee.serve.logs import log_to
        from selfee.serve.running import bind, run_app
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error

    stderr = screen_of(sys.stderr, Color.AUTO)
    fleet.check()
    secret = fleet.secret(os.environ)
    config = addressing.config(fleet.keys(read_keys(addressing.key_file, os.environ), secret))
    config = replace(config, port=fleet.port(call.params["port"], config.port))
    log_to(sys.stderr, logging.log_form, requests=logging.log_requests)
    policy = revision_policy(None, min_revisions, max_revisions)
    defaults = Defaults(policy, params, budgets, mode.value, prompts)
    common: dict[str, Any] = {"context_length": context, "threads": threads, "repack": repack, "drafting": drafting}
    common |= {"cache_type": cache_type.cache_type, "timeout": timeout}
    openings: list[Opening] = []
    for words in () if fleet.role in ("controller", "web") else model or [DEFAULT_MODEL]:
        name, spec = _named(words)
        options = resolve_model(spec, api_key_file, stderr) | common
        if addressing.isolate and spec.lower().startswith(("http://", "https://")):
            raise UsageError(
                f"--isolate: {spec} keeps what it has read on a server of its own; expected a model file; tell that "
                "server to keep its clients apart"
            )
        openings.append(_opening(name, options, _suited(defaults, spec, call), parallel))
    if len({opening.name for opening in openings}) < len(openings):
        raise UsageError("--model: two models have the same name; expected different ones; write NAME=MODEL")
    with bind(config.host, config.port) as listening:
        url = addressing.url(listening.getsockname()[1])
        loading = ", ".join(opening.name for opening in openings)
        if loading:
            stderr.write(stderr.style(f"loading {for_terminal(loading)} …\n", "dim"))
        models = {opening.name: opening.served() for opening in openings}
        app, what = build(fleet, config, models, defaults, url, secret)

        def tell_ready() -> None:
            keys = "" if not config.access.keys else " (with a key)"
            stderr.write(f"selfee {for_terminal(what)} at {url}{keys}\n")
            if fleet.role != "controller":
                stderr.write(stderr.style(f"OpenAI's API: {url}/v1   page: {url}   Ctrl-C ends it\n", "dim"))
            sys.stderr.flush()

        told = run_app(app, app.state.service, config, listening, tell_ready)
    if told == 2:
        raise typer.Exit(INTERRUPTED)


def _opening(name: str, options: Mapping[str, Any], defaults: Defaults, parallel: int) -> Opening:
    """A model to be served."""
    from selfee.serve.opening import Opening

    return Opening(name, options, defaults, parallel)


def missing_extra(error: ModuleNotFoundError) -> Exception:
    """What to install where a package of the server is not there."""
    from selfee.errors import MissingExtraError

    return MissingExtraError(f"serve: {error.name} is not installed; expected it; run: pip install 'selfee[serve]'")


def _named(words: str) -> tuple[str, str]:
    """The name for clients and the model in ``NAME=MODEL`` or ``MODEL``."""
    name, separator, spec = words.partition("=")
    if separator and name and spec and not any(character in name for character in ":/#.\\ "):
        return name, spec
    if words in BUILTIN_MODELS:
        return words, words
    last = words.rpartition("#")[2] if "#" in words else Path(words.partition("?")[0]).stem
    return last.rpartition("/")[2].replace(":", "-") or "model", words


def _suited(defaults: Defaults, spec: str, call: typer.Context) -> Defaults:
    """Mode, words and sampling that suit a built-in model, where the user did not choose."""
    known = BUILTIN_MODELS.get(spec)
    if known is None:
        return defaults
    suits = {name: value for name, value in known.sampling.items() if call.params[name] is None}
    defaults = replace(defaults, params=replace(defaults.params, **suits))
    if defaults.mode != "auto":
        return defaults
    return replace(defaults, mode=ModeName(known.mode).value, prompts=defaults.prompts or known.prompts)
