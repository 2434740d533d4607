"""
Compiled arithmetic of selfee; use selfee.weights.quantize and selfee.llama instead.
"""

from typing import Annotated

import numpy
from numpy.typing import NDArray

def isa_name() -> str:
    """The instruction set in use."""

def supported_isas() -> list[str]:
    """What this machine and this build can run, slowest first."""

def dequantize(
    type: int, blocks: Annotated[NDArray[numpy.uint8], dict(order="C", device="cpu", writable=False)], count: int
) -> Annotated[NDArray[numpy.float32], dict(shape=(None,))]:
    """Blocks to f32."""

def quantize_activations(
    type: int,
    x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    isa: str | None = None,
) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """x as the kernel of a weight type sees it, in f32."""

def matmul(
    type: int,
    blocks: Annotated[NDArray[numpy.uint8], dict(order="C", device="cpu", writable=False)],
    rows: int,
    cols: int,
    x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    isa: str | None = None,
    row_begin: int = 0,
    row_end: int | None = None,
) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """y[t, r] = sum over c of W[r, c] * x[t, c]."""
