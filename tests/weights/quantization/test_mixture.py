"""A file is what its tensors are: labels are compared with every rule set, and the types are said in a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tiny import make_tiny

from selfee.weights.checkpoint import TensorInfo
from selfee.weights.gguf_writer import TensorData, write_gguf
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.mixture import Mixture, describe_mixture, words_for
from selfee.weights.quantization.recipes import CARD_TYPES, FileType, ModelFacts, Recipe, RuleSet, choose_types
from selfee.weights.quants import QuantType

LAYERS = 16


def hollow(path: Path, types: dict[str, QuantType], label: int | None) -> Mixture:
    """A file with these types and zeros for weights, described."""
    tensors = []
    for name, shape in shapes().items():
        type = types.get(name, QuantType.F32)
        size = int(np.prod(shape)) // type.block_values * type.block_bytes
        tensors.append(TensorData(name, shape, type, np.zeros(size, np.uint8)))
    metadata = {"general.architecture": "llama", "llama.block_count": LAYERS}
    write_gguf(path, metadata if label is None else metadata | {"general.file_type": label}, tensors)
    with open_checkpoint(path) as checkpoint:
        return describe_mixture(checkpoint)


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (512, 256), "output_norm.weight": (256,)}
    found["output.weight"] = (512, 256)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up"):
            found[f"blk.{layer}.{name}.weight"] = (256, 256)
    return found


def types_of(kind: FileType, rules: RuleSet) -> dict[str, QuantType]:
    tensors = [TensorInfo(name, shape, QuantType.F32, 0, 0) for name, shape in shapes().items()]
    return {
        name: choice.type for name, choice in choose_types(tensors, Recipe(kind, rules), ModelFacts(LAYERS)).items()
    }


@pytest.mark.parametrize("rules", RuleSet)
@pytest.mark.parametrize("kind", CARD_TYPES)
def test_what_a_recipe_makes_is_recognised(tmp_path: Path, kind: FileType, rules: RuleSet) -> None:
    mixture = hollow(tmp_path / "x.gguf", types_of(kind, rules), int(kind))
    assert (mixture.label, mixture.method, mixture.problem) == (kind.name, kind.name, "")
    assert rules.value in mixture.rules
    assert mixture.file_type is kind


def test_the_legacy_files_of_the_2023_release_are_told_apart_by_their_output(tmp_path: Path) -> None:
    mixture = hollow(tmp_path / "x.gguf", types_of(FileType.q4_0, RuleSet.JUNE_5), 2)
    assert mixture.rules == ("2023-06-05", "current")
    assert mixture.words == "output Q6_K; rest Q4_0"


def test_half_of_the_layers_are_counted(tmp_path: Path) -> None:
    mixture = hollow(tmp_path / "x.gguf", types_of(FileType.q4_K_M, RuleSet.JUNE_6), 15)
    assert mixture.words == "attn_v, ffn_down Q6_K in 8 of 16 layers; rest Q4_K"


def test_a_wrong_label_is_named_with_what_the_file_really_is(tmp_path: Path) -> None:
    mixture = hollow(tmp_path / "x.gguf", types_of(FileType.q8_0, RuleSet.CURRENT), 2)
    assert (mixture.label, mixture.method) == ("q4_0", "q8_0")
    assert mixture.problem == "labelled q4_0, but it is q8_0"
    assert mixture.rules


def test_a_wrong_label_of_the_same_base_is_named_too(tmp_path: Path) -> None:
    mixture = hollow(tmp_path / "x.gguf", types_of(FileType.q4_K_M, RuleSet.JUNE_6), int(FileType.q4_K_S))
    assert mixture.problem == "labelled q4_K_S, but it is q4_K_M"
    assert mixture.file_type is FileType.q4_K_M


def test_a_mixture_of_its_own_keeps_its_label_and_says_so(tmp_path: Path) -> None:
    types = types_of(FileType.q4_K_S, RuleSet.JUNE_6) | {"blk.3.ffn_up.weight": QuantType.Q8_0}
    mixture = hollow(tmp_path / "x.gguf", types, int(FileType.q4_K_S))
    assert mixture.method == "q4_K_S"
    assert mixture.rules == ()
    assert "no known rule set" in mixture.problem
    assert mixture.words == "ffn_up Q8_0 in 1 of 16 layers; rest Q4_K"


@pytest.mark.parametrize("label", [None, 1024])
def test_a_file_without_a_label_is_named_by_its_tensors(tmp_path: Path, label: int | None) -> None:
    mixture = hollow(tmp_path / "x.gguf", types_of(FileType.q6_K, RuleSet.CURRENT), label)
    assert mixture.label == ""
    assert mixture.method == "q6_K"
    assert mixture.problem == "its label says no type"


def test_a_type_of_other_programs_keeps_its_name(tmp_path: Path) -> None:
    types = {name: QuantType.IQ4_XS for name, shape in shapes().items() if len(shape) == 2}
    mixture = hollow(tmp_path / "x.gguf", types, 30)
    assert (mixture.label, mixture.method, mixture.file_type) == ("iq4_xs", "iq4_xs", None)
    assert mixture.words == "all matrices IQ4_XS"


@pytest.mark.parametrize("container", ["gguf", "ggjt3"])
@pytest.mark.parametrize("type", [QuantType.F32, QuantType.F16, QuantType.Q4_0, QuantType.Q8_0])
def test_the_tiny_models_are_what_they_say(tmp_path: Path, container: str, type: QuantType) -> None:
    path = make_tiny(tmp_path / "t", container=container, type=type)  # type: ignore[arg-type]
    with open_checkpoint(path) as checkpoint:
        mixture = describe_mixture(checkpoint)
    assert mixture.method == type.name.lower()
    assert mixture.problem == ""


def test_no_matrices_no_words() -> None:
    assert words_for([]) == ""
