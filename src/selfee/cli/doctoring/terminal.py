"""The terminal: which characters it is sent, and how wide it is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping

from selfee.cli.doctoring.finding import Finding, Level
from selfee.cli.output import Color, screen_of
from selfee.weights.printable import printable

_WIDE_ENOUGH = 60  # columns


def language(environ: Mapping[str, str]) -> Finding:
    """The encoding of the output, and where it comes from."""
    encoding = (sys.stdout.encoding or "").lower()
    setting = next((name for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), None)
    facts = {"encoding": encoding, "locale": environ[setting] if setting else None, "variable": setting}
    text = f"output in {encoding or 'an unknown encoding'}"
    text += f" ({setting}={printable(environ[setting], 40)})" if setting else ""
    if encoding.replace("-", "") not in ("utf8", "utf8sig"):
        return Finding("language", text, Level.NOTE, "export LC_ALL=C.UTF-8: other characters become '?'", facts)
    return Finding("language", text, facts=facts)


def terminal(environ: Mapping[str, str], color: Color) -> Finding:
    """Whether a person watches, and what they can be shown."""
    screen = screen_of(sys.stdout, color, environ)
    size = shutil.get_terminal_size((80, 24))
    facts = {
        "is_terminal": screen.is_terminal,
        "color": screen.has_color,
        "columns": size.columns,
        "rows": size.lines,
        "term": environ.get("TERM"),
        "no_color": bool(environ.get("NO_COLOR")),
    }
    colored = "colour" if screen.has_color else "no colour"
    if not screen.is_terminal:
        return Finding("terminal", f"none: output goes to a file or program, {colored}", facts=facts)
    text = f"{printable(environ.get('TERM') or 'of unknown kind', 40)}, {size.columns} × {size.lines}, {colored}"
    if size.columns < _WIDE_ENOUGH:
        return Finding("terminal", text, Level.NOTE, f"make it {_WIDE_ENOUGH} columns wide for tables", facts)
    return Finding("terminal", text, facts=facts)
