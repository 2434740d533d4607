"""Stored blocks at native speed: quantise, de-quantise and multiply, with the same bits as the NumPy twins.

The door to the compiled kernels for everything that works on weights; ``quants.py`` and ``kquants.py`` define what the
bits mean. Sizes are checked below this door, in ``native/bindings/kernels.cpp``, and are ``ValueError`` there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt

from selfee.errors import SelfeeError, UnsupportedFileError, UsageError
from selfee.weights.quantization.quantizers import Generation, check_importance, not_finite
from selfee.weights.quants import QuantType

Floats = npt.NDArray[np.float32]


def native() -> ModuleType:
    """The compiled module. Raises SelfeeError naming the way out where it is missing."""
    try:
        from selfee import _native
    except ImportError as error:
        raise SelfeeError(
            f"selfee._native: cannot be imported ({error}); expected the compiled kernels beside the Python files; "
            "run `make setup` in a checkout, or install selfee again with pip"
        ) from error
    return _native


def _usable(type: QuantType) -> int:
    if not type.readable:
        raise UnsupportedFileError(f"tensor type {type.name} can be listed but not used; convert the file to another")
    return int(type)


def dequantize(type: QuantType, blocks: npt.NDArray[np.uint8], count: int | None = None) -> Floats:
    """Turn stored blocks into float32 values, shape (count,); the same bits as ``quants.dequantize``.

    ``blocks`` are the raw bytes of a whole number of blocks, of any shape; ``count`` (default all) values are returned.
    Raises UnsupportedFileError for a type that can only be listed, ValueError if the bytes do not make up the values.
    """
    number = _usable(type)
    raw = np.ascontiguousarray(blocks, dtype=np.uint8).reshape(-1)
    capacity = raw.size // type.block_bytes * type.block_values
    if count is not None and not 0 <= count <= capacity:
        raise ValueError(f"{count} values asked of {type.name} blocks that hold {capacity}")
    values: Floats = native().dequantize(number, raw, capacity)
    return values if count is None else values[:count]


@dataclass(frozen=True)
class QuantizationError:
    """What quantising a tensor loses: sums over its values, in float64."""

    error: float
    """Squared differences, each times the importance of its column if there is one."""
    energy: float
    """Squares of the values themselves, never weighed."""


class Quantizer:
    """Turns whole tensors from any readable type into blocks of another, on several threads.

    The bytes are those of ``quantizers.quantize``, whatever the number of threads and the instruction set. The threads
    stay between calls; one call at a time works, others wait. Ctrl-C ends a call early.
    """

    def __init__(self, threads: int | None = None, *, instruction_set: str | None = None) -> None:
        """``threads`` defaults to the processors this process may use, ``instruction_set`` to ``isa()``."""
        count = threads if threads is not None else len(os.sched_getaffinity(0))
        self._native = native().Quantizer(count, instruction_set or isa())

    @property
    def threads(self) -> int:
        """How many threads work: as many as asked for, or fewer where the system gives no more."""
        count: int = self._native.threads
        return count

    def run(
        self,
        type: QuantType,
        source_type: QuantType,
        source_bytes: npt.NDArray[np.uint8],
        rows: int,
        cols: int,
        *,
        generation: Generation = Generation.JUNE_2023,
        importance: npt.NDArray[np.float32] | None = None,
        previous: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Quantise ``rows`` x ``cols`` values that lie in ``source_bytes`` to blocks of ``type``, as flat bytes.

        ``importance`` (cols,) and ``previous`` (the last block of the call before, where a tensor is done in parts) are
        as for ``quantizers.quantize``. Raises NotFinite (a ValueError with ``.index``) for a value that the type
        cannot hold, UsageError for an importance that does not fit, ValueError for sizes that do not.
        """
        raw, weights = self._checked(type, source_bytes, cols, importance)
        before = None if previous is None else np.ascontiguousarray(previous, dtype=np.uint8).reshape(-1)
        blocks: npt.NDArray[np.uint8]
        blocks, found = self._native.run(
            _usable(type), _usable(source_type), raw, rows, cols, _GENERATIONS[generation], weights, before
        )
        if found is not None:
            raise not_finite(type, *found)
        return blocks

    def error(
        self,
        type: QuantType,
        source_type: QuantType,
        source_bytes: npt.NDArray[np.uint8],
        rows: int,
        cols: int,
        *,
        generation: Generation = Generation.JUNE_2023,
        importance: npt.NDArray[np.float32] | None = None,
    ) -> QuantizationError:
        """How much quantising would lose, without keeping the blocks; arguments and errors as for ``run``.

        The same figures for every number of threads and instruction set. Types that remember the block before (2023)
        are measured as if every 32768 values began a tensor.
        """
        raw, weights = self._checked(type, source_bytes, cols, importance)
        error, energy, found = self._native.measure(
            _usable(type), _usable(source_type), raw, rows, cols, _GENERATIONS[generation], weights
        )
        if found is not None:
            raise not_finite(type, *found)
        return QuantizationError(error, energy)

    @staticmethod
    def _checked(
        type: QuantType,
        source_bytes: npt.NDArray[np.uint8],
        cols: int,
        importance: npt.NDArray[np.float32] | None,
    ) -> tuple[npt.NDArray[np.uint8], Floats | None]:
        if importance is not None:
            importance = np.ascontiguousarray(importance, dtype=np.float32)
            check_importance(type, importance, cols)
        return np.ascontiguousarray(source_bytes, dtype=np.uint8).reshape(-1), importance


