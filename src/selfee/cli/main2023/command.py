"""``selfee main``: every flag that llama.cpp's ``main`` had in June 2023, on this engine."""

from __future__ import annotations

import inspect
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from selfee.cli.main2023.flags import FLAGS, Flag, MainOptions, options_of, parameter_type, plain_words, shown_default
from selfee.errors import SelfeeError, UsageError

if TYPE_CHECKING:
    from selfee.cli.main2023.console import Console
    from selfee.cli.main2023.loop import Loop
    from selfee.cli.main2023.opening import Opened
    from selfee.cli.output import Screen

EXAMPLES = """Examples:

\b
  selfee main -m model.gguf -p "The sky is blue because" -n 100
  selfee main -m selfee-13b.ggmlv3.q5_0.bin --color -c 2048 --temp 0.7 --repeat_penalty 1.1 -n -1 -i -ins
  selfee main -m model.gguf -i -r "You:" --in-prefix " " -p "You: Hello. Bob: Hi, how are you? You:"
  selfee main -m model.gguf -f notes.txt -n 200 --temp 0 --compat 2023

The text goes to standard output, all else to standard error. Single-dash names may be long (-ngl), long names may be
written with underscores (--repeat_penalty). Ctrl-C takes the word from the model, a second one leaves with code 130."""

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class MainCommand(TyperCommand):
    """A command that reads the words of 2023."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See ``plain_words``."""
        return super().parse_args(ctx, plain_words(args))


def _with_table(function: Callable[[MainOptions, Sequence[Flag]], None]) -> Callable[..., None]:
    """A command with all flags of the table; ``function`` gets the options, and the flags given that do nothing."""

    def command(**values: Any) -> None:
        given = [flag for flag in FLAGS if (flag.no_effect or flag.refused) and values.get(flag.field)]
        for flag in given:
            if flag.refused:
                raise UsageError(f"{flag.names[-1]}: not done here; {flag.refused}")
        function(options_of(values), given)

    parameters = [_parameter(flag) for flag in FLAGS]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(flag: Flag) -> inspect.Parameter:
    default = shown_default(flag)
    text = flag.help + (f"  [default: {default}]" if default else "")
    if flag.no_effect:
        text += f" No effect: {flag.no_effect}."
    if flag.refused:
        text += f" Not done here: {flag.refused}."
    kind: Any = parameter_type(flag)
    option = typer.Option(*flag.names, help=text, metavar=flag.takes or None, show_default=False)
    annotation: Any = Annotated[kind if kind is bool else kind | None, option]
    start = False if kind is bool else None
    return inspect.Parameter(flag.field, inspect.Parameter.KEYWORD_ONLY, default=start, annotation=annotation)


def _main(options: MainOptions, idle: Sequence[Flag]) -> None:
    """Check the words, make the model ready, let model and person take turns."""
    if options.compat not in ("now", "2023"):
        raise UsageError(f"--compat: {options.compat!r}; expected now or 2023")
    try:
        _run(options, idle)
    except SelfeeError as error:
        if options.compat == "2023":  # there was one code for whatever went wrong
            error.exit_code = 1
        raise


app.command("main", cls=MainCommand, epilog=EXAMPLES)(_with_table(_main))


def _run(options: MainOptions, idle: Sequence[Flag]) -> None:
    from selfee.cli.main2023.console import Console
    from selfee.cli.main2023.opening import LEAST_CONTEXT, named_model, opened_model
    from selfee.cli.main2023.reports import test_memory

    is_2023 = options.compat == "2023"
    stdout, stderr = _screens(options)
    console = Console(sys.stdin, stdout, stderr, multiline=options.multiline_input)
    for flag in idle:
        console.note(f"main: {flag.names[0]}: no effect; {flag.no_effect}")
    _check(options)
    seed = random.getrandbits(32) if options.seed < 0 else options.seed
    console.note(f"main: seed  = {seed}")
    text = _text(options, seed, console)
    context = max(LEAST_CONTEXT, options.ctx_size)
    if context != options.ctx_size:
        console.note(f"main: warning: the least context is {LEAST_CONTEXT} tokens; {LEAST_CONTEXT} are taken")
    name = named_model(options.model, os.environ, is_2023=is_2023)
    if options.model is None:
        console.note(f"main: no -m; the model is {name}")
    with opened_model(name, context, options.threads, stderr, console.note) as opened:
        if options.mtest:
            test_memory(opened, options.batch_size, console)
            return
        _take_turns(_Run(options, opened, console, seed, text))


def _screens(options: MainOptions) -> tuple[Screen, Screen]:
    from selfee.cli.output import Color, screen_of

    wishes = {"auto": Color.AUTO, "on": Color.ALWAYS, "off": Color.NEVER} | {color.value: color for color in Color}
    if options.color not in wishes:
        raise UsageError(f"--color: {options.color!r}; expected auto, always or never")
    wish = wishes[options.color]
    if options.compat == "2023" and wish is Color.AUTO:
        wish = Color.ALWAYS  # also into a file
    return screen_of(sys.stdout, wish), screen_of(sys.stderr, Color.NEVER)


