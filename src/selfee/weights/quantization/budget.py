"""Types for a file of a given size: bits go where, by measurement, they save most error.

For every matrix a sample of its rows is quantised to every candidate type and its relative squared error measured.
Then types are raised one step at a time, the step with the largest gain for each byte first (only steps on the lower
convex hull of error over bytes are taken, so that no cheap step hides behind a dear one), until the size is used up.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from selfee.errors import UsageError
from selfee.weights.checkpoint import Checkpoint, TensorInfo
from selfee.weights.disk import human_size
from selfee.weights.gguf import padded
from selfee.weights.kquants import Floats
from selfee.weights.quantization.quantizers import Generation, NotFinite
from selfee.weights.quantization.recipes import Choice, fits, is_matrix
from selfee.weights.quantization.transcode import Importance, bad_weight
from selfee.weights.quantize import Quantizer, dequantize
from selfee.weights.quants import QuantType

_SAMPLE_VALUES = 1 << 19  # of each matrix: its error is then known to about a hundredth
_CANDIDATES = tuple(
    QuantType[name] for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16")
)


@dataclass(frozen=True)
class Step:
    """A matrix in one type: its bytes, and the error that this adds to the model (relative, weighted)."""

    type: QuantType
    nbytes: int
    error: float


@dataclass(frozen=True)
class Budget:
    """What was found: types by name, the bytes of all tensors, and the summed error before the last byte was spent."""

    choices: Mapping[str, Choice]
    nbytes: int
    error: float


def choose_for_size(
    checkpoint: Checkpoint,
    nbytes: int,
    *,
    quantizer: Quantizer,
    fixed: Mapping[str, QuantType] | None = None,
    alignment: int = 1,
    importance: Importance | None = None,
    on_tensor: Callable[[int], None] | None = None,
) -> Budget:
    """Types whose tensor data takes at most ``nbytes``, with as little error as this finds.

    ``fixed`` are types not to be chosen here; each tensor counts as padded to ``alignment``. ``on_tensor`` hears the
    bytes of each tensor that was measured. Raises UsageError naming the smallest size there is where ``nbytes`` is
    below it, BadFileError at a weight of a sample that is NaN or infinite.
    """
    fixed = fixed or {}
    free: dict[str, list[Step]] = {}
    taken: dict[str, QuantType] = {}
    for tensor in checkpoint.tensors.values():
        if tensor.name in fixed or not is_matrix(tensor):
            taken[tensor.name] = fixed.get(tensor.name, tensor.type)
        else:
            steps = _measured(checkpoint, tensor, quantizer, (importance or {}).get(tensor.name))
            free[tensor.name] = _hull([replace(step, nbytes=padded(step.nbytes, alignment)) for step in steps])
        if on_tensor is not None:
            on_tensor(tensor.nbytes)
    spent = sum(padded(_nbytes(checkpoint.tensors[name], type), alignment) for name, type in taken.items())
    chosen = _spend(free, nbytes - spent)
    total = spent + sum(step.nbytes for step in chosen.values())
    if total > nbytes:
        raise UsageError(
            f"{checkpoint.path}: {human_size(nbytes)} of tensors wanted; expected at least {human_size(total)}, all in "
            "the smallest types; ask for more"
        )
    choices = {name: Choice(taken[name]) if name in taken else Choice(chosen[name].type) for name in checkpoint.tensors}
    return Budget(choices, total, sum(step.error for step in chosen.values()))


def _measured(
    checkpoint: Checkpoint, tensor: TensorInfo, quantizer: Quantizer, importance: Floats | None
) -> list[Step]:
    rows, columns = prod(tensor.shape[:-1]), tensor.shape[-1]
    count = min(rows, max(1, _SAMPLE_VALUES // columns))
    picked = np.linspace(0, rows - 1, count).astype(np.int64)  # evenly spread, the same every time
    sample = np.ascontiguousarray(checkpoint.read(tensor.name).reshape(rows, -1)[picked])
    checkpoint.release(tensor.name)
    energy = _energy(dequantize(tensor.type, sample).reshape(count, columns), importance)
    steps = []
    for type in _CANDIDATES:
        if not fits(tensor, type) or _nbytes(tensor, type) > max(tensor.nbytes, _nbytes(tensor, QuantType.F16)):
            continue
        try:
            measured = quantizer.error(
                type, tensor.type, sample, count, columns, generation=Generation.CURRENT, importance=importance
            )
        except NotFinite as error:
            row, column = divmod(error.index, columns)
            raise bad_weight(checkpoint, tensor, type, int(picked[row]), column) from error
        relative = measured.error / energy if energy else 0.0
        steps.append(Step(type, _nbytes(tensor, type), relative * _weight(checkpoint, tensor.name)))
    return steps


def _energy(values: Floats, importance: Floats | None) -> float:
    """Squares of the values, weighed as their errors are."""
    squares = np.square(values, dtype=np.float64)
    return float((squares if importance is None else squares * importance).sum())


def _weight(checkpoint: Checkpoint, name: str) -> float:
    """How much of a model's outcome a matrix carries.

    A layer's matrix makes one of many contributions to the residual stream; every token passes the embedding and the
    output as a whole, and a tied matrix is both.
    """
    if name == "output.weight":
        return 1.0
    if name == "token_embd.weight":
        return 1.0 if "output.weight" in checkpoint.tensors else 2.0
    layers = sum(tensor.endswith("attn_v.weight") for tensor in checkpoint.tensors)
    return 1.0 / max(1, layers)


def _nbytes(tensor: TensorInfo, type: QuantType) -> int:
    return prod(tensor.shape) // type.block_values * type.block_bytes


def _hull(steps: list[Step]) -> list[Step]:
    """The steps on the lower convex hull of error over bytes, smallest first."""
    hull: list[Step] = []
    for step in sorted(steps, key=lambda step: (step.nbytes, step.error)):
        if hull and step.error >= hull[-1].error:
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-2], step):
            hull.pop()
        hull.append(step)
    return hull


def _gain(before: Step, after: Step) -> float:
    """Error saved for each byte."""
    return (before.error - after.error) / max(1, after.nbytes - before.nbytes)


def _spend(free: Mapping[str, list[Step]], nbytes: int) -> dict[str, Step]:
    """Start with the smallest types and take the best step that still fits, until none does."""
    at = dict.fromkeys(free, 0)
    left = nbytes - sum(steps[0].nbytes for steps in free.values())
    heap = [(-_gain(steps[0], steps[1]), name) for name, steps in free.items() if len(steps) > 1]
    heapq.heapify(heap)
    while heap:
        _, name = heapq.heappop(heap)
        steps = free[name]
        price = steps[at[name] + 1].nbytes - steps[at[name]].nbytes
        if price > left:
            continue  # a smaller matrix may still fit
        left -= price
        at[name] += 1
        if at[name] + 1 < len(steps):
            heapq.heappush(heap, (-_gain(steps[at[name]], steps[at[name] + 1]), name))
    return {name: free[name][index] for name, index in at.items()}
