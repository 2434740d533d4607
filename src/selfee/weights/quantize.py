"""Stored blocks at native speed: de-quantise and multiply, with the same bits as the NumPy twins.

The door to the compiled kernels for everything that works on weights; ``quants.py`` and ``kquants.py`` define what the
bits mean. Sizes are checked below this door, in ``native/bindings/kernels.cpp``, and are ``ValueError`` there.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import numpy.typing as npt

from selfee.errors import SelfeeError, UnsupportedFileError, UsageError
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
    """The instruction set in use: "scalar", "avx2" or "avx512"; chosen once, SELFEE_ISA overrides.

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
