"""Run one command and turn whatever happens into one paragraph and an exit code."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import typer
import typer.core
import typer.main

from selfee.cli.completing.scripts import VARIABLE
from selfee.cli.interrupts import INTERRUPTED, PIPE_CLOSED, TerminatedError, signals_as_interrupts
from selfee.cli.output import for_terminal, make_tolerant
from selfee.errors import SelfeeError

FAILED, MISUSED = 1, 2


def run(arguments: Sequence[str]) -> int:
    """Run ``selfee`` with these words; returns the exit code."""
    return ended(lambda: _invoke(arguments))


def ended(work: Callable[[], int]) -> int:
    """Do some work; its exit code, or that of what came up instead."""
    make_tolerant()
    try:
        with signals_as_interrupts():
            code = work()
            sys.stdout.flush()
            return code
    except TerminatedError as stopped:
        return stopped.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    except SelfeeError as error:
        _complain(str(error))
        return error.exit_code
    except Exception as error:  # not ours: a defect, or a machine in trouble
        interrupt = _interrupt_behind(error)
        if interrupt is not None:
            return interrupt.exit_code if isinstance(interrupt, TerminatedError) else INTERRUPTED
        _explain(error)
        return FAILED


def _interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The Ctrl-C that an error came of, if it did.

    An interrupt that arrives while a thread's result is waited for can surface as a RuntimeError of Python's own lock.
    """
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, KeyboardInterrupt):
        behind = behind.__context__
    return behind


def _invoke(arguments: Sequence[str]) -> int:
    """Parse and call the command, without typer's own handling of errors, interrupts and pipes."""
    from selfee.cli.app import app

    if os.environ.get(VARIABLE):
        from selfee.cli.completion import show_candidates

        show_candidates(list(arguments))
        return 0
    command: Any = typer.main.get_command(app)
    try:
        with command.make_context("selfee", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as done:
        return int(done.exit_code)
    except typer.Abort:
        return INTERRUPTED
    except typer.TyperException as error:
        return _show_misuse(error, command, arguments)
    return 0


def _show_misuse(error: Any, command: Any, arguments: Sequence[str]) -> int:
    """Words that do not fit: what is wrong, how it is done right, and where the help is."""
    message = error.format_message().strip().replace(". Did you", "; did you")
    if message.startswith("Usage:") or type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(message + "\n")
        return MISUSED
    where, meant = _meant(command, arguments)
    if near := re.fullmatch(r"(.*) \(Possible options: (.*)\)", message, re.DOTALL):
        message = f"{near[1].rstrip('.')}; did you mean {' or '.join(near[2].split(', '))}"
    elif message.startswith("No such command") and "did you mean" not in message:
        message = f"{message.rstrip('.')}; there are {', '.join(meant.commands)}"
    elif message.startswith("Missing") and (example := _EXAMPLE.search(meant.epilog or "")):
        message = f"{message.rstrip('.')}; for example: {example[1]}"
    message = message.replace(": Value error, ", ": ")
    message = _NO_NUMBER.sub(lambda found: f"expected a {'whole ' * (found[1] == 'integer')}number", message)
    _complain(f"{message[:1].lower()}{message[1:].rstrip('.?')}; see: {where} --help")
    return MISUSED


_EXAMPLE = re.compile(r"^  (selfee .*)$", re.MULTILINE)
_NO_NUMBER = re.compile(r"Input should be a valid (integer|number), unable to parse string as an? \w+")


def _meant(command: Any, arguments: Sequence[str]) -> tuple[str, Any]:
    """The command that the words lead to, and its path: not every error knows it."""
    path = ["selfee"]
    for word in arguments:
        children = getattr(command, "commands", {})
        if word not in children:
            break
        command = children[word]
        path.append(word)
    return " ".join(path), command


def _complain(message: str) -> None:
    """One paragraph, whatever line breaks and control characters came with it."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    with contextlib.suppress(OSError):  # nobody reads it: the exit code says enough
        said = f"selfee: {for_terminal(' '.join(message.split()))}"
        if sys.stderr.isatty():
            columns = max(20, shutil.get_terminal_size().columns - 1)
            said = textwrap.fill(said, columns, break_long_words=False, break_on_hyphens=False)
        sys.stderr.write(said + "\n")


def _drop_output() -> None:
    """What is still buffered cannot be written; without this Python would complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: Exception) -> None:
    if os.environ.get("SELFEE_DEBUG"):
        traceback.print_exc()
        return
    kind = type(error).__name__
    said = str(error).strip() or "no reason given"
    _complain(
        f"unexpected {kind}: {said}; expected it to work; run it again with SELFEE_DEBUG=1 and report what it prints"
    )
