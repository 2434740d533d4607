"""
Compiled arithmetic of selfee; use selfee.weights.quantize and selfee.llama instead.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


class HeldMatrix:
    """Weights as a model holds them: in the file's layout, or packed."""

    def __init__(self, type: int, blocks: Annotated[NDArray[numpy.uint8], dict(order='C', device='cpu', writable=False)], rows: int, cols: int, packed: bool) -> None: ...

def time_matmul(matrix: HeldMatrix, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], threads: int, repeats: int, isa: str | None = None) -> float:
    """Seconds for one multiplication, without preparing x."""

def read_rate(buffer: Annotated[NDArray[numpy.uint8], dict(order='C', device='cpu', writable=False)], threads: int, repeats: int, isa: str | None = None) -> float:
    """
    Bytes a second of reading a buffer in equal parts, in the fastest of a few ways.
    """

def multiply_rate(threads: int, rounds: int, isa: str | None = None) -> float:
    """Multiply-adds of bytes a second, from registers."""

def isa_name() -> str:
    """The instruction set in use."""

def supported_isas() -> list[str]:
    """What this machine and this build can run, slowest first."""

def dequantize(type: int, blocks: Annotated[NDArray[numpy.uint8], dict(order='C', device='cpu', writable=False)], count: int) -> Annotated[NDArray[numpy.float32], dict(shape=(None,))]:
    """Blocks to f32."""

def quantize_activations(type: int, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], isa: str | None = None, packed: bool = False) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """x as the kernel of a weight type sees it, in f32."""

def matmul(type: int, blocks: Annotated[NDArray[numpy.uint8], dict(order='C', device='cpu', writable=False)], rows: int, cols: int, x: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order='C', device='cpu', writable=False)], isa: str | None = None, row_begin: int = 0, row_end: int | None = None, packed: bool = False) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """y[t, r] = sum over c of W[r, c] * x[t, c]."""

class Model:
    """Weights bound to the forward pass; use selfee.llama.model.Model."""

    def __init__(self, layers: int, width: int, heads: int, kv_heads: int, head_dim: int, hidden: int, vocabulary: int, norm_epsilon: float, rope_halves: bool, rope_frequencies: Sequence[float], tensors: dict[str, object], threads: int) -> None: ...

    def ready(self, index: int, packed: bool) -> list[bool]:
        """
        Make a layer's weights (number of layers: the head's) present, or copy them; true for each that was copied.
        """

class Session:
    """A cache of keys and values; use selfee.llama.model.Session."""

    def __init__(self, model: object, capacity: int, cell_type: int = 1) -> None: ...

    def read_cells(self, layer: int, first: int, last: int, out: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None, None), order='C', device='cpu')]) -> None:
        """
        Copy keys and values of held positions first .. last - 1, all of one chunk of 256, into out [2, kv_heads, last - first, words of a row]: halves, or blocks of Q8_0.
        """

    def write_cells(self, layer: int, first: int, last: int, cells: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None, None), order='C', device='cpu', writable=False)]) -> None:
        """Copy them back, after the tokens held."""

    def hold(self, length: int) -> None:
        """Count tokens as held whose cells were written."""

    @property
    def length(self) -> int:
        """Tokens evaluated."""

    @property
    def capacity(self) -> int:
        """Tokens that fit."""

    def truncate(self, length: int, give_back: bool = False) -> None:
        """
        Keep this many tokens; memory that only others needed may go back to the system.
        """

    def copy_from(self, other: Session, length: int) -> None:
        """Hold the first `length` tokens of another session of this model instead."""

    def forward(self, tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], logit_rows: int, squares: Annotated[NDArray[numpy.float64], dict(shape=(None,), order='C', device='cpu')] | None = None) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
        """
        Evaluate tokens after those held; logits of the last `logit_rows` of them. `squares` are sums to which the squares of the matrices' inputs are added: see selfee.llama.importance.
        """

def forward_many(parts: Sequence[tuple[object, Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], int]]) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
    """
    Evaluate tokens in several sessions of one model together: (session, tokens, logit_rows) each, no session twice. Logits part by part.
    """

class DraftMemory:
    """What drafters learned from earlier texts; use selfee.llama.drafting.DraftMemory."""

    def __init__(self, entries: int) -> None: ...

    @property
    def bytes(self) -> int:
        """What its table takes."""

class Drafter:
    """Guesses the next tokens; use selfee.llama.drafting.Drafter."""

    def __init__(self, memory: DraftMemory) -> None: ...

    def read(self, tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None:
        """Append tokens that the model did not write."""

    def revise(self, original: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None:
        """From here on the text probably repeats these tokens; none: nothing."""

    def write(self, tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None:
        """Append tokens that the model wrote, and learn from them."""

    def propose(self, limit: int, least: float) -> tuple[list[int], list[float]]:
        """
        Guesses, and for each the chance that it and all before it are right, not below `least`.
        """

class Sampler:
    """Draws tokens; use selfee.llama.sampling.Sampler."""

    def __init__(self, *, temperature: float, top_k: int, top_p: float, min_p: float, typical_p: float, tail_free_z: float, repeat_penalty: float, repeat_last_n: int, frequency_penalty: float, presence_penalty: float, exempt_token: int, mirostat: int, mirostat_tau: float, mirostat_eta: float, bias_tokens: Sequence[int], bias_values: Sequence[float], steps: Sequence[int], seed: int) -> None: ...

    def begin(self, history: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None:
        """Forget everything; `history` are the tokens before the first draw."""

    def read(self, tokens: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None:
        """Tokens that somebody else wrote join the history."""

    def sample(self, logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> int:
        """The next token, which joins the history."""

class Quantizer:
    """Turns tensors into blocks; use selfee.weights.quantize.Quantizer."""

    def __init__(self, threads: int, isa: str | None = None) -> None: ...

    @property
    def threads(self) -> int:
        """How many threads work."""

    def run(self, type: int, source_type: int, source: Annotated[NDArray[numpy.uint8], dict(order='C', device='cpu', writable=False)], rows: int, cols: int, generation: int, importance: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None, previous: Annotated[NDArray[numpy.uint8], dict(order='C', device='cpu', writable=False)] | None = None) -> tuple[Annotated[NDArray[numpy.uint8], dict(shape=(None,))], tuple[int, float | None] | None]:
        """Blocks, and what could not be stored."""

    def measure(self, type: int, source_type: int, source: Annotated[NDArray[numpy.uint8], dict(order='C', device='cpu', writable=False)], rows: int, cols: int, generation: int, importance: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None) -> tuple[float, float, tuple[int, float | None] | None]:
        """Sums of squares of errors and of values, and what could not be stored."""
