"""Which model is it: one number over everything that decides what a cache of keys and values means.

A fingerprint is BLAKE2b-256 over two parts: the text of configuration and vocabulary, and the tensors as a tree. Of a
tensor, pieces of 16 MiB are hashed each by itself, so that several threads can; the root is the hash of every tensor's
name, type and shape followed by the hashes of its pieces, tensors in order of their names. Chat templates, names,
threads, packing and instruction sets do not count: the same bits are computed with any of them.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from selfee.errors import SelfeeError
from selfee.llama.config import LlamaConfig
from selfee.weights.checkpoint import Checkpoint, TensorInfo, Vocab
from selfee.weights.mapped import MappedCheckpoint
from selfee.weights.writing import replacing

SIZE = 32  # bytes of a fingerprint

_PIECE = 16 << 20  # bytes hashed at a time
_FORM = 1  # raised when what is hashed, or how, changes
_SIZES = ("architecture", "layers", "width", "heads", "kv_heads", "head_dim", "hidden", "vocabulary", "norm_epsilon")
_LONG = ("tokens", "scores", "types", "merges")  # lists of the vocabulary, hashed as they are
_LONGEST_MEMORY, _MOST_REMEMBERED = 1 << 20, 256  # bytes and entries of the file
_SETTLED = 2 * 10**9  # ns after which a change would also change a file's time, whatever the clock of its disk


def fingerprint_of(
    checkpoint: Checkpoint, config: LlamaConfig, *, threads: int, release: bool = False, remembered: Path | None = None
) -> bytes:
    """The fingerprint of an open model: 32 bytes.

    Every byte of the tensors is read, several hundred megabytes a second for each of ``threads``; ``release`` gives
    memory back as it goes. ``remembered`` is a small file of results: a model file with the path, size, time and inode
    of one that was hashed before is not read again. Raises BadFileError if the file changes meanwhile.
    """
    key = None if remembered is None else _key(checkpoint)
    known = _recall(remembered).get(key) if remembered is not None and key is not None else None
    tensors = bytes.fromhex(known) if known else _hash_tensors(checkpoint, threads, release)
    if remembered is not None and key is not None and not known:
        _remember(remembered, key, tensors.hex())
    total = hashlib.blake2b(digest_size=SIZE, person=b"selfee model %d" % _FORM)
    for part in (_described(checkpoint, config), _hash_vocab(checkpoint.vocab), tensors):
        total.update(struct.pack("<Q", len(part)) + part)
    return total.digest()


def _described(checkpoint: Checkpoint, config: LlamaConfig) -> bytes:
    """Sizes and constants. Rope as the file says it: computed frequencies may differ in their last bit elsewhere."""
    rope = {key: value for key, value in checkpoint.metadata.items() if key.startswith(f"{config.architecture}.rope.")}
    known: dict[str, Any] = {name: getattr(config, name) for name in _SIZES}
    return json.dumps(known | {"rope": rope}, sort_keys=True, default=str).encode()


def _hash_vocab(vocab: Vocab) -> bytes:
    """The vocabulary without its chat template: that decides which tokens are read, not what they mean."""
    total = hashlib.blake2b(digest_size=SIZE)
    names = [field.name for field in fields(vocab) if field.name not in (*_LONG, "chat_template")]
    total.update(json.dumps({name: getattr(vocab, name) for name in names}).encode())
    _add_strings(total, list(vocab.tokens))
    _add_strings(total, [merge.encode("utf-8", errors="surrogatepass") for merge in vocab.merges])
    for numbers, kind in ((vocab.scores, "<f8"), (vocab.types, "<i8")):
        array = np.asarray([] if numbers is None else numbers, dtype=kind)
        total.update(struct.pack("<Q", array.size) + array.tobytes())
    return total.digest()


def _add_strings(total: hashlib.blake2b, strings: list[bytes]) -> None:
    lengths = np.fromiter(map(len, strings), dtype="<u8", count=len(strings))
    total.update(struct.pack("<Q", len(strings)) + lengths.tobytes())
    total.update(b"".join(strings))


def _hash_tensors(checkpoint: Checkpoint, threads: int, release: bool) -> bytes:
    checkpoint.verify_unchanged()
    root = hashlib.blake2b(digest_size=SIZE)
    # Few pieces wait at a time: tensors of a folder may be copies, and Ctrl-C waits for what has begun.
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(threads) as pool:

        def hash_piece(name: str, blocks: npt.NDArray[np.uint8], begin: int) -> bytes:
            digest = hashlib.blake2b(blocks[begin : begin + _PIECE].data, digest_size=SIZE).digest()
            if release:
                checkpoint.release(name, begin, min(begin + _PIECE, blocks.nbytes))
            return _head(checkpoint.tensors[name]) + digest if begin == 0 else digest

        for name in sorted(checkpoint.tensors):
            blocks = checkpoint.read(name).reshape(-1)
            for begin in range(0, blocks.nbytes, _PIECE):
                waiting.append(pool.submit(hash_piece, name, blocks, begin))
                while len(waiting) > 2 * threads:
                    root.update(waiting.popleft().result())
        for piece in waiting:
            root.update(piece.result())
    checkpoint.verify_unchanged()
    return root.digest()


def _head(tensor: TensorInfo) -> bytes:
    text = json.dumps([tensor.name, int(tensor.type), tensor.shape, tensor.nbytes]).encode()
    return struct.pack("<Q", len(text)) + text


def _key(checkpoint: Checkpoint) -> str | None:
    """What tells a file from any other and from itself after a change.

    None for folders: the order of their rows depends on other files.
    """
    if not isinstance(checkpoint, MappedCheckpoint):
        return None
    device, inode, size, changed = checkpoint.file.identity
    if time.time_ns() - changed < _SETTLED:
        return None
    return f"{_FORM}:{device}:{inode}:{size}:{changed}:{checkpoint.path.resolve()}"


def _recall(remembered: Path) -> dict[str, str]:
    """What is remembered: key -> hash of the tensors. A file that makes no sense is as good as none."""
    try:
        with remembered.open("rb") as file:
            rows = json.loads(file.read(_LONGEST_MEMORY))
    except (OSError, ValueError, RecursionError):
        return {}
    return dict(_sound(rows.items())) if isinstance(rows, Mapping) else {}


def _sound(rows: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, str]]:
    for key, value in rows:
        with suppress(TypeError, ValueError):
            if len(bytes.fromhex(value)) == SIZE:
                yield key, value


def _remember(remembered: Path, key: str, digest: str) -> None:
    """Add a result; whatever stands against it costs the next reader seconds and nothing else."""
    rows = list((_recall(remembered) | {key: digest}).items())[-_MOST_REMEMBERED:]
    with suppress(OSError, SelfeeError):
        remembered.parent.mkdir(parents=True, exist_ok=True)
        with replacing(remembered) as file:
            file.write(json.dumps(dict(rows), indent=1).encode("utf-8", errors="replace"))
