"""The size of a file is known before it is written: the released files of 2023 to the byte, and whatever we write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import make_tiny, spm_vocab

from selfee.weights.checkpoint import TensorInfo
from selfee.weights.ggml import Hyper
from selfee.weights.ggml_writer import write_ggml
from selfee.weights.gguf_writer import gguf_size, write_gguf
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.recipes import (
    CARD_TYPES,
    FileType,
    ModelFacts,
    Recipe,
    RuleSet,
    choose_types,
    file_type,
)
from selfee.weights.quants import QuantType
from selfee.weights.sizes import TensorPlan, ggml_file_size, llama_shapes, vocabulary_section
from selfee.weights.writing import TensorStream

VOCABULARY = 432_574
"""Bytes of LLaMA's 32,000 tokens in a GGML file; ``[PAD]`` takes 13 more."""

SHAPES = {
    "13B": Hyper(n_vocab=32000, n_embd=5120, n_mult=256, n_head=40, n_layer=40, n_rot=128, file_type=0),
    "7B": Hyper(n_vocab=32000, n_embd=4096, n_mult=256, n_head=32, n_layer=32, n_rot=128, file_type=0),
}

# Bytes of the files that builds of llama.cpp made of these shapes: 2d43387, 99009e7, and one of 2025 (spec: sizes).
SIZES = """
13B 32000 q2_K 5427881088 5508521088 4853980288
13B 32000 q3_K_L 6865269888 6929269888 6929269888
13B 32000 q3_K_M 6249231488 6313231488 6337479808
13B 32000 q3_K_S 5594690688 5658690688 5658690688
13B 32000 q4_0 7323305088 7365545088 7365545088
13B 32000 q4_1 8136770688 8168770688 8168770688
13B 32000 q4_K_M 7823426688 7865666688 7865666688
13B 32000 q4_K_S 7323305088 7365545088 7422889088
13B 32000 q5_0 8950236288 8971996288 8971996288
13B 32000 q5_1 9763701888 9775221888 9775221888
13B 32000 q5_K_M 9207874688 9229634688 9229634688
13B 32000 q5_K_S 8950236288 8971996288 8971996288
13B 32000 q6_K 10678850688 10678850688 10678850688
13B 32000 q8_0 13831029888 13791349888 13831029888
13B 32000 f16 26033013888 26033013888 26033013888
13B 32001 q2_K 5427884448 5508526976 4853986176
13B 32001 q3_K_L 6865274304 6929276288 6929276288
13B 32001 q3_K_M 6249235904 6313237888 6337486208
13B 32001 q3_K_S 5594695104 5658697088 5658697088
13B 32001 q4_0 7323310848 7365552160 7365552160
13B 32001 q4_1 8136777088 8168778080 8168778080
13B 32001 q4_K_M 7823432448 7865673760 7865673760
13B 32001 q4_K_S 7323310848 7365552160 7422896160
13B 32001 q5_0 8950243328 8972004000 8972004000
13B 32001 q5_1 9763709568 9775229920 9775229920
13B 32001 q5_K_M 9207881728 9229642400 9229642400
13B 32001 q5_K_S 8950243328 8972004000 8972004000
13B 32001 q6_K 10678859104 10678859104 10678859104
13B 32001 q8_0 13831040768 13791359520 13831040768
13B 32001 f16 26033034368 26033034368 26033034368
7B 32000 q2_K 2802295424 2866807424 2532573824
7B 32000 q3_K_L 3545621120 3596821120 3596821120
7B 32000 q3_K_M 3231048320 3282248320 3297714816
7B 32000 q3_K_S 2896814720 2948014720 2948014720
7B 32000 q4_0 3791725184 3825517184 3825517184
7B 32000 q4_1 4212859520 4238459520 4238459520
7B 32000 q4_K_M 4046922368 4080714368 4080714368
7B 32000 q4_K_S 3791725184 3825517184 3856450176
7B 32000 q5_0 4633993856 4651401856 4651401856
7B 32000 q5_1 5055128192 5064344192 5064344192
7B 32000 q5_K_M 4765459072 4782867072 4782867072
7B 32000 q5_K_S 4633993856 4651401856 4651401856
7B 32000 q6_K 5528904320 5528904320 5528904320
7B 32000 q8_0 7160799872 7129055872 7160799872
7B 32000 f16 13477814912 13477814912 13477814912
7B 32001 q2_K 2802298112 2866812128 2532578528
7B 32001 q3_K_L 3545624640 3596826240 3596826240
7B 32001 q3_K_M 3231051840 3282253440 3297719936
7B 32001 q3_K_S 2896818240 2948019840 2948019840
7B 32001 q4_0 3791729792 3825522848 3825522848
7B 32001 q4_1 4212864640 4238465440 4238465440
7B 32001 q4_K_M 4046926976 4080720032 4080720032
7B 32001 q4_K_S 3791729792 3825522848 3856455840
7B 32001 q5_0 4633999488 4651408032 4651408032
7B 32001 q5_1 5055134336 5064350624 5064350624
7B 32001 q5_K_M 4765464704 4782873248 4782873248
7B 32001 q5_K_S 4633999488 4651408032 4651408032
7B 32001 q6_K 5528911040 5528911040 5528911040
7B 32001 q8_0 7160808576 7129063584 7160808576
7B 32001 f16 13477831296 13477831296 13477831296
"""

