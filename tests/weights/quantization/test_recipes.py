"""Recipes: which tensor gets which type, as llama.cpp decided it three times."""

from __future__ import annotations

from collections import Counter

import pytest

from selfee.errors import UsageError
from selfee.weights.checkpoint import TensorInfo
from selfee.weights.quantization.recipes import (
    CARD_TYPES,
    Choice,
    FileType,
    ModelFacts,
    Recipe,
    RuleSet,
    choose_types,
    fall_back,
    file_type,
    more,
)
from selfee.weights.quants import QuantType

LAYERS = 40
Q3, Q4, Q5, Q6 = (QuantType[f"Q{bits}_K"] for bits in (3, 4, 5, 6))


def llama(layers: int = LAYERS, width: int = 512, hidden: int = 1024, tied: bool = False) -> list[TensorInfo]:
    """The tensors of a LLaMA model, without data."""
    shapes = {"token_embd.weight": (1000, width), "output_norm.weight": (width,)}
    if not tied:
        shapes["output.weight"] = (1000, width)
    for layer in range(layers):
        block = f"blk.{layer}."
        shapes |= {f"{block}{name}.weight": (width, width) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"{block}ffn_gate.weight": (hidden, width), f"{block}ffn_down.weight": (width, hidden)}
        shapes |= {f"{block}ffn_up.weight": (hidden, width), f"{block}ffn_norm.weight": (width,)}
    return [
        TensorInfo(name, shape, QuantType.F16 if len(shape) == 2 else QuantType.F32, 0, 0)
        for name, shape in shapes.items()
    ]


def chosen(recipe: Recipe, tensors: list[TensorInfo] | None = None, gqa: int = 1) -> dict[str, Choice]:
    return choose_types(llama() if tensors is None else tensors, recipe, ModelFacts(LAYERS, gqa))


@pytest.mark.parametrize(
    ("name", "value", "output", "base"),
    [
        ("q2_K", "Q4_K", "Q4_K", "Q2_K"),
        ("q3_K_S", "Q3_K", "Q3_K", "Q3_K"),
        ("q3_K_M", "Q4_K", "Q4_K", "Q3_K"),
        ("q3_K_L", "Q5_K", "Q5_K", "Q3_K"),
        ("q4_K_S", "Q4_K", "Q4_K", "Q4_K"),
        ("q4_K_M", "Q6_K", "Q4_K", "Q4_K"),
        ("q5_K_M", "Q6_K", "Q5_K", "Q5_K"),
        ("q4_0", "Q4_0", "Q4_0", "Q4_0"),
        ("q8_0", "Q8_0", "Q8_0", "Q8_0"),
    ],
)
def test_the_mixtures_of_june_2023(name: str, value: str, output: str, base: str) -> None:
    types = chosen(Recipe(file_type(name), RuleSet.JUNE_6))
    assert types["blk.0.attn_v.weight"].type.name == value
    assert types["blk.0.ffn_down.weight"].type.name == value
    assert types["blk.0.attn_output.weight"].type.name == output
    assert {types[f"blk.7.{each}.weight"].type.name for each in ("attn_q", "attn_k", "ffn_gate", "ffn_up")} == {base}
    assert types["output.weight"].type.name == types["token_embd.weight"].type.name == base
    assert types["output_norm.weight"].type is QuantType.F32


@pytest.mark.parametrize("kind", CARD_TYPES, ids=lambda kind: kind.name)
def test_a_day_earlier_the_output_was_q6_k_and_nothing_else_differed(kind: FileType) -> None:
    fifth, sixth = (chosen(Recipe(kind, rules)) for rules in (RuleSet.JUNE_5, RuleSet.JUNE_6))
    assert fifth.pop("output.weight").type is Q6
    sixth.pop("output.weight")
    assert fifth == sixth


def test_half_of_the_layers_are_finer_in_the_medium_mixtures() -> None:
    assert [sum(more(index, count) for index in range(count)) for count in (32, 40)] == [16, 20]
    for rules in RuleSet:
        types = Counter(
            choice.type
            for name, choice in chosen(Recipe(FileType.q4_K_M, rules)).items()
            if name.endswith(("attn_v.weight", "ffn_down.weight"))
        )
        assert types == {Q4: 40, Q6: 40}


def test_todays_rules_for_the_small_and_large_mixtures() -> None:
    small = chosen(Recipe(FileType.q4_K_S))
    assert [small[f"blk.{layer}.attn_v.weight"].type for layer in (0, 3, 4, 39)] == [Q5, Q5, Q4, Q4]
    assert [small[f"blk.{layer}.ffn_down.weight"].type for layer in (0, 4, 5, 39)] == [Q5, Q5, Q4, Q4]
    three = chosen(Recipe(FileType.q3_K_M))
    assert [three[f"blk.{layer}.attn_v.weight"].type for layer in (0, 1, 2)] == [Q5, Q5, Q4]
    assert [three[f"blk.{layer}.ffn_down.weight"].type for layer in (0, 1, 2)] == [Q5, Q5, Q4]
    two = chosen(Recipe(FileType.q2_K))
    assert {two[f"blk.9.{each}.weight"].type for each in ("attn_v", "ffn_down", "attn_output")} == {Q3}
    assert chosen(Recipe(FileType.q2_K), gqa=4)["blk.9.attn_v.weight"].type is Q4


