"""Which tensor of a file gets which block type: "q4_K_M" is a row here.

A file type is a mixture: most matrices get its base type, the ones that suffer most get a finer one. Which those are
was decided three times; each decision is a rule set:

* ``2023-06-06`` (llama.cpp 2d43387), what the k-quant files of the SelFee-13B release show;
* ``2023-06-05`` (llama.cpp 99009e7): besides, ``output.weight`` is Q6_K in every file, as in that release's other five;
* ``current`` (llama.cpp 2026, dense LLaMA), with fall-backs where rows do not divide into blocks.

Source: spec of the formats, section 5; the sizes of the released files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

from selfee.errors import UsageError
from selfee.weights.checkpoint import TensorInfo
from selfee.weights.quants import QuantType

F32, F16, BF16 = QuantType.F32, QuantType.F16, QuantType.BF16
Q2, Q3, Q4, Q5, Q6 = QuantType.Q2_K, QuantType.Q3_K, QuantType.Q4_K, QuantType.Q5_K, QuantType.Q6_K


class FileType(IntEnum):
    """The mixtures by name; the value is llama.cpp's number in files (``general.file_type``)."""

    f32 = 0
    f16 = 1
    q4_0 = 2
    q4_1 = 3
    q8_0 = 7
    q5_0 = 8
    q5_1 = 9
    q2_K = 10  # noqa: N815  # the names are those of the files
    q3_K_S = 11  # noqa: N815
    q3_K_M = 12  # noqa: N815
    q3_K_L = 13  # noqa: N815
    q4_K_S = 14  # noqa: N815
    q4_K_M = 15  # noqa: N815
    q5_K_S = 16  # noqa: N815
    q5_K_M = 17  # noqa: N815
    q6_K = 18  # noqa: N815
    bf16 = 32

    @property
    def base(self) -> QuantType:
        """The type of most of its matrices."""
        return QuantType[re.sub("_[SML]$", "", self.name).upper()]


CARD_TYPES: tuple[FileType, ...] = tuple(kind for kind in FileType if kind.base not in (F32, F16, BF16))
"""The fourteen quantised file types of the 2023 release, in the order of their numbers."""


def file_type(name: str) -> FileType:
    """The file type of that name, in any case; raises UsageError naming those there are."""
    for kind in FileType:
        if kind.name.lower() == name.strip().lower():
            return kind
    raise UsageError(f"type '{name}': unknown; choose one of {' '.join(kind.name for kind in FileType)}")


class RuleSet(Enum):
    """Whose decisions; see the module."""

    JUNE_6 = "2023-06-06"
    JUNE_5 = "2023-06-05"
    CURRENT = "current"


