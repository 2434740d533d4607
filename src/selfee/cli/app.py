"""All commands by name. A command's file is imported when it is called, not to list it: help must come at once."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from selfee import __version__
from selfee.cli.help import make_group_readable, make_readable

COMMANDS = {
    "ask": "Ask a question: the model answers, criticises its answer and revises it until it is content.",
    "chat": "Talk with a model that revises itself; conversations are kept.",
    "serve": "Serve a model to any client: OpenAI's API, live chains, a web page.",
    "main": "Run the command lines of llama.cpp's main of June 2023: every flag, and -i -ins to chat.",
    "models": "List, fetch and remove models.",
    "inspect": "Show what a model file is: architecture, tensors by type, bits per weight, memory needed, vocabulary.",
    "convert": "Turn a model from one form into another: GGUF, GGML or a Hugging Face folder, in any type.",
    "quantize": "Make a model file smaller: fourteen file types, three rule sets, or any size you name.",
    "imatrix": "Compute which columns of a model matter, from what flows through it while it reads a text.",
    "perplexity": "Measure how well model files predict a text, and how far they are from the model they were made of.",
    "revisions": "Measure whether revising helps, beside other ways to spend the same tokens.",
    "bench": "Measure how fast model files run here, beside what this machine could do.",
    "answer": "Let a model answer a set of questions, for every number of revisions, in one run that can be killed.",
    "judge": "Let models judge answers: both orders, any template, no reply paid for twice.",
    "report": "Sum up judgments: scores with intervals, biases of the judge, a page with every question.",
    "card": "Write the model card of a folder of files: sizes, memory, types, quality, checksums, commands.",
    "data": "Make training data: collect questions, have chains made of them, merge, look at what came of it.",
    "train": "Teach a model to revise itself: whole or by LoRA, from chains to a folder that runs.",
    "delta": "Make, apply and show deltas: what leads from a base model to one trained from it.",
    "doctor": "Say what this machine has, what fits, what is missing, and how to get it.",
    "completion": "Teach a shell to complete commands, flags and models with the Tab key.",
}
"""Name -> what it does. The file of a command has its name and holds its ``app``."""

_FILES = {"main": "main2023.command", "data": "data.command"}
"""Commands whose file has another name: ``selfee.cli.main`` is the function that starts them all."""

EXAMPLES = """Examples:

\b
  selfee ask "Why is the sky blue?" --revisions 1
  selfee models list
  selfee inspect smollm2-135m

Exit codes: 0 done, 1 it failed, 2 wrong words or a bad file, 130 stopped by Ctrl-C, 141 the reader went away.
Variables: SELFEE_MODELS is the folder for models; SELFEE_API_KEY the key for a server; HF_TOKEN and HF_ENDPOINT the
model hub's; SELFEE_DEBUG=1 shows where an unexpected error came from."""


class _Commands(MutableMapping[str, Any]):
    """The commands, each imported when it is first asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        if name not in self._loaded:
            command: Any = typer.main.get_command(importlib.import_module(f"selfee.cli.{_FILES.get(name, name)}").app)
            command.help = COMMANDS[name]
            self._loaded[name] = make_readable(command)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(TyperGroup):
    """Lists its commands without importing them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write names and what they do."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


make_group_readable(_Group)

app = typer.Typer(
    name="selfee",
    cls=_Group,
    help="A language model that answers, criticises its own answer and rewrites it until it is content.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,  # a command of its own shows and installs it
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"selfee {__version__}")
        raise typer.Exit


@app.callback()
def selfee(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """A language model that answers, criticises its own answer and rewrites it until it is content."""