@pytest.mark.parametrize("kind", CARD_TYPES, ids=lambda kind: kind.name)
def test_today_the_output_is_q6_k_but_in_q8_0_files_and_a_tied_embedding_counts_as_output(kind: FileType) -> None:
    expected = QuantType.Q8_0 if kind is FileType.q8_0 else Q6
    assert chosen(Recipe(kind))["output.weight"].type is expected
    assert chosen(Recipe(kind), llama(tied=True))["token_embd.weight"].type is expected
    assert chosen(Recipe(kind))["token_embd.weight"].type is kind.base


def test_rows_that_do_not_divide_fall_back_today_and_say_so() -> None:
    types = chosen(Recipe(FileType.q4_K_M), llama(width=576, hidden=1536))
    assert types["blk.0.attn_q.weight"].type is QuantType.Q5_0
    assert "576 do not divide into Q4_K" in types["blk.0.attn_q.weight"].note
    assert types["blk.0.ffn_down.weight"] == Choice(Q6)
    assert types["output.weight"].type is QuantType.Q8_0
    assert chosen(Recipe(FileType.q4_0), llama(width=100))["blk.0.attn_q.weight"].type is QuantType.F16


def test_rows_that_do_not_divide_are_an_error_under_the_rules_of_2023() -> None:
    with pytest.raises(UsageError, match=r"row of 576; q4_k needs a multiple of 256; choose q5_0 .*--rules current"):
        chosen(Recipe(FileType.q4_K_M, RuleSet.JUNE_6), llama(width=576))


def test_fall_backs_go_to_the_next_finer_legacy_type() -> None:
    tensor = TensorInfo("x.weight", (4, 96), QuantType.F16, 0, 0)
    kinds = [QuantType.Q2_K, Q3, Q4, Q5, Q6]
    assert [fall_back(tensor, kind).name for kind in kinds] == ["Q4_0", "Q4_0", "Q5_0", "Q5_1", "Q8_0"]


def test_pure_gives_every_matrix_the_base_type() -> None:
    types = chosen(Recipe(FileType.q4_K_M, pure=True))
    assert {choice.type for name, choice in types.items() if "norm" not in name} == {Q4}


def test_an_override_wins_over_everything_and_does_not_shift_the_count() -> None:
    plain = chosen(Recipe(FileType.q4_K_M))
    changed = chosen(Recipe(FileType.q4_K_M, pure=False, overrides=[(r"blk\.0\.attn_v", QuantType.Q8_0)]))
    assert changed.pop("blk.0.attn_v.weight") == Choice(QuantType.Q8_0, "override")
    plain.pop("blk.0.attn_v.weight")
    assert changed == plain
    pure = chosen(Recipe(FileType.q4_K_M, pure=True, overrides=[("ffn_down", Q6)]))
    assert pure["blk.3.ffn_down.weight"].type is Q6


def test_an_override_that_does_not_fit_is_an_error_naming_the_tensor() -> None:
    with pytest.raises(UsageError, match=r"blk\.0\.attn_q\.weight': row of 576; q6_k needs a multiple of 256"):
        chosen(Recipe(FileType.q4_0, overrides=[("attn_q", Q6)]), llama(width=576))
    with pytest.raises(UsageError, match="no regular expression"):
        chosen(Recipe(FileType.q4_0, overrides=[("(", Q6)]))


def test_an_importance_matrix_makes_the_first_down_matrices_of_q4_0_finer() -> None:
    types = chosen(Recipe(FileType.q4_0, has_importance=True))
    assert [types[f"blk.{layer}.ffn_down.weight"].type.name for layer in (0, 4, 5)] == ["Q4_1", "Q4_1", "Q4_0"]


def test_seventy_billion_parameters_get_finer_values() -> None:
    tensors = llama(layers=80)
    types = choose_types(tensors, Recipe(FileType.q4_K_S), ModelFacts(80, 8))
    assert types["blk.70.attn_v.weight"].type is Q5


def test_names_of_file_types_are_known_in_any_case_and_others_listed() -> None:
    assert file_type("Q4_K_M") is FileType.q4_K_M
    assert len(CARD_TYPES) == 14
    with pytest.raises(UsageError, match="q4_K_M"):
        file_type("q4_9")


def test_facts_are_read_from_metadata() -> None:
    keys = {"general.architecture": "llama", "llama.block_count": 22, "llama.attention.head_count": 32}
    assert ModelFacts.of(keys | {"llama.attention.head_count_kv": 4}, []) == ModelFacts(22, 8)
    assert ModelFacts.of({}, ["blk.0.attn_v.weight"]) == ModelFacts(1, 1)


@pytest.mark.parametrize("kind", CARD_TYPES, ids=lambda kind: kind.name)
def test_todays_rules_count_layers_however_the_tensors_lie_in_the_file(kind: FileType) -> None:
    as_text_sorts = sorted(llama(), key=lambda tensor: tensor.name)  # blk.0, blk.1, blk.10, blk.11, ..., blk.2
    assert chosen(Recipe(kind), as_text_sorts) == chosen(Recipe(kind))
    assert list(chosen(Recipe(kind), as_text_sorts)) == [tensor.name for tensor in as_text_sorts]
