"""``python -m selfee.cli.man FOLDER``: writes a manual page for every command, from the commands themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from selfee import __version__
from selfee.cli.app import COMMANDS, app
from selfee.cli.reference import EXIT_CODES, VARIABLES, default_of, examples_of, help_of

SECTION = "1"


def pages() -> Iterator[tuple[str, str]]:
    """Every page: (name of its file, text in the language of ``man``)."""
    command: Any = typer.main.get_command(app)
    yield f"selfee.{SECTION}", _page(command, "selfee", str(command.help))
    for name in COMMANDS:
        yield from _pages(command.commands[name], f"selfee {name}")


def _pages(command: Any, path: str) -> Iterator[tuple[str, str]]:
    yield f"{path.replace(' ', '-')}.{SECTION}", _page(command, path, str(command.help or ""))
    for name, child in getattr(command, "commands", {}).items():
        yield from _pages(child, f"{path} {name}")


def _page(command: Any, path: str, does: str) -> str:
    title = path.replace(" ", "-")
    lines = [
        f'.TH "{title.upper()}" "{SECTION}" "" "selfee {__version__}" "User Commands"',
        *(".SH NAME", f"{_plain(title)} \\- {_plain(_one_line(does).rstrip('.'))}"),
        *(".SH SYNOPSIS", f".B {_plain(path)}", _plain(_usage(command))),
        *(".SH DESCRIPTION", _plain(_one_line(does))),
    ]
    children = getattr(command, "commands", {})
    if children:
        lines.append(".SH COMMANDS")
        for name in children:
            text = COMMANDS[name] if path == "selfee" else str(children[name].help or "")
            lines += [".TP", f".B {_plain(f'{path} {name}')}", _plain(_one_line(text))]
    parameters = [p for p in command.params if p.param_type_name == "argument"]
    lines += [".SH ARGUMENTS"] if parameters else []
    for argument in parameters:
        name = str(argument.metavar or argument.name.upper())
        lines += [".TP", f".I {_plain(name)}", _plain(_one_line(argument.help or "See above."))]
    options = [p for p in command.params if p.param_type_name == "option"]
    lines += [".SH OPTIONS"] if options else []
    for option in options:
        names = ", ".join(f"\\fB{_plain(name)}\\fR" for name in (*option.opts, *option.secondary_opts))
        value = "" if option.is_flag else f" \\fI{_plain(str(option.metavar or option.name).upper())}\\fR"
        default = default_of(option)
        text = help_of(option) + (f" Default: {default}." if default else "")
        text += f" Variable: {option.envvar}." if option.envvar else ""
        lines += [".TP", names + value, _plain(_one_line(text))]
    if examples := examples_of(command):
        lines += [".SH EXAMPLES", ".nf", *map(_plain, examples), ".fi"]
    lines.append(".SH EXIT STATUS")
    for code, meaning in EXIT_CODES:
        lines += [".TP", f".B {code}", _plain(meaning)]
    if path == "selfee":
        lines.append(".SH ENVIRONMENT")
        for variables, meaning in VARIABLES:
            lines += [".TP", f".B {_plain(', '.join(variables))}", _plain(meaning)]
    return "\n".join(lines) + "\n"


def _usage(command: Any) -> str:
    words = ["[OPTIONS]"]
    if getattr(command, "commands", None):
        return "[OPTIONS] COMMAND"
    for argument in command.params:
        if argument.param_type_name == "argument":
            name = str(argument.metavar or argument.name.upper()).strip("[]")
            word = name if argument.required else f"[{name}]"
            words.append(word + ("..." if argument.nargs == -1 else ""))
    return " ".join(words)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Text in which nothing is read as a request or an escape; a hyphen stays one that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = "".join(letter if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main(arguments: list[str]) -> None:
    """Write all pages into the folder named."""
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