RELEASED = {  # GB on the card of the 13B release of June 2023
    "q2_K": 5.43, "q3_K_S": 5.59, "q3_K_M": 6.25, "q3_K_L": 6.87, "q4_0": 7.37, "q4_1": 8.17, "q4_K_S": 7.32,
    "q4_K_M": 7.82, "q5_0": 8.97, "q5_1": 9.78, "q5_K_S": 8.95, "q5_K_M": 9.21, "q6_K": 10.68, "q8_0": 13.79,
}  # fmt: skip


def planned(hyper: Hyper, kind: FileType, rules: RuleSet) -> list[TensorPlan]:
    """What the recipe makes of an F16 model of these shapes."""
    stored = {1: QuantType.F32, 2: QuantType.F16}
    tensors = [TensorInfo(name, shape, stored[len(shape)], 0, 0) for name, shape in llama_shapes(hyper).items()]
    types = choose_types(tensors, Recipe(kind, rules), ModelFacts(hyper.n_layer))
    return [TensorPlan(tensor.name, tensor.shape, types[tensor.name].type) for tensor in tensors]


def size_of(model: str, vocabulary: int, kind: FileType, rules: RuleSet) -> int:
    hyper = replace(SHAPES[model], n_vocab=vocabulary)
    section = VOCABULARY + 13 * (vocabulary == 32001)
    return ggml_file_size(planned(hyper, kind, rules), vocabulary_bytes=section)


@pytest.mark.parametrize("line", SIZES.split("\n")[1:-1])
def test_a_size_follows_from_shapes_alone_under_all_three_rule_sets(line: str) -> None:
    model, vocabulary, name, *sizes = line.split()
    for rules, size in zip((RuleSet.JUNE_6, RuleSet.JUNE_5, RuleSet.CURRENT), sizes, strict=True):
        assert size_of(model, int(vocabulary), file_type(name), rules) == int(size), rules


@pytest.mark.parametrize("vocabulary", [32000, 32001])
def test_the_card_of_2023_was_made_under_two_rule_sets(vocabulary: int) -> None:
    for kind in CARD_TYPES:
        rules = RuleSet.JUNE_6 if kind.name.endswith(("_K", "_S", "_M", "_L")) else RuleSet.JUNE_5
        assert round(size_of("13B", vocabulary, kind, rules) / 1e9, 2) == RELEASED[kind.name], kind.name


def test_the_table_holds_every_type_of_every_model() -> None:
    keys = [tuple(line.split()[:3]) for line in SIZES.split("\n")[1:-1]]
    kinds = {kind.name for kind in CARD_TYPES} | {"f16"}
    assert set(keys) == {(model, vocab, kind) for model in SHAPES for vocab in ("32000", "32001") for kind in kinds}
    assert len(keys) == 60


def test_shapes_with_shared_heads_are_those_of_a_model_that_can_be_run(tmp_path: Path) -> None:
    with open_checkpoint(make_tiny(tmp_path / "t.gguf", n_head_kv=2)) as tiny:
        hidden = tiny.metadata["llama.feed_forward_length"]
        hyper = Hyper(len(tiny.vocab.tokens), n_embd=64, n_mult=1, n_head=4, n_layer=2, n_rot=16, file_type=0)
        shapes = llama_shapes(hyper, heads_kv=2, hidden=hidden)
        assert {name: info.shape for name, info in tiny.tensors.items()} == shapes


