"""Where the lines of a chat come from: a person at a terminal, or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from selfee.cli.chatting.commands import COMMANDS

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

_LARGEST = 1 << 20  # characters of one question


class Reader(Protocol):
    """Gives one entry after another."""

    def read(self) -> str | None:
        """The next entry; None at the end. Raises KeyboardInterrupt where the user breaks off an empty one."""
        ...


class PipeReader:
    """Lines of a stream that is no terminal; a backslash at the end of a line joins it with the next."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def read(self) -> str | None:
        """See ``Reader.read``."""
        lines: list[str] = []
        for line in iter(self._stream.readline, ""):
            text = line.rstrip("\n")
            if not text.endswith("\\"):
                return "\n".join([*lines, text])
            lines.append(text[:-1])
        return "\n".join(lines) if lines else None


class TerminalReader:
    """A line editor with history, completion of commands, several lines and paste."""

    def __init__(self, history: Path, color: bool) -> None:
        self._session = _make_session(history, color)

    def read(self) -> str | None:
        """See ``Reader.read``."""
        try:
            return str(self._session.prompt())[:_LARGEST]
        except EOFError:
            return None


@contextmanager
def keys_hidden(stream: TextIO) -> Iterator[None]:
    """Within the block a terminal does not show keys: a ^C, or a line typed ahead, would stand amid the answer.

    What is typed is not lost; the line editor shows it afterwards.
    """
    if not stream.isatty():
        yield
        return
    import termios

    number = stream.fileno()
    before = termios.tcgetattr(number)
    hidden = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(number, termios.TCSANOW, hidden)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSANOW, before)


def open_reader(stream: TextIO, history: Path, color: bool) -> Reader:
    """What fits the stream."""
    if stream.isatty() and sys.stdout.isatty():
        return TerminalReader(history, color)
    return PipeReader(stream)


def _make_session(history: Path, color: bool) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.formatted_text import FormattedText
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output import ColorDepth

    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.current_line_before_cursor.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    history.touch(mode=0o600)
    words = WordCompleter(
        [f"/{name}" for name in COMMANDS],
        meta_dict={f"/{command.name}": command.does for command in COMMANDS.values()},
        sentence=True,
    )
    session: PromptSession[str] = PromptSession(
        FormattedText([("bold", "› ")]),
        history=FileHistory(str(history)),
        completer=words,
        complete_while_typing=Condition(lambda: session.default_buffer.text.startswith("/")),
        key_bindings=keys,
        multiline=True,
        prompt_continuation="  ",
        color_depth=None if color else ColorDepth.MONOCHROME,
        reserve_space_for_menu=6,
    )
    return session
