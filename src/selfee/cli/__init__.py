"""The words a user types. Parses, calls one room, prints; the only room that reads the environment.

``main()`` finds the command, prints an error as one paragraph on stderr and sets the exit code: 0 done, 1 it failed,
2 wrong words or a bad file, 130 Ctrl-C, 141 the reader of our output went away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``selfee`` with these words (default: the command line's), and exit."""
    import sys

    try:
        from selfee.cli.run import run

        sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))
    except KeyboardInterrupt:  # before run() could see to it
        sys.exit(130)
