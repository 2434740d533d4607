"""What the commands on data files share: how far the reading is, and that nothing overwrites what it reads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from selfee.cli.output import Color, screen_of


@contextmanager
def reading_display(label: str, total: int, quiet: bool, color: Color) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with speed and time left while files are read; yields what is to be told of bytes read."""
    from selfee.cli.progress import QuietDisplay, WorkDisplay

    display = QuietDisplay() if quiet else WorkDisplay(screen_of(sys.stderr, color))
    display.begin(label, total or None, 0)
    try:
        yield display.advance
    finally:
        display.end()


def size_of(paths: Sequence[Path]) -> int:
    """Bytes of these files and of the data files in these folders."""
    from selfee.data.files import files_of

    return sum(file.stat().st_size for path in paths for file in files_of(path))


def require_apart(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raise UsageError if an output is an input, or lies in a folder that is read, or nowhere."""
    from selfee.data.files import same_file
    from selfee.errors import UsageError

    for out in outputs:
        if not out.parent.is_dir():
            raise UsageError(f"{out}: folder {out.parent} does not exist; make it first")
        for path in inputs:
            if same_file(out, path) or (path.is_dir() and path.resolve() in out.resolve().parents):
                raise UsageError(f"{out}: would be written over what is read ({path}); choose another name")
