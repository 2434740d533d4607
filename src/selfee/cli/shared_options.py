"""Flags that several commands have: name, help, limits and variable of each stand here and nowhere else."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from selfee.cli.model_file import CacheTypeName
from selfee.cli.output import Color

MODEL_HELP = (
    "Model: a file, a built-in name, hf:org/repo/file.gguf, an address ending in .gguf, a server "
    "(http://127.0.0.1:8080/v1#name) or a script (script:replies.jsonl)."
)


class ModeName(enum.Enum):
    """How the model is driven; see ``stream_chain``."""

    AUTO = "auto"
    SINGLE_PASS = "single-pass"
    GUIDED = "guided"
    TURNS = "turns"


class TemplateName(enum.Enum):
    """How a question is written for the model; see ``chain/templates.py``."""

    AUTO = "auto"
    SELFEE = "selfee"
    ALPACA = "alpaca"
    CHATML = "chatml"
    OWN = "own"


# How a command talks.
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", help="Nothing on stderr but errors.", envvar="SELFEE_QUIET", show_envvar=False),
]
Colored = Annotated[
    Color, typer.Option("--color", help="When to use colour.", envvar="SELFEE_COLOR", show_envvar=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

# Which model, and how it is opened.
ModelName = Annotated[str, typer.Option("-m", "--model", help=MODEL_HELP, envvar="SELFEE_MODEL", show_envvar=False)]
Context = Annotated[
    int | None,
    typer.Option(
        "-c",
        "--context",
        help="Tokens of context.  [default: the model's]",
        envvar="SELFEE_CONTEXT",
        show_envvar=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "-t",
        "--threads",
        min=1,
        max=1024,
        help="Threads to compute with.  [default: the cores]",
        envvar="SELFEE_THREADS",
        show_envvar=False,
    ),
]
Repack = Annotated[
    bool | None,
    typer.Option(
        "--repack/--no-repack",
        help="Copy weights into a faster layout while loading.  [default: if memory allows]",
        envvar="SELFEE_REPACK",
        show_envvar=False,
    ),
]
CachedAs = Annotated[
    CacheTypeName,
    typer.Option(
        "--cache-type",
        help="What the model has read is stored as; q8_0 takes half the memory, and the text may change.",
        envvar="SELFEE_CACHE_TYPE",
        show_envvar=False,
    ),
]
Drafting = Annotated[
    bool,
    typer.Option(
        "--drafting/--no-drafting",
        help="Guess tokens from earlier text and verify many at once: the same text, sooner.",
        envvar="SELFEE_DRAFTING",
        show_envvar=False,
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        help="File with the key for the server that -m names; else SELFEE_API_KEY is used.",
        envvar="SELFEE_API_KEY_FILE",
        show_envvar=False,
    ),
]
ApiKeysFile = Annotated[Path | None, typer.Option("--api-key-file", help="A file with one API key a line.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", help="Seconds to wait for a server's next byte.", envvar="SELFEE_TIMEOUT", show_envvar=False
    ),
]

# How its chains are made.
Driven = Annotated[
    ModeName,
    typer.Option(
        "--mode",
        help="How the model is driven; auto chooses what suits it.",
        envvar="SELFEE_MODE",
        show_envvar=False,
    ),
]
Template = Annotated[
    TemplateName,
    typer.Option(
        "--template",
        help="How the question is written for the model; own: as its file says; auto: that, or SelFee's form.",
        envvar="SELFEE_TEMPLATE",
        show_envvar=False,
    ),
]
Words = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        help="Name of the critic's and reviser's words.",
        envvar="SELFEE_PROMPTS",
        show_envvar=False,
    ),
]
Revisions = Annotated[
    int | None,
    typer.Option(
        "-r", "--revisions", help="Make exactly so many revisions.", envvar="SELFEE_REVISIONS", show_envvar=False
    ),
]
AtLeast = Annotated[
    int | None,
    typer.Option(
        "--min-revisions",
        help="Enforce at least so many, also if the model is content.  [default: 0]",
        envvar="SELFEE_MIN_REVISIONS",
        show_envvar=False,
    ),
]
AtMost = Annotated[
    int | None,
    typer.Option(
        "--max-revisions",
        help="Allow at most so many.  [default: 3]",
        envvar="SELFEE_MAX_REVISIONS",
        show_envvar=False,
    ),
]