@dataclass(frozen=True)
class ModelFacts:
    """What the rules ask of a model."""

    layers: int
    gqa: int = 1  # query heads for each key head

    @classmethod
    def of(cls, metadata: Mapping[str, Any], tensors: Iterable[str]) -> ModelFacts:
        """Read from GGUF metadata; layers are counted where the key is missing."""
        arch = metadata.get("general.architecture", "llama")
        heads, keys = (metadata.get(f"{arch}.attention.{key}") for key in ("head_count", "head_count_kv"))
        layers = metadata.get(f"{arch}.block_count")
        counted = sum(name.endswith("attn_v.weight") for name in tensors)
        is_simple = isinstance(heads, int) and isinstance(keys, int) and keys > 0
        return cls(layers if isinstance(layers, int) else counted, heads // keys if is_simple and heads and keys else 1)


@dataclass(frozen=True)
class Recipe:
    """A file type under a rule set, and the exceptions a user makes to it."""

    file_type: FileType
    rules: RuleSet = RuleSet.CURRENT
    pure: bool = False  # every matrix in the base type
    # (pattern in the name, type or None to keep what a tensor has); the first that fits wins.
    overrides: Sequence[tuple[str, QuantType | None]] = field(default_factory=tuple)
    has_importance: bool = False


@dataclass(frozen=True)
class Choice:
    """The type of one tensor, and why where it is not the rule's."""

    type: QuantType
    note: str = ""


def choose_types(tensors: Iterable[TensorInfo], recipe: Recipe, facts: ModelFacts) -> dict[str, Choice]:
    """The type of every tensor, by name, in the order of ``tensors``, which is a file's.

    The rules count tensors: those of 2023 in that order, those of today layer by layer, however they lie in the file.
    Vectors and whatever is no weight matrix stay as they are. Raises UsageError where rows do not divide into blocks:
    for an override or under a rule set of 2023, which knew no fall-back.
    """
    listed = list(tensors)
    pick = _picker(recipe, facts, listed)
    overridden = override_types(listed, recipe.overrides)
    counted = sorted(listed, key=_layer) if recipe.rules is RuleSet.CURRENT else listed
    choices = {tensor.name: _choice(tensor, recipe, pick, overridden.get(tensor.name)) for tensor in counted}
    return {tensor.name: choices[tensor.name] for tensor in listed}


def override_types(
    tensors: Iterable[TensorInfo], overrides: Iterable[tuple[str, QuantType | None]]
) -> dict[str, Choice]:
    """The matrices that a user's patterns name, with the types they are to have.

    Raises UsageError for a pattern that is no regular expression and for rows that a type does not divide.
    """
    patterns = [(tensor_pattern(text), type) for text, type in overrides]
    found: dict[str, Choice] = {}
    for tensor in filter(is_matrix, tensors):
        match = next(((type,) for pattern, type in patterns if pattern.search(tensor.name)), None)
        if match is None:
            continue
        if match[0] is None:
            found[tensor.name] = Choice(tensor.type, "left as it is")
        else:
            _require_fit(tensor, match[0])
            found[tensor.name] = Choice(match[0], "override")
    return found


def _layer(tensor: TensorInfo) -> int:
    """The layer a tensor belongs to, -1 outside of layers."""
    found = re.match(r"blk\.([0-9]{1,9})\.", tensor.name)
    return int(found[1]) if found else -1


def is_matrix(tensor: TensorInfo) -> bool:
    """Whether a tensor is one that quantisation is for: a weight of two or more dimensions that is no norm."""
    return (
        len(tensor.shape) >= 2
        and tensor.name.endswith("weight")
        and not tensor.name.endswith(("_norm.weight", "ffn_gate_inp.weight"))
    )


def fits(tensor: TensorInfo, type: QuantType) -> bool:
    """Whether the rows of a tensor divide into blocks of a type."""
    return tensor.shape[-1] % type.block_values == 0


def fall_back(tensor: TensorInfo, type: QuantType) -> QuantType:
    """The next type that a tensor's rows divide into: Q4_K -> Q5_0, say, and F16 where 32 does not divide either."""
    if fits(tensor, type):
        return type
    coarser = _FALL_BACK.get(type, F16)
    return coarser if fits(tensor, coarser) else F16


_FALL_BACK = {
    Q2: QuantType.Q4_0,
    Q3: QuantType.Q4_0,
    Q4: QuantType.Q5_0,
    Q5: QuantType.Q5_1,
    Q6: QuantType.Q8_0,
}
_Picker = Callable[[str], QuantType]


def _choice(tensor: TensorInfo, recipe: Recipe, pick: _Picker, override: Choice | None) -> Choice:
    if not is_matrix(tensor):
        return Choice(tensor.type)
    wanted = pick(tensor.name)  # asked for in any case: the rules count the tensors
    if override is not None:
        return override
    if fits(tensor, wanted):
        return Choice(wanted)
    if recipe.rules is not RuleSet.CURRENT:
        _require_fit(tensor, wanted)
    chosen = fall_back(tensor, wanted)
    return Choice(chosen, f"rows of {tensor.shape[-1]} do not divide into {wanted.name} blocks")


def _require_fit(tensor: TensorInfo, type: QuantType) -> None:
    if not fits(tensor, type):
        fallback = fall_back(tensor, type).name.lower()
        raise UsageError(
            f"tensor '{tensor.name}': row of {tensor.shape[-1]}; {type.name.lower()} needs a multiple of "
            f"{type.block_values}; choose {fallback} for it (--tensor-type '{tensor.name}={fallback}'), or --rules "
            "current, which does so by itself"
        )


def tensor_pattern(text: str) -> re.Pattern[str]:
    """A pattern searched in tensor names; raises UsageError where it is no regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(
            f"tensor pattern '{text}': is no regular expression ({error}); write a part of the names, such as ffn_down"
        ) from error


def _picker(recipe: Recipe, facts: ModelFacts, tensors: list[TensorInfo]) -> _Picker:
    kind = recipe.file_type
    if recipe.pure or kind.base in (F32, F16, BF16):
        return lambda name: kind.base
    if recipe.rules is RuleSet.CURRENT:
        return _Current(recipe, facts, tensors)
    return _June2023(recipe, tensors)


def more(index: int, count: int) -> bool:
    """Whether a layer is among the half that q4_K_M and q5_K_M store finer: the ends, and every third between."""
    eighth = count // 8
    return index < eighth or index >= 7 * count // 8 or (index - eighth) % 3 == 2


class _Counter:
    """How many tensors of a kind were seen, of how many."""

    def __init__(self, ending: str, tensors: list[TensorInfo]) -> None:
        self.ending = ending
        self.count = sum(tensor.name.endswith(ending) for tensor in tensors)
        self.next = 0

    def step(self) -> int:
        self.next += 1
        return self.next - 1


class _June2023:
    """2d43387 and 99009e7, which differ in output.weight alone."""

    def __init__(self, recipe: Recipe, tensors: list[TensorInfo]) -> None:
        self.kind = recipe.file_type
        self.output = Q6 if recipe.rules is RuleSet.JUNE_5 else self.kind.base
        self.counters = [_Counter(ending, tensors) for ending in ("attn_v.weight", "ffn_down.weight")]

    def __call__(self, name: str) -> QuantType:
        base = self.kind.base
        if name == "output.weight":
            return self.output
        for counter in self.counters:
            if name.endswith(counter.ending):
                return self._value_or_down(counter.step(), counter.count)
        if name.endswith("attn_output.weight"):
            return {FileType.q2_K: Q4, FileType.q3_K_M: Q4, FileType.q3_K_L: Q5}.get(self.kind, base)
        return base

    def _value_or_down(self, index: int, count: int) -> QuantType:
        if self.kind in (FileType.q4_K_M, FileType.q5_K_M):
            return Q6 if more(index, count) else self.kind.base
        return {FileType.q2_K: Q4, FileType.q3_K_M: Q4, FileType.q3_K_L: Q5}.get(self.kind, self.kind.base)


class _Current:
    """llama.cpp of 2025 and 2026 for LLaMA-like models."""

    def __init__(self, recipe: Recipe, facts: ModelFacts, tensors: list[TensorInfo]) -> None:
        self.recipe = recipe
        self.kind = recipe.file_type
        self.gqa = facts.gqa
        self.is_70b = facts.layers == 80 and facts.gqa == 8
        self.value = _Counter("attn_v.weight", tensors)
        self.down = _Counter("ffn_down.weight", tensors)
        # Tied weights: the embedding is the output too, and is treated as such.
        has_output = any(tensor.name == "output.weight" for tensor in tensors)
        self.output = "output.weight" if has_output else "token_embd.weight"
        self.rows = {tensor.name: tensor.shape[-1] for tensor in tensors}

    def __call__(self, name: str) -> QuantType:
        base = self.kind.base
        if name == self.output:
            divides = self.rows[name] % base.block_values == 0
            return Q6 if divides and base is not QuantType.Q8_0 else QuantType.Q8_0
        if name.endswith(self.value.ending):
            return self._value(self.value.step())
        if name.endswith(self.down.ending):
            return self._down(self.down.step())
        if name.endswith("attn_output.weight"):
            return {FileType.q2_K: Q3, FileType.q3_K_M: Q4, FileType.q3_K_L: Q5}.get(self.kind, base)
        return base

    def _value(self, index: int) -> QuantType:
        chosen = self.kind.base
        match self.kind:
            case FileType.q2_K:
                chosen = Q4 if self.gqa >= 4 else Q3
            case FileType.q3_K_M:
                chosen = Q5 if index < 2 else Q4
            case FileType.q3_K_L:
                chosen = Q5
            case FileType.q4_K_S:
                chosen = Q5 if index < 4 else Q4
            case FileType.q4_K_M | FileType.q5_K_M if more(index, self.value.count):
                chosen = Q6
        # Eight query heads share a key head there: these matrices are small and worth more.
        return Q5 if self.is_70b and chosen in (Q3, Q4) else chosen

    def _down(self, index: int) -> QuantType:
        count = self.down.count
        match self.kind:
            case FileType.q2_K:
                return Q3
            case FileType.q3_K_M:
                return Q5 if index < count // 16 else Q4
            case FileType.q3_K_L:
                return Q5
            case FileType.q4_K_S:
                return Q5 if index < count // 8 else Q4
            case FileType.q4_K_M | FileType.q5_K_M if more(index, count):
                return Q6
            case FileType.q4_0 | FileType.q5_0 if self.recipe.has_importance and index < count // 8:
                return QuantType.Q4_1 if self.kind is FileType.q4_0 else QuantType.Q5_1
        return self.kind.base
