"""A second writer of session files, after the page that describes them: what tests compare with, and lie with."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from selfee.llama.cells import Cells
from selfee.llama.config import LlamaConfig
from selfee.llama.model import Session


def craft_session(
    config: LlamaConfig,
    fingerprint: bytes,
    name: str,
    tokens: Sequence[int],
    keys: npt.NDArray[np.float16],
    values: npt.NDArray[np.float16],
    lies: Mapping[str, int] | None = None,
) -> bytes:
    """The file for keys and values [layers, tokens, kv_heads, head_dim]. ``lies`` replace numbers of the header."""
    pieces = []
    for first in range(0, len(tokens), 256):
        for layer in range(config.layers):
            both = np.stack([part[layer, first : first + 256] for part in (keys, values)])
            pieces.append(both.swapaxes(1, 2).astype("<f2").tobytes())
    return _craft(config, fingerprint, name, tokens, 1, pieces, lies or {})


def craft_blocks(
    config: LlamaConfig, fingerprint: bytes, name: str, tokens: Sequence[int], pieces: Sequence[Cells]
) -> bytes:
    """The file for pieces of Q8_0, as a session gives them."""
    return _craft(config, fingerprint, name, tokens, 8, [piece.tobytes() for piece in pieces], {})


def _craft(
    config: LlamaConfig,
    fingerprint: bytes,
    name: str,
    tokens: Sequence[int],
    cell_type: int,
    pieces: Sequence[bytes],
    lies: Mapping[str, int],
) -> bytes:
    numbers = {
        "version": 1,
        "cell_type": cell_type,
        "layers": config.layers,
        "kv_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "chunk": 256,
        "vocabulary": config.vocabulary,
        "tokens": len(tokens),
    } | dict(lies)
    ids = struct.pack(f"<{len(tokens)}I", *tokens)
    header = b"selfeeKV" + struct.pack("<8I", *numbers.values()) + hashlib.blake2b(ids, digest_size=32).digest()
    header += fingerprint + name.encode().ljust(96, b"\0")
    key = hashlib.blake2b(header, digest_size=32).digest()
    file = header + key + ids
    for number, piece in enumerate(pieces):
        file += piece
        file += hashlib.blake2b(piece, digest_size=16, key=key, salt=number.to_bytes(8, "little")).digest()
    return file


def cells_of(session: Session) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Keys and values [layers, tokens, kv_heads, head_dim] of everything a session holds."""
    config = session.model.config
    pieces = [cells.view(np.float16).swapaxes(1, 2) for cells in session.read_cells(session.length)]
    by_layer = [np.concatenate(pieces[layer :: config.layers], axis=1) for layer in range(config.layers)]
    both = np.stack(by_layer, axis=1)
    return both[0], both[1]
