"""``python -m selfee.cli.reference``: writes docs/reference/cli.md from the commands themselves."""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from selfee.cli.app import app

PAGE = Path("docs/reference/cli.md")
_INTRO = """# The command line

Made by `make docs` from the commands themselves; change `src/selfee/cli/`, not this page.

The final answer goes to standard output, everything else to standard error. A flag given on the command line wins over
its variable.
"""
VARIABLES = (
    (("SELFEE_MODELS",), "folder where downloaded models are kept"),
    (("SELFEE_CHATS",), "folder where conversations are kept"),
    (("SELFEE_API_KEY",), "key for the server that `-m` names"),
    (("OPENAI_API_KEY",), "the same, but sent only to OpenAI or the server that `OPENAI_BASE_URL` names"),
    (("HF_TOKEN", "HF_ENDPOINT"), "token for, and address of, the model hub that `hf:` names mean"),
    (("PIP_*", "pip's configuration files", ".netrc"), "where built-in models come from: as pip"),
    (
        ("HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
        "the way to other machines",
    ),
    (("SELFEE_ISA",), "instruction set to compute with: scalar, avx2, avx512; the best one otherwise"),
    (("NO_COLOR",), "no colour, unless `--color always`"),
    (("SELFEE_DEBUG",), "1 = show where an unexpected error came from"),
)
"""Variables that no flag stands for, and what they mean."""

EXIT_CODES = (
    ("0", "done"),
    ("1", "it failed: no network, no memory, an engine that gave up, an answer cut off"),
    ("2", "words that do not fit, or a file that is damaged or of the wrong kind"),
    ("130", "stopped by Ctrl-C (143 by SIGTERM, 129 by SIGHUP); a finished answer was still delivered"),
    ("141", "the reader of the output went away"),
)


def render_reference() -> str:
    """The page as Markdown."""
    sections = [_INTRO, *_commands(typer.main.get_command(app), "selfee"), _tables()]
    return "\n".join(sections)


def _tables() -> str:
    lines = ["## Variables", "", "| variable | meaning |", "|---|---|"]
    for names, meaning in VARIABLES:
        shown = ", ".join(name if " " in name else f"`{name}`" for name in names)
        lines.append(f"| {shown} | {meaning} |")
    lines += ["", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    return "\n".join([*lines, *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES), ""])


def _commands(command: Any, path: str) -> Iterator[str]:
    yield _section(command, path)
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, f"{path} {name}")


def _section(command: Any, path: str) -> str:
    level = "##" if path.count(" ") < 2 else "###"
    lines = [f"{level} {path}", "", command.help or "", ""]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and "completion" not in p.name]
    if arguments:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{_escape(p.metavar or p.name.upper())}` | {_escape(p.help or '')} |" for p in arguments] + [""]
    if options:
        lines += ["| flag | meaning | default | variable |", "|---|---|---|---|"]
        lines += [_option_row(option) for option in options] + [""]
    if children := getattr(command, "commands", {}):
        names = ", ".join(f"[`{name}`](#{f'{path} {name}'.replace(' ', '-')})" for name in children)
        lines += [f"Commands: {names}", ""]
    if examples := examples_of(command):
        lines += ["```sh", *examples, "```", ""]
    return "\n".join(lines)


def _option_row(option: Any) -> str:
    flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    variable = f"`{option.envvar}`" if option.envvar else ""
    return f"| {flags} | {_escape(help_of(option))} | {_escape(default_of(option))} | {variable} |"


def help_of(option: Any) -> str:
    """What a flag means, without its default; the names it takes, if it takes names."""
    text = str(option.help or "").partition("  [default: ")[0]
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        text = f"{text} One of {', '.join(str(member.value) for member in kind)}."
    return text


def default_of(option: Any) -> str:
    """A flag's default as a person would type it; "" where there is none."""
    given = str(option.help or "").partition("  [default: ")[2].rstrip("]")
    if not given and option.default is not None and not option.is_flag:
        given = str(getattr(option.default, "value", option.default))
    return given


def examples_of(command: Any) -> list[str]:
    """The command lines in a command's examples."""
    found = str(command.epilog or "").splitlines()
    return [line.strip() for line in found if re.match(r"\s+(\w+=\S+ |\w+ '.*\| |\w+ <\()?selfee ", line)]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("\n", " ")


def main(arguments: list[str]) -> None:
    """Write the page to the file named, or where it belongs in a checkout."""
    page = Path(arguments[0]) if arguments else PAGE
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render_reference(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
