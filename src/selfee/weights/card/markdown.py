"""Text from files made safe to stand in a Markdown page, its YAML head, and a shell command.

Names, keys and templates are written by strangers: none may end a table cell or a code block, become HTML or a link, or
turn into another command.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from selfee.weights.printable import printable

# A "_" within a word means nothing: q4_K_M can stay readable.
_SPECIAL = re.compile(r"[&<>|`*{}\[\]\\#~!$^]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\.")
_CODE = re.compile(r"[A-Za-z0-9._+\-/=,()]+(?: [A-Za-z0-9._+\-/=,()]+)*")
_LINK = re.compile(r"https?://[A-Za-z0-9.\-]+(?::[0-9]+)?(?:/[A-Za-z0-9._~/%+=@-]*)?")
_LONGEST = 200
_LONGEST_BLOCK = 16_384


def plain(text: str) -> str:
    """``text`` on one line as itself: what Markdown or HTML would read as markup becomes a character reference."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", printable(text, _LONGEST))


def code(text: str) -> str:
    """``text`` as a code span where nothing in it could end one or a table cell, else as ``plain`` has it."""
    return f"`{text}`" if len(text) <= _LONGEST and _CODE.fullmatch(text) else plain(text)


def link(text: str) -> str:
    """An address as a link if it is an ordinary one, else as ``code`` has it."""
    return f"<{text}>" if len(text) <= _LONGEST and _LINK.fullmatch(text) else code(text)


def block(text: str, language: str = "") -> str:
    """``text`` as a fenced code block that nothing in it can end; control characters become escapes."""
    lines = [_line(line) for line in text[:_LONGEST_BLOCK].split("\n")]
    if len(text) > _LONGEST_BLOCK:
        lines.append(f"… ({len(text) - _LONGEST_BLOCK:,} more characters)")
    body = "\n".join(lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", body)), default=0))
    return f"{fence}{language}\n{body}\n{fence}\n"


def _line(line: str) -> str:
    return "\t".join(printable(part, len(part) + 1) for part in line.split("\t"))


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of cells that are Markdown already; the columns in ``numbers`` stand at their right edge."""
    rule = ["---:" if number in numbers else "---" for number in range(len(titles))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (titles, rule, *rows))


def yaml_text(text: str) -> str:
    """``text`` as a double-quoted YAML scalar on one line; every YAML reader gives its first 200 characters back."""
    return '"' + "".join(_yaml_character(char) for char in text[:_LONGEST]) + '"'


def _yaml_character(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char == " " or char.isprintable():
        return char
    code_point = ord(char)
    if 0xD800 <= code_point < 0xE000:
        return "\ufffd"  # half of a pair: no YAML reader takes it
    return f"\\u{code_point:04x}" if code_point < 0x10000 else f"\\U{code_point:08x}"


def shell_word(text: str) -> str:
    """``text`` as one word of a POSIX shell, ``$'…'`` where it holds characters that cannot be shown."""
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    raw = text.encode("utf-8", "surrogateescape")
    return "$'" + "".join(_shell_byte(byte) for byte in raw) + "'"


def _shell_byte(byte: int) -> str:
    char = chr(byte)
    return char if 0x20 <= byte < 0x7F and char not in "'\\" else f"\\x{byte:02x}"
