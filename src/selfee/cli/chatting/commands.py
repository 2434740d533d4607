"""The commands of a chat: what a line that begins with a slash means."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from selfee.errors import UsageError


@dataclass(frozen=True)
class Command:
    """One command: its name without the slash, what may follow, and what it does."""

    name: str
    argument: str
    does: str


COMMANDS = {
    command.name: command
    for command in (
        Command("help", "", "show this list"),
        Command("rev", "[N|auto|off]", "enforce N revisions; auto: the model decides; off: one answer only"),
        Command("more", "", "criticise and revise the last answer once more"),
        Command("feedback", "TEXT", "criticise the last answer yourself; it is revised accordingly"),
        Command("accept", "[N]", "take answer N of the last chain (0 = the first) as the answer"),
        Command("regen", "", "answer the last question anew, with another seed"),
        Command("chain", "", "show the last chain whole"),
        Command("diff", "[A B]", "what changed from answer A to answer B; without: from first to last"),
        Command("raw", "", "the last chain as the model reads it"),
        Command("fold", "", "show only final answers, or chains live again"),
        Command("system", "[TEXT]", "how the model is to behave; without TEXT: show it; - : nothing"),
        Command("model", "[MODEL]", "go on with another model; without MODEL: show which"),
        Command("template", "[NAME]", "how questions are written (selfee, alpaca, chatml, own); or show it"),
        Command("save", "[FILE]", "write the conversation to a file"),
        Command("load", "FILE", "go on with a saved conversation"),
        Command("clear", "", "begin a new conversation"),
        Command("stats", "", "tokens, speed, context"),
        Command("quit", "", "leave (also Ctrl-D)"),
    )
}


@dataclass(frozen=True)
class Call:
    """A command with what followed it."""

    name: str
    argument: str


def parse(line: str) -> Call | None:
    """The command in a line; None if it is a question. Two slashes begin a question that begins with one.

    Raises UsageError for a command that does not exist, lacks what it needs, or takes nothing and is followed by words.
    """
    text = line.strip()
    if not text.startswith("/") or text.startswith("//"):
        return None
    name, _, argument = text[1:].partition(" ")
    name, argument = name.lower(), argument.strip()
    found = [command for command in COMMANDS if command.startswith(name)] if name else []
    if name not in COMMANDS and len(found) != 1:
        near = found or difflib.get_close_matches(name, COMMANDS, n=3)
        hint = f"did you mean {' or '.join('/' + other for other in near)}? " if near else ""
        raise UsageError(f"/{name}: no such command; {hint}/help shows all")
    command = COMMANDS[name if name in COMMANDS else found[0]]
    if argument and not command.argument:
        raise UsageError(f"/{command.name}: takes nothing after it, found {argument[:40]!r}")
    if not argument and command.argument and not command.argument.startswith("["):
        raise UsageError(f"/{command.name}: expected {command.argument} after it")
    return Call(command.name, argument)


def question_of(line: str) -> str:
    """The question in a line that is no command."""
    text = line.strip()
    return text[1:] if text.startswith("//") else text


def number_in(call: Call, what: str, least: int, most: int) -> int:
    """The number after a command. Raises UsageError for anything else."""
    try:
        number = int(call.argument)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise UsageError(f"/{call.name}: {call.argument[:40]!r} is no {what}; expected {least} to {most}")
    return number


def help_text() -> str:
    """All commands, one a line."""
    names = {command.name: f"/{command.name} {command.argument}".rstrip() for command in COMMANDS.values()}
    column = max(map(len, names.values())) + 2
    lines = [f"{names[command.name]:<{column}}{command.does}" for command in COMMANDS.values()]
    more = (
        "Enter sends, Alt-Enter or a \\ at the end of a line begins another line. Ctrl-C stops an answer; at an empty "
        "line, twice, it leaves. A question that begins with a slash is written with two."
    )
    return "\n".join([*lines, "", more])
