"""The question, from wherever the user put it: words, a file, standard input."""

from __future__ import annotations

import select
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from selfee.chain.types import Instruction
from selfee.errors import UsageError

_PATIENCE = 2.0  # seconds
_LONGEST = 16 << 20  # bytes
STDIN = "-"


def read_question(
    words: list[str], file: Path | None, input_text: str | None, stdin: TextIO, notify: Callable[[str], None]
) -> Instruction:
    """Standard input, the file and the words, in this order, with a blank line between; ``-`` is standard input.

    Standard input is read where it is no terminal, or where ``-`` asks for it; it can be read once only. ``notify`` is
    told if nothing comes. Raises UsageError if there is no question.
    """
    asked_for = [*words, str(file), input_text].count(STDIN)
    if asked_for > 1:
        raise UsageError("-: given more than once; standard input can be read once only")
    piped = _read(stdin, notify) if asked_for or not stdin.isatty() else ""
    parts = ["" if input_text == STDIN else piped]
    if file is not None and str(file) != STDIN:
        parts.append(_read_file(file))
    parts.append(_typed(" ".join(word for word in words if word != STDIN)))
    text = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    if not text.strip():
        raise UsageError(
            'no question; expected words, a file or standard input; try: selfee ask "Why is the sky blue?"'
        )
    context = piped if input_text == STDIN else _typed(input_text or "")
    return Instruction(text, context.strip("\n"))


def _typed(text: str) -> str:
    """Words of the command line; their bytes are UTF-8, also where the locale did not say so."""
    return text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")


def _read(stdin: TextIO, notify: Callable[[str], None]) -> str:
    """All of standard input; bytes that are no UTF-8 become the replacement character."""
    try:
        if not select.select([stdin], [], [], _PATIENCE)[0]:
            notify("waiting for standard input; Ctrl-D ends it, </dev/null leaves it out")
    except (OSError, ValueError):
        pass  # no descriptor to wait for
    source = getattr(stdin, "buffer", None)
    raw = stdin.read(_LONGEST + 1) if source is None else source.read(_LONGEST + 1)
    return _decode(raw.encode("utf-8", errors="replace") if isinstance(raw, str) else raw, "standard input")


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _decode(file.read(_LONGEST + 1), str(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); expected a text file") from error


def _decode(raw: bytes, where: str) -> str:
    if len(raw) > _LONGEST:
        raise UsageError(f"{where}: more than {_LONGEST >> 20} MB; expected a question and what it is about")
    if b"\0" in raw:
        raise UsageError(f"{where}: holds NUL bytes; expected text")
    return raw.decode("utf-8", errors="replace").removeprefix("\ufeff")
