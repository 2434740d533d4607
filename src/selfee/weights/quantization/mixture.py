"""Which tensors of a file have which type, and whether that is what its label promises."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from selfee.errors import UsageError
from selfee.weights.checkpoint import Checkpoint, TensorInfo
from selfee.weights.quantization.recipes import FileType, ModelFacts, Recipe, RuleSet, choose_types, is_matrix
from selfee.weights.quants import QuantType

_LAYER = re.compile(r"^blk\.[0-9]+\.")
_PLAIN = frozenset({QuantType.F32, QuantType.F16, QuantType.BF16})
# Mixtures that llama.cpp names and selfee does not make.
_OTHER_LABELS = {
    4: "q4_1_some_f16", 19: "iq2_xxs", 20: "iq2_xs", 21: "q2_K_S", 22: "iq3_xs", 23: "iq3_xxs", 24: "iq1_s",
    25: "iq4_nl", 26: "iq3_s", 27: "iq3_m", 28: "iq2_s", 29: "iq2_m", 30: "iq4_xs", 31: "iq1_m", 36: "tq1_0",
    37: "tq2_0", 38: "mxfp4_moe",
}  # fmt: skip


@dataclass(frozen=True)
class Mixture:
    """The types of a file's matrices beside its label."""

    label: str  # of general.file_type: "q4_K_M"; "" where the file has none that is known
    method: str  # the file type it really is: the label if it is right, else another name, else "mostly Q4_K"
    rules: tuple[str, ...]  # the rule sets under which ``method`` is exactly this file
    base: str  # type of most of its weights
    words: str  # "attn_v, ffn_down Q6_K in 20 of 40 layers; output Q6_K; rest Q4_K"
    problem: str  # what is wrong with the label; "" where nothing is

    @property
    def file_type(self) -> FileType | None:
        """``method`` as a file type; None where it is none."""
        return FileType.__members__.get(self.method)


def describe_mixture(checkpoint: Checkpoint) -> Mixture:
    """Compare what the tensors of an open file are with what its label promises."""
    matrices = [tensor for tensor in checkpoint.tensors.values() if is_matrix(tensor)]
    number = checkpoint.metadata.get("general.file_type")
    kind = _file_type(number)
    label = kind.name if kind is not None else _OTHER_LABELS.get(number, "") if isinstance(number, int) else ""
    rules = _rules(checkpoint, kind) if kind is not None else ()
    base = _largest(matrices)
    method, problem = label, ""
    if base is not None and not rules and (kind is not None or not label):
        found, found_rules = _search(checkpoint, matrices)
        if kind is not None and kind.base is base and found is None:
            problem = f"labelled {label}, with types that no known rule set gives"
        else:
            method, rules = found.name if found is not None else f"mostly {base.name}", found_rules
            problem = f"labelled {label}, but it is {method}" if label else "its label says no type"
    return Mixture(label, method, rules, base.name if base is not None else "", words_for(matrices), problem)


def words_for(matrices: Iterable[TensorInfo]) -> str:
    """Which matrices have which type, in one line that ends with the type of most weights."""
    listed = list(matrices)
    base = _largest(listed)
    totals = Counter(_kind(tensor.name) for tensor in listed)
    found: dict[tuple[QuantType, int, int], list[str]] = {}
    counts = Counter((tensor.type, _kind(tensor.name)) for tensor in listed if tensor.type is not base)
    for (type, kind), count in counts.items():
        found.setdefault((type, count, totals[kind]), []).append(kind)
    if base is None:
        return ""
    parts = [_part(type, kinds, count, total) for (type, count, total), kinds in sorted(found.items(), reverse=True)]
    return "; ".join([*parts, f"rest {base.name}"]) if parts else f"all matrices {base.name}"


def _part(type: QuantType, kinds: list[str], count: int, total: int) -> str:
    share = f" in {count} of {total} layers" if count < total else ""
    return f"{', '.join(sorted(kinds))} {type.name}{share}"


def _kind(name: str) -> str:
    return _LAYER.sub("", name).removesuffix(".weight")


def _largest(matrices: Iterable[TensorInfo]) -> QuantType | None:
    shares: Counter[QuantType] = Counter()
    for tensor in matrices:
        shares[tensor.type] += prod(tensor.shape)
    return shares.most_common(1)[0][0] if shares else None


def _file_type(number: Any) -> FileType | None:
    is_known = type(number) is int and number in FileType.__members__.values()
    return FileType(number) if is_known else None


def _search(checkpoint: Checkpoint, matrices: list[TensorInfo]) -> tuple[FileType | None, tuple[str, ...]]:
    """A file type whose rules give exactly these types, of those whose base occurs at all."""
    types = {tensor.type for tensor in matrices}
    for kind in FileType:
        if kind.base in types and (rules := _rules(checkpoint, kind)):
            return kind, rules
    return None, ()


def _rules(checkpoint: Checkpoint, kind: FileType) -> tuple[str, ...]:
    """The rule sets under which this file type gives exactly the types of this file."""
    tensors = list(checkpoint.tensors.values())
    facts = ModelFacts.of(checkpoint.metadata, checkpoint.tensors)
    recipes: dict[str, list[Recipe]] = {rules.value: [Recipe(kind, rules)] for rules in RuleSet}
    if kind.base not in _PLAIN:
        recipes[RuleSet.CURRENT.value].append(Recipe(kind, RuleSet.CURRENT, has_importance=True))
        recipes["pure"] = [Recipe(kind, RuleSet.CURRENT, pure=True)]
    return tuple(name for name, tried in recipes.items() if any(_gives(recipe, tensors, facts) for recipe in tried))


def _gives(recipe: Recipe, tensors: list[TensorInfo], facts: ModelFacts) -> bool:
    try:
        chosen = choose_types(tensors, recipe, facts)
    except UsageError:  # rows that do not divide into its blocks
        return False
    return all(chosen[tensor.name].type is tensor.type for tensor in tensors if is_matrix(tensor))


def types_of(tensors: Mapping[str, TensorInfo]) -> frozenset[QuantType]:
    """The types that occur."""
    return frozenset(tensor.type for tensor in tensors.values())
