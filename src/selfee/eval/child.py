"""Measuring in a process of its own, which says one JSON object a line: its memory is its own, and so is its end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from selfee.errors import BadFileError, ResourceError, SelfeeError
from selfee.weights.printable import printable

_LONGEST = 4096  # bytes of a child's last words

OnLine = Callable[[dict[str, Any]], None]
"""Told each object that a child says."""


def ask_child(
    module: str, words: Sequence[str], path: Path, expected: str, on_line: OnLine | None = None
) -> dict[str, Any]:
    """Run a module of ours on a model file in another process; returns the last object that it said.

    An object with "error" (see ``error_as_json``) is raised as BadFileError or ResourceError; so is an end without a
    word, as one that found what it needs and not what was ``expected``.
    """
    # -P: a file of the current folder named like one of our modules is nobody we know.
    command = [sys.executable, "-P", "-m", module, *words]
    with (
        TemporaryFile() as complaints,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints) as child,
    ):
        try:
            said = _follow(child, on_line)
        finally:
            child.kill()
        complaints.seek(0)
        last = complaints.read()[-_LONGEST:].decode("utf-8", errors="replace").strip().rpartition("\n")[2]
    if "error" in said:
        raise (BadFileError if said["bad_file"] else ResourceError)(said["error"])
    if child.returncode == 0 and said:
        return said
    why = f" ({printable(last)})" if last else ""
    ending = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
    raise ResourceError(f"{path}: the process that ran it ended with {ending}{why}; expected {expected}")


def say(value: dict[str, Any]) -> None:
    """Tell the parent."""
    print(json.dumps(value), flush=True)


def error_as_json(error: SelfeeError) -> dict[str, Any]:
    """What a child says instead of a result."""
    return {"error": str(error), "bad_file": isinstance(error, BadFileError)}


def _follow(child: subprocess.Popen[bytes], on_line: OnLine | None) -> dict[str, Any]:
    """The last thing the child said; an empty object if it said nothing of use."""
    said: dict[str, Any] = {}
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(b"{"):
            said = json.loads(line)
            if on_line is not None:
                on_line(said)
    child.wait()
    return said