def test_the_shapes_are_those_of_a_model_that_can_be_run(tmp_path: Path) -> None:
    tiny = open_checkpoint(make_tiny(tmp_path / "t.bin", container="ggjt3", n_layer=3))
    with tiny:
        hyper = Hyper(len(tiny.vocab.tokens), n_embd=64, n_mult=32, n_head=4, n_layer=3, n_rot=16, file_type=0)
        assert {name: info.shape for name, info in tiny.tensors.items()} == llama_shapes(hyper)


plans = st.lists(
    st.tuples(
        st.text("abcdefghij._0123456789", min_size=1, max_size=40),
        st.sampled_from([QuantType.F32, QuantType.F16, QuantType.Q4_0, QuantType.Q6_K]),
        st.integers(1, 3),
        st.integers(1, 3),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda plan: plan[0],
)


def tensors_of(found: list[tuple[str, QuantType, int, int, bool]]) -> list[TensorStream]:
    def stream(name: str, type: QuantType, rows: int, blocks: int, is_vector: bool) -> TensorStream:
        columns = blocks * type.block_values
        size = (1 if is_vector else rows) * blocks * type.block_bytes
        shape = (columns,) if is_vector else (rows, columns)
        return TensorStream(name, shape, type, lambda: [np.zeros(size, np.uint8)])

    return [stream(*each) for each in found]


@settings(max_examples=40)
@given(plans, st.sampled_from([1, 2, 3]), st.sampled_from([None, 8, 32, 128]))
def test_a_planned_gguf_file_has_the_size_of_the_written_one(
    tmp_path_factory: pytest.TempPathFactory,
    found: list[tuple[str, QuantType, int, int, bool]],
    version: int,
    alignment: int | None,
) -> None:
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    metadata = {"general.architecture": "llama", "words": ["a", "bc"], "number": 7}
    if alignment:
        metadata["general.alignment"] = alignment
    write_gguf(path, metadata, tensors_of(found), version=version)
    plan = [TensorPlan(tensor.name, tensor.shape, tensor.type) for tensor in tensors_of(found)]
    assert gguf_size(metadata, plan, version=version) == path.stat().st_size


@settings(max_examples=40)
@given(plans, st.sampled_from([("ggjt", 3), ("ggjt", 1), ("ggmf", 1), ("ggml", 0)]))
def test_a_planned_ggml_file_has_the_size_of_the_written_one(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[str, QuantType, int, int, bool]], kind: tuple[str, int]
) -> None:
    path = tmp_path_factory.mktemp("ggml") / "x.bin"
    pieces = [piece.encode() for piece in spm_vocab()["tokenizer.ggml.tokens"]][:40]
    hyper = Hyper(len(pieces), n_embd=256, n_mult=256, n_head=4, n_layer=1, n_rot=64, file_type=0)
    family, version = kind
    write_ggml(path, hyper, pieces, [0.0] * 40, tensors_of(found), family=family, version=version)
    section = vocabulary_section(pieces, family=family)
    size = ggml_file_size(tensors_of(found), vocabulary_bytes=section, family=family)
    assert size == path.stat().st_size


@pytest.mark.parametrize("container", ["gguf", "gguf2", "gguf1"])
def test_the_size_of_a_file_follows_from_what_it_says_of_itself(tmp_path: Path, container: str) -> None:
    path = make_tiny(tmp_path / "t.gguf", container=container, type=QuantType.Q4_0)  # type: ignore[arg-type]
    with open_checkpoint(path) as checkpoint:
        version = int(checkpoint.container[-1])
        tensors = list(checkpoint.tensors.values())
        assert gguf_size(checkpoint.metadata, tensors, version=version) == path.stat().st_size


@pytest.mark.corpus
def test_the_table_is_that_of_the_specification(corpus: Path) -> None:
    page = (corpus.parent / "spec" / "ggml-sizes.md").read_text(encoding="utf-8").replace(",", "")
    for line in SIZES.split("\n")[1:-1]:
        _, _, name, june_6, june_5, today = line.split()
        assert any(f"| {name} | {june_6} | {june_5} |" in row and f"| {today} |" in row for row in page.splitlines())
