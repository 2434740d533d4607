"""What a card says of who reads a file, what a type is for, and where the card of 2023 was wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import make_tiny, spm_vocab

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.card.commands import Card, Prompt, commands, default_file, measure
from selfee.weights.card.compatibility import use_of
from selfee.weights.card.facts import FileFacts, MemoryFigure, QualityFigure, read_facts, sha256_of
from selfee.weights.card.page import render_card, size_text
from selfee.weights.checkpoint import TensorInfo
from selfee.weights.ggml import Hyper
from selfee.weights.ggml_writer import write_ggml
from selfee.weights.gguf_writer import write_gguf
from selfee.weights.quantization.mixture import Mixture
from selfee.weights.quantization.recipes import FileType, ModelFacts, Recipe, RuleSet, choose_types
from selfee.weights.quants import QuantType
from selfee.weights.sizes import llama_shapes
from selfee.weights.writing import TensorStream


def read(path: Path, **arguments: Any) -> FileFacts:
    return read_facts(make_tiny(path, **arguments), 2048)


def release(path: Path, kind: FileType, rules: RuleSet, layers: int = 26) -> FileFacts:
    """A narrow model of 2023, quantised under a rule set of that time; its weights are zeros."""
    pieces = [piece.encode() for piece in spm_vocab()["tokenizer.ggml.tokens"]]
    hyper = Hyper(len(pieces), n_embd=256, n_mult=256, n_head=2, n_layer=layers, n_rot=128, file_type=int(kind))
    stored = {1: QuantType.F32, 2: QuantType.F16}
    infos = [TensorInfo(name, shape, stored[len(shape)], 0, 0) for name, shape in llama_shapes(hyper).items()]
    chosen = choose_types(infos, Recipe(kind, rules), ModelFacts(layers))
    tensors = [hollow(info.name, info.shape, chosen[info.name].type) for info in infos]
    write_ggml(path, hyper, pieces, [0.0] * len(pieces), tensors)
    return read_facts(path, 2048)


def hollow(name: str, shape: tuple[int, ...], type: QuantType) -> TensorStream:
    size = int(np.prod(shape)) // type.block_values * type.block_bytes
    return TensorStream(name, shape, type, lambda: [np.zeros(size, np.uint8)])


def card_of(*files: FileFacts, **fields: Any) -> str:
    return render_card(Card("Tiny", files, Prompt("none"), 2048, **fields))


def test_a_legacy_file_of_the_release_is_not_read_by_the_programs_its_card_named(tmp_path: Path) -> None:
    """The card of 2023 said: "compatible with llama.cpp of May 19th". Its sizes say: output.weight is Q6_K."""
    facts = release(tmp_path / "a.bin", FileType.q4_0, RuleSet.JUNE_5)
    text = "; ".join(facts.readers)
    assert "from 5 June 2023 (99009e7)" in text
    assert "labelled q4_0, but output.weight is Q6_K" in text
    assert 'stops with "unrecognized tensor type 14"' in text
    without = "; ".join(release(tmp_path / "b.bin", FileType.q4_0, RuleSet.JUNE_6).readers)
    assert "from 19 May 2023 (2d5db48) until 21 August 2023" in without
    assert "unrecognized" not in without


def test_q6_k_is_q6_k_and_q2_k_has_what_its_size_proves(tmp_path: Path) -> None:
    """The card of 2023 called q6_K's type Q8_K, and left attn_output out of q2_K's list."""
    six = release(tmp_path / "six.bin", FileType.q6_K, RuleSet.JUNE_6)
    assert six.mixture.words == "all matrices Q6_K"
    assert "Q8_K" not in card_of(six)
    two = release(tmp_path / "two.bin", FileType.q2_K, RuleSet.JUNE_6)
    assert two.mixture.words == "attn_output, attn_v, ffn_down Q4_K; rest Q2_K"


@pytest.mark.parametrize(("kind", "bits"), [(FileType.q2_K, 2.625), (FileType.q3_K_S, 3.4375), (FileType.q6_K, 6.5625)])
def test_bits_per_weight_are_those_of_the_blocks(tmp_path: Path, kind: FileType, bits: float) -> None:
    facts = release(tmp_path / "x.bin", kind, RuleSet.JUNE_6)
    stored = next(row for row in facts.types if row.type == facts.mixture.base)
    assert 8 * stored.bytes / stored.values == bits


def test_the_layers_that_programs_of_2023_refuse_are_named(tmp_path: Path) -> None:
    assert any("stops at one of 2" in text for text in read(tmp_path / "a.bin", container="ggjt3").readers)
    many = release(tmp_path / "b.bin", FileType.q4_0, RuleSet.JUNE_6, layers=26)
    assert not any("layers" in text for text in many.readers)


@pytest.mark.parametrize(
    ("container", "type", "words"),
    [
        ("ggml", QuantType.F16, "10 March 2023"),
        ("ggmf", QuantType.F16, "20 March 2023"),
        ("ggjt1", QuantType.F32, "30 March 2023"),
        ("ggjt2", QuantType.Q5_1, "12 May 2023 (b9fd7ee)"),
        ("ggjt3", QuantType.Q8_0, "19 May 2023 (2d5db48)"),
        ("gguf1", QuantType.F32, "from 21 August to November 2023 only"),
        ("gguf2", QuantType.F32, "27 August 2023"),
        ("gguf", QuantType.F32, "October 2023"),
    ],
)
def test_every_container_has_its_readers(tmp_path: Path, container: str, type: QuantType, words: str) -> None:
    facts = read(tmp_path / "x", container=container, type=type)
    assert words in facts.readers[0]
    assert facts.readers[-1] == "selfee runs it"
    assert facts.is_gguf is container.startswith("gguf")
    assert ("GGML was replaced by GGUF" in card_of(facts)) is not facts.is_gguf


def test_newer_parts_of_a_gguf_file_ask_for_newer_programs(tmp_path: Path) -> None:
    text = "; ".join(read(tmp_path / "a.gguf", architecture="qwen3", type=QuantType.BF16).readers)
    assert "qwen3 is known since April 2025" in text
    assert "BF16 is read since May 2024" in text
    spm = read(tmp_path / "b.gguf", vocab="spm").readers
    assert not any("29 April 2024" in reader for reader in spm)


def test_every_file_type_has_a_use_of_its_own() -> None:
    uses = {use_of(Mixture(kind.name, kind.name, (), kind.base.name, "", "")) for kind in FileType}
    assert len(uses) == len(FileType)
    assert use_of(Mixture("", "mostly Q4_K", (), "Q4_K", "", "")) == "a mixture of its own; most of it is Q4_K"


def test_a_k_quant_whose_rows_do_not_divide_is_called_what_it_is(tmp_path: Path) -> None:
    tiny = read(tmp_path / "x.gguf", type=QuantType.Q4_0, metadata={"general.file_type": int(FileType.q2_K)})
    assert tiny.mixture.rules == ("pure",)  # rows of 64
    assert tiny.use == "a q2_K that is mostly Q4_0, because its rows do not divide into blocks of 256"


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "v.gguf", {"general.architecture": "llama"}, [])
    with pytest.raises(UnsupportedFileError, match="without weights"):
        read_facts(tmp_path / "v.gguf", 512)
    with pytest.raises(UnsupportedFileError, match="'imatrix'"):
        read(tmp_path / "i.gguf", metadata={"general.type": "imatrix"})
    with pytest.raises(BadFileError, match="no such file"):
        read_facts(tmp_path / "none.gguf", 512)


def test_the_checksum_is_that_of_the_bytes_and_is_told_as_it_goes(tmp_path: Path) -> None:
    heard: list[int] = []
    facts = read_facts(make_tiny(tmp_path / "x.gguf", type=QuantType.F32, n_embd=256), 64, heard.append)
    assert facts.sha256 == sha256_of(tmp_path / "x.gguf")
    assert sum(heard) == facts.size
    assert len(heard) > 1


def test_an_example_takes_the_file_most_people_want(tmp_path: Path) -> None:
    files = [
        read(tmp_path / f"{type.name}.gguf", type=type) for type in (QuantType.F16, QuantType.Q8_0, QuantType.Q4_0)
    ]
    assert default_file(files).file == "Q4_0.gguf"
    assert default_file(files[:1]).file == "F16.gguf"
    stopped = [replace(file, runs_here=False) for file in files]
    assert not any(
        command.line.startswith("selfee ask") for command in commands(Card("x", stopped, Prompt("none"), 64))
    )
    assert measure(files).endswith("prose.txt --kl F16.gguf --out results.jsonl")
    assert "--kl" not in measure(files[1:])


def test_memory_is_said_with_how_it_was_found(tmp_path: Path) -> None:
    facts = read(tmp_path / "x.gguf")
    assert "2.5 MB (computed)" in card_of(replace(facts, memory=MemoryFigure(64, 2_500_000, measured=False)))
    measured = replace(facts, memory=MemoryFigure(64, 7_370_000_000, measured=True, weights=1, own=98_400_000))
    page = card_of(measured)
    assert "| 7.37 GB |" in page
    assert "full context of 64 tokens" in page
    assert "98.4 MB of it the system cannot drop" in page
    failed = replace(
        facts, memory=MemoryFigure(64, 2_500_000, measured=False, note="its memory was not measured: no|room")
    )
    assert "its memory was not measured: no&#124;room." in card_of(failed)


def test_two_settings_of_quality_are_two_tables(tmp_path: Path) -> None:
    facts = read(tmp_path / "x.gguf")
    figures = (
        QualityFigure("prose, 512 tokens", 9.5),
        QualityFigure("prose, 2048 tokens", float("inf"), 0.1, "b", 1.0),
    )
    page = card_of(replace(facts, quality=figures))
    assert page.count("| Name | Size | PPL |") == 2
    assert "| 9.5000 | – | – | – | – |" in page
    assert "| inf ± 0.1000 | +1.0000 | – | – | – |" in page
    assert "No base file was compared with." in page


def test_what_files_disagree_on_is_told_for_each(tmp_path: Path) -> None:
    one = read(tmp_path / "one.gguf", metadata={"general.author": "A", "selfee.quantize.rules": "current"})
    two = read(tmp_path / "two.gguf", metadata={"general.author": "B", "selfee.quantize.rules": "current"})
    page = card_of(one, two, license="mit", quantized_by="me", date="2026-11-25", base_model="org/name")
    assert "- `general.author`: `A` (`one.gguf`); `B` (`two.gguf`)\n" in page
    assert page.count("`selfee.quantize.rules`: `current`") == 1
    for line in ("Licence: mit", "Quantised by: me", "Date: 2026-11-25", "Base model: `org/name`"):
        assert f"- {line}\n" in page


def test_a_wrong_label_stands_beside_the_truth(tmp_path: Path) -> None:
    facts = read(tmp_path / "x.gguf", type=QuantType.Q8_0, metadata={"general.file_type": 2})
    page = card_of(facts)
    assert "| q8_0 (labelled q4_0) |" in page
    assert "- `x.gguf`: labelled q4_0, but it is q8_0.\n" in page


def test_sizes_are_written_as_the_hub_counts() -> None:
    assert [size_text(count) for count in (999, 98_362_432, 7_365_545_088)] == ["999 bytes", "98.4 MB", "7.37 GB"]