def _check(options: MainOptions) -> None:
    """What can be said before the model is loaded."""
    is_interactive = options.interactive or options.interactive_first or options.instruct
    if options.prompt is not None and options.file is not None:
        raise UsageError("-p and -f: both given; expected one of them")
    if options.batch_size < 1 or options.ctx_size < 1:
        raise UsageError(f"-b {options.batch_size}, -c {options.ctx_size}; expected 1 or more")
    if options.n_predict < -2 and options.compat != "2023":
        raise UsageError(f"-n: {options.n_predict}; expected a number of tokens, -1 (no end) or -2 (a full context)")
    if options.escape and options.no_escape:
        raise UsageError("--escape and --no-escape: both given; expected one of them")
    has_text = options.prompt or options.file or options.random_prompt or options.prompt_cache
    if not (has_text or is_interactive or options.mtest or options.compat == "2023"):
        raise UsageError("nothing to continue; expected -p TEXT, -f FILE or -i; see: selfee main --help")
    if options.compat == "2023" and options.prompt_cache_all and is_interactive:
        raise UsageError("--prompt-cache-all: not with -i in 2023; leave out --compat 2023, and it works")
    if options.prompt_cache is None and (options.prompt_cache_all or options.prompt_cache_ro):
        raise UsageError("--prompt-cache-all, --prompt-cache-ro: no cache is named; expected --prompt-cache FILE")


def _text(options: MainOptions, seed: int, console: Console) -> str:
    """The prompt, with or without its escapes."""
    from selfee.cli.main2023.prompts import RANDOM_PROMPTS, unescape

    if options.random_prompt:
        import numpy as np

        first = int(np.random.RandomState(seed % (1 << 32)).randint(0, 1 << 32, dtype=np.uint32))  # as std::mt19937
        return RANDOM_PROMPTS[first % len(RANDOM_PROMPTS)]
    if options.file is not None:
        text = _read_file(options.file)
        return unescape(text) if options.escape else text
    text = options.prompt or ""
    plain = unescape(text)
    if options.escape:
        return plain
    if options.no_escape or options.compat == "2023":
        return text
    if plain != text:
        console.note(
            r"main: \n and the like in -p stand for line breaks (in 2023 only with -e); --no-escape leaves them"
        )
    return plain


def _read_file(name: str) -> str:
    try:
        text = Path(name).read_bytes().decode("utf-8", errors="replace")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{name}: cannot be read ({reason}); expected a text file") from error
    return text.removesuffix("\n")


@dataclass(frozen=True)
class _Run:
    """One call, with the model ready."""

    options: MainOptions
    opened: Opened
    console: Console
    seed: int
    text: str

    @property
    def is_2023(self) -> bool:
        return self.options.compat == "2023"


def _take_turns(run: _Run) -> None:
    from selfee.cli.main2023.cache import PromptCache
    from selfee.cli.main2023.loop import MOST_TOKENS, Loop, Turns
    from selfee.cli.main2023.prompts import Encoder, misfit
    from selfee.cli.main2023.reports import introduce, show_tokens
    from selfee.cli.main2023.samplers import sampler_of
    from selfee.cli.settings import remembered_fingerprints

    options, opened, console = run.options, run.opened, run.console
    begins = options.interactive_first or options.instruct
    hint = misfit(
        run.text,
        is_instruct=options.instruct,
        is_selfee=opened.is_selfee,
        has_template=opened.has_template,
        model=options.model or opened.path.name,
    )
    if hint:
        console.note(f"main: {hint}")
    session = opened.model.new_session()
    sampler = sampler_of(options, opened, run.seed)
    cache = PromptCache.open(options, session, console, remembered_fingerprints(os.environ))
    if run.text or begins or not cache.tokens:
        prompt = Encoder(opened.tokenizer, run.is_2023).prompt(run.text)
    else:
        prompt = list(cache.tokens)
    turns = Turns(
        n_predict=options.n_predict,
        keep=options.keep,
        batch=min(options.batch_size, MOST_TOKENS),
        interactive=options.interactive or begins,
        begins=begins,
        instruct=options.instruct,
        reverse_prompts=tuple(options.reverse_prompt),
        in_prefix=options.in_prefix,
        in_suffix=options.in_suffix,
        is_2023=run.is_2023,
    )
    held = cache.align(prompt)
    loop = Loop(session, opened.tokenizer, sampler, turns, console, prompt, held=held, on_prompt_read=cache.save_prompt)
    if options.verbose_prompt:
        show_tokens(run.text, prompt, opened.tokenizer, console)
    introduce(options, turns, session.context_length, loop.keep, console)
    try:
        with _interrupts(loop, turns.interactive):
            loop.run()
    finally:
        console.color("text")
        console.note(f"\nmain: {loop.counts}")
        if not loop.was_swapped:
            cache.save_all(loop.held_tokens)


@contextmanager
def _interrupts(loop: Loop, is_interactive: bool) -> Iterator[None]:
    """Within the block Ctrl-C takes the word from the model, where there is somebody to take it."""
    if not is_interactive or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: loop.interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
