"""Reading two models side by side in pieces of a few MB, on all cores, with memory that does not grow with them."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from selfee.weights.delta.codec import can_convert, chunks, convert
from selfee.weights.huggingface.shards import TensorFolder
from selfee.weights.huggingface.stored import Bytes, DType, StoredTensor
from selfee.weights.writing import OnBytes

RELEASE_EVERY = 4  # pieces

Item = TypeVar("Item")
Made = TypeVar("Made")


class Pool:
    """Works on a few pieces at a time, in order: compressing lets other threads run."""

    def __init__(self, threads: int | None) -> None:
        self._count = threads or len(os.sched_getaffinity(0))
        self._threads = ThreadPoolExecutor(self._count)

    def map(self, work: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        """The results in order; at most a few are kept."""
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(self._threads.submit(work, item))
                if len(waiting) > self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)


def releasing(parts: Iterable[Made], name: str, *models: TensorFolder) -> Iterator[Made]:
    """The parts, while the memory that reading a tensor of these models fills is given back."""
    for count, part in enumerate(parts, 1):
        yield part
        if count % RELEASE_EVERY == 0:
            for model in models:
                if name in model.tensors:
                    model.release(name)


def read_range(model: TensorFolder, name: str, begin: int, end: int) -> Bytes:
    """Bytes ``begin`` to ``end`` of a tensor."""
    size = model.tensors[name].row_bytes
    if begin >= end or not size:
        return np.empty(0, np.uint8)
    first = begin // size
    return model.read_rows(name, first, -(-end // size))[begin - first * size : end - first * size]


def read_as(model: TensorFolder, tensor: StoredTensor | None, dtype: DType, begin: int, end: int) -> Bytes:
    """Bytes ``begin`` to ``end`` of a tensor as if it were of type ``dtype``; zeros beyond its end or without it."""
    if tensor is None or not can_convert(tensor.dtype, dtype):
        return np.zeros(end - begin, np.uint8)
    wanted, size = dtype.nbytes, tensor.dtype.nbytes
    high = min(end // wanted * size, tensor.nbytes)
    found = convert(read_range(model, tensor.name, begin // wanted * size, high), tensor.dtype, dtype)
    if found.nbytes == end - begin:
        return found
    whole = np.zeros(end - begin, np.uint8)
    whole[: found.nbytes] = found
    return whole


def checksum(model: TensorFolder, name: str, on_bytes: OnBytes | None = None) -> str:
    """SHA-256 of the bytes of a tensor, whose memory is given back."""
    digest = hashlib.sha256()
    for count, (begin, end) in enumerate(chunks(model.tensors[name].nbytes)):
        digest.update(read_range(model, name, begin, end).data)
        if count % RELEASE_EVERY == RELEASE_EVERY - 1:
            model.release(name)
        if on_bytes is not None:
            on_bytes(end - begin)
    model.release(name)
    return digest.hexdigest()
