"""Mutate sound model files and open the results: only SelfeeError may come out, at once, within little memory.

Mutations know the structure: the offsets of all numbers that the reader reads from a sound file are recorded first, and
half of the damage is done to those.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import struct
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import pytest

from selfee.errors import SelfeeError
from selfee.weights.architecture import check_architecture
from selfee.weights.finite import check_finite
from selfee.weights.mapped import Cursor
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import dequantize
from selfee.weights.summary import summarize

MEMORY = 256 << 20  # bytes above what the process has at its start
SLOWEST = 10  # seconds for one file

EDGES = [0, 1, 2, 3, 4, 7, 8, 9, 12, 13, 16, 31, 32, 33, 63, 64, 255, 256, 257, 1 << 16, 1 << 24, 1 << 30, 1 << 31]
EDGES += [(1 << 31) - 1, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 61, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


class Seed:
    """A sound file and where its numbers lie."""

    def __init__(self, content: bytes, numbers: Sequence[tuple[int, int]]) -> None:
        self.content = content
        self.numbers = numbers  # (offset, bytes)


def seed_from(path: Path) -> Seed:
    """Open a sound file and remember which numbers the reader read."""
    numbers: set[tuple[int, int]] = set()
    unpack, take, strings = Cursor.unpack, Cursor.take, Cursor.strings

    def recording_unpack(cursor: Cursor, layout: struct.Struct, what: str) -> tuple[object, ...]:
        width = 8 if layout.size == 8 else 4
        numbers.update((at, width) for at in range(cursor.offset, cursor.offset + layout.size, width))
        return unpack(cursor, layout, what)

    def recording_take(cursor: Cursor, nbytes: int, what: str) -> bytes:
        if nbytes in (1, 2, 4, 8):
            numbers.add((cursor.offset, nbytes))
        return take(cursor, nbytes, what)

    def recording_strings(cursor: Cursor, count: int, width: int, what: str, limit: int) -> list[bytes]:
        at = cursor.offset
        found = strings(cursor, count, width, what, limit)
        for text in found:
            numbers.add((at, width))
            at += width + len(text)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cursor, "unpack", recording_unpack)
        patch.setattr(Cursor, "take", recording_take)
        patch.setattr(Cursor, "strings", recording_strings)
        with open_checkpoint(path) as checkpoint:
            check_architecture(checkpoint)
    return Seed(path.read_bytes(), sorted(numbers))


def mutate(chance: random.Random, seeds: Sequence[Seed]) -> bytes:
    """One to four damages to one of the seeds, the small ones more often."""
    seed = chance.choices(seeds, [1 / len(seed.content) for seed in seeds])[0]
    content = bytearray(seed.content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        if chance.random() < 0.5:
            _change_number(chance, content, seed)
        else:
            chance.choice(DAMAGES)(chance, content, seeds)
    return bytes(content)


def _change_number(chance: random.Random, content: bytearray, seed: Seed) -> None:
    at, width = chance.choice(seed.numbers)
    if at + width > len(content):
        return
    old = int.from_bytes(content[at : at + width], "little")
    near = [
        old + 1,
        old - 1,
        2 * old,
        old // 2,
        old ^ 1 << chance.randrange(8 * width),
        len(content),
        len(content) - at,
    ]
    value = chance.choice(near if chance.random() < 0.5 else EDGES)
    content[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


def _flip(chance: random.Random, content: bytearray, seeds: Sequence[Seed]) -> None:
    for _ in range(chance.choice((1, 1, 4, 32))):
        if content:
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def _cut(chance: random.Random, content: bytearray, seeds: Sequence[Seed]) -> None:
    del content[chance.randrange(len(content) + 1) :]


def _remove(chance: random.Random, content: bytearray, seeds: Sequence[Seed]) -> None:
    at = chance.randrange(len(content) + 1)
    del content[at : at + chance.choice((1, 4, 8, 32, 200))]


def _insert(chance: random.Random, content: bytearray, seeds: Sequence[Seed]) -> None:
    at = chance.randrange(len(content) + 1)
    content[at:at] = chance.randbytes(chance.choice((1, 4, 8, 32, 200)))


def _repeat(chance: random.Random, content: bytearray, seeds: Sequence[Seed]) -> None:
    start = chance.randrange(len(content) + 1)
    at = chance.randrange(len(content) + 1)
    content[at:at] = content[start : start + chance.choice((8, 32, 100, 1000))]


def _splice(chance: random.Random, content: bytearray, seeds: Sequence[Seed]) -> None:
    other = chance.choice(seeds).content
    at = chance.randrange(len(content) + 1)
    content[at:] = other[chance.randrange(len(other)) :]


def _fill(chance: random.Random, content: bytearray, seeds: Sequence[Seed]) -> None:
    at = chance.randrange(len(content) + 1)
    length = min(chance.choice((2, 4, 8, 64)), len(content) - at)
    content[at : at + length] = bytes([chance.choice((0, 0x7F, 0x80, 0xFF))]) * length


Damage = Callable[[random.Random, bytearray, Sequence[Seed]], None]
DAMAGES: list[Damage] = [_flip, _flip, _cut, _remove, _insert, _repeat, _splice, _fill]


def use(path: Path) -> str:
    """Do everything that reading a model can do; returns how it ended. Anything but SelfeeError escapes."""
    try:
        with open_checkpoint(path) as checkpoint:
            json.dumps(summarize(checkpoint).as_json(), allow_nan=False)
            for name, tensor in checkpoint.tensors.items():
                if tensor.type.readable:
                    dequantize(tensor.type, checkpoint.read(name))
            check_architecture(checkpoint)
            check_finite(checkpoint)
    except SelfeeError as error:
        line = str(error)
        assert line.startswith(f"{path}: "), line
        assert line.isprintable(), ascii(line)
        assert len(line) < 1000, line
        return "refused"
    return "accepted"


def _hang(_: int, frame: FrameType | None) -> None:
    raise AssertionError(f"one file takes longer than {SLOWEST} s")


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(name: str, make_seeds: Callable[[Path], list[Seed]], use: Callable[[Path], str] = use) -> int:
    """Run for --seconds from --seed; 1 and a reproducing file where something else than SelfeeError came out."""
    parser = argparse.ArgumentParser(description=f"feed damaged {name} files to the reader")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=f"selfee-fuzz-{name}-"))
    seeds = make_seeds(folder)
    path = folder / "input.bin"  # stays if the process dies
    print(f"{name}: {len(seeds)} seeds of {sum(len(seed.content) for seed in seeds)} bytes; current input: {path}")
    _limit_memory()
    signal.signal(signal.SIGALRM, _hang)
    chance = random.Random(options.seed)
    ends: Counter[str] = Counter()
    stop = time.monotonic() + options.seconds
    while time.monotonic() < stop:
        path.write_bytes(mutate(chance, seeds))
        signal.alarm(SLOWEST)
        try:
            ends[use(path)] += 1
        except Exception:
            traceback.print_exc()
            print(f"{name}: FAILED at execution {ends.total() + 1} of seed {options.seed}; the input is {path}")
            return 1
        finally:
            signal.alarm(0)
    print(f"{name}: {ends.total()} executions, {ends['refused']} refused, {ends['accepted']} accepted, none escaped")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return 0
