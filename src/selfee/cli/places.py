"""Where a command writes: whatever stands against a name is said before the work, not after it."""

from __future__ import annotations

import os
from pathlib import Path


def require_apart(out: Path, *read: Path | None) -> None:
    """Raise UsageError where what is to be written is, or is the folder of, what is to be read."""
    from selfee.errors import UsageError

    place = os.path.realpath(out)
    for path in read:
        if path is None:
            continue
        inside = Path(os.path.realpath(path))
        if place in map(str, (inside, *inside.parents)) or _is_same(out, path):
            raise UsageError(f"{out}: is or holds {path}, which is to be read; expected another name to write to")


def require_writable(out: Path, *read: Path | None) -> None:
    """Raise UsageError where no file can be written at ``out``, or only in place of one that is to be read."""
    from selfee.errors import UsageError

    if os.path.exists(out) and not os.path.isfile(out):
        raise UsageError(f"{out}: is a folder or a device; expected a file to write; choose another name")
    if not os.path.isdir(out.parent):
        raise UsageError(f"{out}: there is no folder {out.parent}; expected one to write to; make it first")
    require_apart(out, *read)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are of one file, as hard links are."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there, or no file could have that name
        return False
