"""Text from files made safe to show: names, keys and templates are written by strangers."""

from __future__ import annotations

import unicodedata


def printable(text: str | bytes, limit: int = 200) -> str:
    """The text on one line, at most ``limit`` characters, unable to drive a terminal.

    Control characters (ANSI escapes begin with one), line and paragraph separators, invisible format characters
    (bidirectional overrides among them), lone surrogates and unassigned code points become backslash escapes.
    """
    if isinstance(text, bytes):
        # Bytes beyond what can be shown need not be decoded: a hostile name may be the whole file.
        text = text[: 4 * limit + 4].decode("utf-8", errors="backslashreplace")
    shown = "".join(_escape(char) for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _escape(char: str) -> str:
    if char == " " or unicodedata.category(char)[0] not in "CZ":
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