_GENERATIONS = {Generation.JUNE_2023: 0, Generation.CURRENT: 1}


def quantize_activations(type: QuantType, x: npt.ArrayLike, *, instruction_set: str | None = None) -> Floats:
    """What the kernel of weight type ``type`` sees of activations ``x`` (tokens, columns), back in float32.

    Quantised weights meet activations of 8 bits (spec: llama.cpp's Q8_0, Q8_1, Q8_K), F16 weights activations of F16.
    """
    rows = np.ascontiguousarray(x, dtype=np.float32)
    seen: Floats = native().quantize_activations(_usable(type), rows, instruction_set)
    return seen


def matmul(
    type: QuantType,
    blocks: npt.NDArray[np.uint8],
    rows: int,
    cols: int,
    x: npt.ArrayLike,
    *,
    instruction_set: str | None = None,
    first_row: int = 0,
    end_row: int | None = None,
    packed: bool = False,
) -> Floats:
    """Multiply a stored matrix (rows, cols) with activations ``x`` (tokens, cols): y of shape (tokens, rows).

    The bits of y[t, r] depend on row r and token t alone. Rows outside ``first_row`` to ``end_row`` are left 0; both
    are multiples of the kernels' row tile (1, 8 or 16) or the end. ``instruction_set`` chooses one of
    ``instruction_sets()``, default ``isa()``; ``packed`` repacks the weights first, as a model does when it is loaded.
    Raises ValueError if the sizes do not fit each other.
    """
    raw = np.ascontiguousarray(blocks, dtype=np.uint8)
    tokens = np.ascontiguousarray(x, dtype=np.float32)
    number = _usable(type)
    y: Floats = native().matmul(number, raw, rows, cols, tokens, instruction_set, first_row, end_row, packed)
    return y


def isa() -> str:
    """The instruction set in use: "scalar", "avx2", "avxvnni" or "avx512"; chosen once, SELFEE_ISA overrides.

    Raises UsageError if SELFEE_ISA names one that this machine cannot run.
    """
    try:
        name: str = native().isa_name()
    except ValueError as error:
        raise UsageError(str(error)) from error
    return name


def instruction_sets() -> list[str]:
    """The instruction sets that this machine and this build can run, slowest first."""
    names: list[str] = native().supported_isas()
    return names
