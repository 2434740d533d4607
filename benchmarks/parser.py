"""Characters a second of the chain parser, beside ``str.find`` looking for every header in the same text.

python -m benchmarks.parser
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from selfee.chain.format import header
from selfee.chain.parser import ChainParser
from selfee.chain.types import Section

REVISIONS = 4
ANSWER = "Air scatters short wavelengths more strongly than long ones, so the sky is blue.\n\n1. First point.\n" * 20


def make_text() -> str:
    """A chain as long as the released ones: some 10,000 characters."""
    parts = [ANSWER]
    for number in range(1, REVISIONS + 1):
        parts += [header(Section.FEEDBACK, number), "Good, 8/10. Revision is needed."]
        parts += [header(Section.REVISION, number), ANSWER]
    return "".join(parts)


def read(text: str, size: int) -> None:
    """Parse the text in pieces of ``size`` characters."""
    parser = ChainParser()
    for start in range(0, len(text), size):
        for _ in parser.feed(text[start : start + size]):
            pass
    for _ in parser.finish():
        pass


def find(text: str) -> None:
    """Look for every header once, with nothing else done."""
    position = 0
    for number in range(1, REVISIONS + 1):
        for section in (Section.FEEDBACK, Section.REVISION):
            position = text.find(header(section, number), position)


def rate(work: Callable[[], None], characters: int) -> float:
    """Characters a second, the best of five runs of at least 0.1 s."""
    best = 0.0
    for _ in range(5):
        started, rounds = time.perf_counter(), 0
        while (seconds := time.perf_counter() - started) < 0.1:
            work()
            rounds += 1
        best = max(best, characters * rounds / seconds)
    return best


def main() -> None:
    """Print one row for each size of piece."""
    text = make_text()
    print(f"text of {len(text)} characters, {2 * REVISIONS + 1} sections")
    for name, size in (("one character", 1), ("a token (4)", 4), ("a line (80)", 80), ("all at once", len(text))):
        print(f"parser, {name:14} {rate(partial(read, text, size), len(text)) / 1e6:10.2f} M characters/s")
    print(f"str.find               {rate(partial(find, text), len(text)) / 1e6:10.2f} M characters/s")


if __name__ == "__main__":
    main()
