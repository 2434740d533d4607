"""Damaged session files: ``python tests/fuzz/fuzz_session.py --seconds 600 --seed 1``.

Half of the files are given sound checksums again, so that the numbers themselves are put to the test.
"""

from __future__ import annotations

import functools
import hashlib
import random
import struct
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.fuzzing import Seed, main
from tests.tiny import make_tiny

from selfee.errors import SelfeeError
from selfee.llama.model import Model
from selfee.llama.session_file import is_session_file, load_session, save_session

HEADER = 200  # bytes before its hash
COUNTS = (1, 5, 16, 30)  # tokens of the seeds


@functools.cache
def model(folder: Path) -> Model:
    path = make_tiny(folder / "model.gguf", n_layer=2, n_embd=32, n_head=2, n_head_kv=1, n_vocab=8, n_ctx=40)
    return Model.load(path, threads=1)


def make_seeds(folder: Path) -> list[Seed]:
    """Short sessions of one tiny model, which ``folder`` keeps."""
    path, seeds = folder / "sound.session", []
    for count in COUNTS:
        session, tokens = model(folder).new_session(), [number % 8 for number in range(count)]
        session.forward(tokens)
        save_session(path, session, tokens)
        numbers = [(8 + 4 * field, 4) for field in range(8)] + [(HEADER + 32 + 4 * at, 4) for at in range(count)]
        seeds.append(Seed(path.read_bytes(), numbers))
    path.unlink()
    return seeds


def resealed(content: bytes) -> bytes:
    """The file with the checksums that its header, its tokens and as many pieces as there are should have."""
    if len(content) < HEADER + 32:
        return content
    header, rest = bytearray(content[:HEADER]), content[HEADER + 32 :]
    layers, kv_heads, head_dim, _, _, count = struct.unpack_from("<6I", header, 16)
    ids, at = rest[: 4 * count], 4 * count
    header[40:72] = hashlib.blake2b(ids, digest_size=32).digest()
    key = hashlib.blake2b(header, digest_size=32).digest()
    sealed, size = bytes(header) + key + ids, 4 * kv_heads * head_dim * count
    for number in range(min(layers, 100)):
        piece = rest[at : at + size]
        at += size + 16
        sealed += piece + hashlib.blake2b(piece, digest_size=16, key=key, salt=number.to_bytes(8, "little")).digest()
    return sealed[: len(content)] if len(content) > len(sealed) else sealed


def use(path: Path) -> str:
    """Restore and go on; returns how it ended. Anything but SelfeeError escapes."""
    content = path.read_bytes()
    if random.Random(content).random() < 0.5:
        path.write_bytes(resealed(content))
    session = model(path.parent).new_session()
    try:
        is_session_file(path)
        tokens = load_session(path, session)
    except SelfeeError as error:
        line = str(error)
        assert line.startswith(f"{path}: "), line
        assert line.isprintable(), ascii(line)
        assert len(line) < 1000, line
        assert session.length == 0
        return "refused"
    assert session.length == len(tokens)
    assert all(0 <= token < 8 for token in tokens)
    with np.errstate(all="ignore"):
        session.forward([1])  # cells that lie give numbers that mean nothing, and no crash
    return "accepted"


if __name__ == "__main__":
    sys.exit(main("session", make_seeds, use))
