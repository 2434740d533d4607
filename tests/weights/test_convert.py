"""Conversion between containers: what must stay the same to the byte, what is computed, what is refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.tiny import Architecture, make_tiny
from tests.weights.converting import assert_same_tensors, convert, converted, vocab_as_plain

from selfee.errors import BadFileError, UnsupportedFileError, UsageError
from selfee.llama import Model
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.ggml import GgmlCheckpoint, feed_forward_length
from selfee.weights.ggml_target import ggml_target
from selfee.weights.gguf_writer import write_gguf
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.recipes import RuleSet
from selfee.weights.quants import QuantType, dequantize
from selfee.weights.views import Seen, View, halves_to_neighbours, neighbours_to_halves
from selfee.weights.writing import TensorData

IDS = list(range(5, 25))
LEGACY = [QuantType.F32, QuantType.F16, QuantType.Q4_0, QuantType.Q4_1, QuantType.Q5_0, QuantType.Q5_1, QuantType.Q8_0]
K_QUANTS = [QuantType.Q2_K, QuantType.Q3_K, QuantType.Q4_K, QuantType.Q5_K, QuantType.Q6_K]
NAMES = ["token_embd.weight", "output.weight", "blk.1.ffn_down.weight"]


def logits(path: Path) -> npt.NDArray[np.float32]:
    with Model.load(path, threads=1) as model:
        return model.new_session().forward(IDS, "all")


def hashes(checkpoint: Checkpoint) -> dict[str, str]:
    return {name: hashlib.sha256(checkpoint.read(name).tobytes()).hexdigest() for name in checkpoint.tensors}


@pytest.mark.parametrize("type", [*LEGACY, *K_QUANTS], ids=lambda type: type.name)
def test_ggml_becomes_gguf_without_touching_a_byte_of_a_tensor(type: QuantType, tmp_path: Path) -> None:
    old = make_tiny(tmp_path / "old.bin", container="ggjt3", type=type)
    new = converted(old, tmp_path / "new.gguf")
    with open_checkpoint(old) as before, open_checkpoint(new) as after:
        assert after.container == "gguf v3"
        assert list(after.tensors) == list(before.tensors)
        assert hashes(after) == hashes(before)
        assert after.metadata["general.file_type"] == before.metadata["general.file_type"]
        assert after.metadata["general.quantization_version"] == 2
    assert np.array_equal(logits(old), logits(new))


@pytest.mark.parametrize("container", ["ggml", "ggmf", "ggjt1", "ggjt2", "ggjt3"])
def test_every_container_of_2023_becomes_the_same_gguf(container: Any, tmp_path: Path) -> None:
    old = make_tiny(tmp_path / "old.bin", container=container, type=QuantType.F16)
    latest = make_tiny(tmp_path / "latest.bin", container="ggjt3", type=QuantType.F16)
    with open_checkpoint(converted(old, tmp_path / "a.gguf")) as ours:
        with open_checkpoint(converted(latest, tmp_path / "b.gguf")) as theirs:
            assert_same_tensors(ours, theirs)
            left, right = vocab_as_plain(ours.vocab), vocab_as_plain(theirs.vocab)
        if container == "ggml":  # has no scores: LLaMA's are taken
            assert left.pop("scores")[260:262] == [-1.0, -2.0]
            right.pop("scores")
        assert left == right


@pytest.mark.parametrize("container", ["ggml", "ggmf", "ggjt1"])
def test_every_container_of_2023_becomes_its_last_version(container: Any, tmp_path: Path) -> None:
    old = make_tiny(tmp_path / "old.bin", container=container, type=QuantType.F16)
    with open_checkpoint(old) as before, open_checkpoint(converted(old, tmp_path / "new.bin")) as after:
        assert after.container == "ggjt v3"
        assert_same_tensors(before, after)
        assert list(after.vocab.tokens) == list(before.vocab.tokens)


@pytest.mark.parametrize("version", ["gguf1", "gguf2"])
def test_old_gguf_becomes_version_3_with_all_it_says(version: Any, tmp_path: Path) -> None:
    old = make_tiny(tmp_path / "old.gguf", container=version, metadata={"some.count": 7, "some.text": "as it is"})
    with open_checkpoint(old) as before, open_checkpoint(converted(old, tmp_path / "new.gguf")) as after:
        assert after.container == "gguf v3"
        assert_same_tensors(before, after)
        assert vocab_as_plain(before.vocab) == vocab_as_plain(after.vocab)
        assert (after.metadata["some.count"], after.metadata["some.text"]) == (7, "as it is")


@pytest.mark.parametrize("type", [*LEGACY, *K_QUANTS], ids=lambda type: type.name)
def test_ggml_to_gguf_and_back_is_the_same_file(type: QuantType, tmp_path: Path) -> None:
    # The first pass brings the tensors into the order of 2023.
    first = converted(make_tiny(tmp_path / "tiny.bin", container="ggjt3", type=type), tmp_path / "first.bin")
    gguf = converted(first, tmp_path / "model.gguf")
    again = converted(gguf, tmp_path / "again.bin")
    assert again.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("vocab", ["bpe", "spm"])
@pytest.mark.parametrize("type", [QuantType.F32, QuantType.F16, QuantType.BF16], ids=lambda type: type.name)
def test_gguf_to_a_folder_and_back_is_the_identity(
    architecture: Architecture, vocab: Any, type: QuantType, tmp_path: Path
) -> None:
    first = make_tiny(
        tmp_path / "first.gguf",
        architecture=architecture,
        vocab=vocab,
        type=type,
        n_head_kv=2,
        tied=architecture == "qwen2",
        head_dim=32 if architecture == "qwen3" else None,
        metadata={f"{architecture}.rope.freq_base": 12345.0, "tokenizer.ggml.eot_token_id": 0},
    )
    folder = converted(first, tmp_path / "folder", max_shard_bytes=100_000)
    again = converted(folder, tmp_path / "again.gguf")
    with open_checkpoint(first) as before, open_checkpoint(again) as after:
        assert_same_tensors(before, after)
        assert vocab_as_plain(before.vocab) == vocab_as_plain(after.vocab)
        kept = {key: value for key, value in before.metadata.items() if key.startswith(architecture)}
        assert {key: after.metadata[key] for key in kept} == kept
        assert after.metadata["general.file_type"] == before.metadata["general.file_type"]
    assert np.array_equal(logits(first), logits(again))
    assert np.array_equal(logits(first), logits(folder))


@pytest.mark.parametrize("type", [QuantType.F32, QuantType.F16], ids=lambda type: type.name)
def test_ggml_to_gguf_to_a_folder_to_gguf_is_the_identity(type: QuantType, tmp_path: Path) -> None:
    first = converted(make_tiny(tmp_path / "old.bin", container="ggjt3", type=type), tmp_path / "first.gguf")
    again = converted(converted(first, tmp_path / "folder"), tmp_path / "again.gguf")
    with open_checkpoint(first) as before, open_checkpoint(again) as after:
        assert_same_tensors(before, after)
        assert vocab_as_plain(before.vocab) == vocab_as_plain(after.vocab)
    back = converted(again, tmp_path / "back.bin")
    old = converted(tmp_path / "old.bin", tmp_path / "ordered.bin")
    assert back.read_bytes() == old.read_bytes()


def test_the_factors_of_llama_3_1_survive_a_folder(tmp_path: Path) -> None:
    from selfee.weights.huggingface.config import Llama3Scaling

    first = make_tiny(tmp_path / "plain.gguf", metadata={"llama.rope.freq_base": 500000.0})
    factors = Llama3Scaling(32.0, 1.0, 4.0, 8192).factors(16, 500000.0)
    assert factors[0] == 1
    assert factors[-1] == 32
    assert 1 < factors[4] < 32
    scaled = tmp_path / "scaled.gguf"
    with open_checkpoint(first) as plain:
        tensors = [TensorData(name, info.shape, info.type, plain.read(name)) for name, info in plain.tensors.items()]
        tensors.append(TensorData("rope_freqs.weight", factors.shape, QuantType.F32, factors.view(np.uint8)))
        write_gguf(scaled, plain.metadata, tensors)
    folder = converted(scaled, tmp_path / "folder")
    with open_checkpoint(scaled) as before, open_checkpoint(converted(folder, tmp_path / "again.gguf")) as after:
        assert_same_tensors(before, after)


def test_factors_that_no_config_can_say_are_refused(tmp_path: Path) -> None:
    odd = make_tiny(tmp_path / "odd.gguf", rope_freqs=True)
    with pytest.raises(UnsupportedFileError, match=r"rope_freqs.weight.*convert to GGUF"):
        converted(odd, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(("heads", "size"), [(1, 8), (4, 16), (32, 128)])
def test_the_order_of_rows_is_its_own_inverse_and_keeps_heads_apart(heads: int, size: int) -> None:
    there, back = halves_to_neighbours(heads * size, heads), neighbours_to_halves(heads * size, heads)
    assert np.array_equal(there[back], np.arange(heads * size))
    assert np.array_equal(there // size, np.arange(heads * size) // size)
    assert there[:4].tolist() == [0, size // 2, 1, size // 2 + 1]


@pytest.mark.parametrize("type", ["f16", "bf16", "f32"])
def test_quantised_matrices_widen_to_the_values_that_they_mean(type: str, tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "q.gguf", type=QuantType.Q4_0)
    with open_checkpoint(source) as before, open_checkpoint(converted(source, tmp_path / "w.gguf", type=type)) as after:
        for name in NAMES:
            exact = dequantize(before.tensors[name].type, before.read(name))
            wide = dequantize(after.tensors[name].type, after.read(name))
            assert after.tensors[name].type.name == type.upper()
            assert np.abs(wide - exact).max() <= np.abs(exact).max() * {"f16": 2**-11, "bf16": 2**-8, "f32": 0}[type]
        assert after.tensors["output_norm.weight"].type is QuantType.F32


def test_a_folder_of_a_quantised_model_is_f16_and_says_so(tmp_path: Path) -> None:
    plan = convert(make_tiny(tmp_path / "q.gguf", type=QuantType.Q8_0), tmp_path / "folder")
    assert any("become F16" in note for note in plan.notes)
    with open_checkpoint(tmp_path / "folder") as folder:
        assert {tensor.type.name for name, tensor in folder.tensors.items() if "norm" not in name} == {"F16"}
    with pytest.raises(UsageError, match="f32, f16 or bf16"):
        converted(make_tiny(tmp_path / "f.gguf"), tmp_path / "other", type="q4_0")


@pytest.mark.parametrize("rules", list(RuleSet))
def test_a_folder_converts_to_a_mixture_as_the_file_would(rules: RuleSet, tmp_path: Path) -> None:
    first = make_tiny(tmp_path / "first.gguf", vocab="spm", type=QuantType.F16)
    folder = converted(first, tmp_path / "folder")
    direct = converted(first, tmp_path / "direct.gguf", type="q4_0", rules=RuleSet.CURRENT)
    through = converted(folder, tmp_path / "through.gguf", type="q4_0", rules=RuleSet.CURRENT)
    with open_checkpoint(direct) as one, open_checkpoint(through) as other:
        assert_same_tensors(one, other)
        assert {tensor.type.name for tensor in one.tensors.values()} >= {"Q4_0", "F32"}
    ggml = converted(folder, tmp_path / "model.bin", type="q5_1", rules=rules) if rules is RuleSet.JUNE_6 else None
    if ggml:
        with open_checkpoint(ggml) as old:
            assert old.metadata["general.file_type"] == 9
            assert {tensor.type.name for tensor in old.tensors.values()} == {"Q5_1", "F32"}


def test_quantising_twice_has_to_be_allowed(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "q.gguf", type=QuantType.Q8_0)
    with pytest.raises(UsageError, match="loses twice"):
        converted(source, tmp_path / "o.gguf", type="q4_0")
    converted(source, tmp_path / "o.gguf", type="q4_0", allow_requantize=True)


def test_what_ggml_does_not_store_is_said_by_options(tmp_path: Path) -> None:
    old = make_tiny(tmp_path / "old.bin", container="ggjt3")
    with open_checkpoint(converted(old, tmp_path / "a.gguf", epsilon=1e-5, context=4096)) as model:
        assert model.metadata["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
        assert model.metadata["llama.context_length"] == 4096
    with pytest.raises(UsageError, match=r"--eps.*stores its own"):
        converted(tmp_path / "a.gguf", tmp_path / "b.gguf", epsilon=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab": "bpe"}, "byte-level BPE.*convert to GGUF"),
        ({"architecture": "qwen2"}, "architecture qwen2"),
        ({"metadata": {"llama.rope.freq_base": 500000.0}}, "base 500000"),
        ({"metadata": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}}, "scales positions"),
        ({"rope_freqs": True}, "scales positions"),
        ({"head_dim": 32}, "heads of 32"),
        ({"type": QuantType.BF16}, "BF16.*--type f16"),
        ({"metadata": {"tokenizer.ggml.bos_token_id": 2}}, "not where LLaMA has them"),
    ],
)
def test_what_ggml_cannot_say_is_refused_by_name(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "in.gguf", **({"vocab": "spm"} | settings))
    with pytest.raises(UnsupportedFileError, match=message):
        converted(source, tmp_path / "out.bin")
    assert not (tmp_path / "out.bin").exists()


def test_tied_output_is_stored_twice_in_ggml(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "in.gguf", vocab="spm", tied=True, n_head_kv=2)
    plan = convert(source, tmp_path / "out.bin")
    assert any("second time" in note for note in plan.notes)
    assert any("-gqa 2" in note for note in plan.notes)
    with open_checkpoint(tmp_path / "out.bin") as old:
        assert old.read("output.weight").tobytes() == old.read("token_embd.weight").tobytes()
    # The epsilon is not stored in GGML, so only nearly the same is computed.
    assert np.abs(logits(source) - logits(tmp_path / "out.bin")).max() < 0.01


@pytest.mark.parametrize(
    ("n_embd", "n_ff", "multiple"),
    [(4096, 11008, 256), (5120, 13824, 256), (6656, 17920, 256), (8192, 22016, 256), (2048, 5632, 256), (64, 200, 40)],
)
def test_the_multiple_gives_the_feed_forward_width_back(n_embd: int, n_ff: int, multiple: int, tmp_path: Path) -> None:
    with open_checkpoint(make_tiny(tmp_path / "in.gguf", vocab="spm")) as source:
        hyper = ggml_target(claiming(source, embedding_length=n_embd, feed_forward_length=n_ff), 1).hyper
    assert hyper.n_mult == multiple
    assert feed_forward_length(n_embd, hyper.n_mult) == n_ff


def claiming(source: Checkpoint, **sizes: int) -> View:
    """The model with other sizes in its metadata."""
    changes = {f"llama.{key}": value for key, value in sizes.items()}
    return View(source, [Seen(name, name) for name in source.tensors], metadata={**source.metadata, **changes})


def test_80_layers_with_shared_heads_follow_the_rule_of_the_70b(tmp_path: Path) -> None:
    with open_checkpoint(make_tiny(tmp_path / "in.gguf", vocab="spm", n_layer=80, n_head=8, n_head_kv=1)) as source:
        hyper = ggml_target(claiming(source, feed_forward_length=224), 1).hyper
        assert feed_forward_length(64, hyper.n_mult, 1.3) == 224
        with pytest.raises(UnsupportedFileError, match="make it at least 221"):
            ggml_target(source, 1)
        hyper = ggml_target(claiming(source, embedding_length=8192, feed_forward_length=28672), 1).hyper
        assert hyper.n_mult == 4096  # as in the files of LLaMA 2 70B


def test_a_narrower_feed_forward_than_ggml_knows_is_refused(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "in.gguf", vocab="spm")
    with open_checkpoint(path) as source, pytest.raises(UnsupportedFileError, match=r"160 wide \(n_ff\)"):
        ggml_target(claiming(source, feed_forward_length=160), 1)


@pytest.mark.parametrize("target", ["out.gguf", "out.bin", "folder"])
@pytest.mark.parametrize("type", ["keep", "f16"])
def test_weights_that_are_no_numbers_are_refused_and_nothing_is_left(target: str, type: str, tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "in.gguf", vocab="spm")
    with open_checkpoint(source) as before:
        offset = before.tensors["blk.1.ffn_up.weight"].offset
    data = bytearray(source.read_bytes())
    data[offset + 4 * 70 : offset + 4 * 71] = np.float32(np.nan).tobytes()
    source.write_bytes(data)
    with pytest.raises(BadFileError, match=r"row 1, column 6"):
        converted(source, tmp_path / target, type=type)
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


def test_numbers_too_large_for_f16_are_refused(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "in.gguf")
    with open_checkpoint(source) as before:
        offset = before.tensors["blk.0.attn_q.weight"].offset
    data = bytearray(source.read_bytes())
    data[offset : offset + 4] = np.float32(70000).tobytes()
    source.write_bytes(data)
    with pytest.raises(BadFileError, match=r"attn_q.weight.*row 0, column 0.*F16"):
        converted(source, tmp_path / "out.gguf", type="f16")
    converted(source, tmp_path / "out.gguf", type="bf16")


def test_a_model_of_which_a_tensor_is_missing_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "in.gguf")
    with open_checkpoint(source) as whole:
        tensors = [TensorData(name, info.shape, info.type, whole.read(name)) for name, info in whole.tensors.items()]
        write_gguf(tmp_path / "part.gguf", whole.metadata, tensors[:-1])
    with pytest.raises(BadFileError, match="tensors are missing"):
        converted(tmp_path / "part.gguf", tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_a_file_is_replaced_whole_and_a_folder_only_by_force(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "in.gguf", vocab="spm")
    for name in ("out.gguf", "out.bin", "folder"):
        target = converted(source, tmp_path / name)
        if name == "folder":
            with pytest.raises(UsageError, match="--force"):
                converted(source, target)
        converted(source, target, force=name == "folder")
        with open_checkpoint(target) as there:
            assert len(there.tensors) == 21


def test_a_vocabulary_with_twins_is_refused(tmp_path: Path) -> None:
    old = make_tiny(tmp_path / "old.bin", container="ggjt3")
    data = old.read_bytes()
    twin = data.replace(b"\x03\x00\x00\x00###", b"\x03\x00\x00\x00 th", 1)
    assert twin != data
    old.write_bytes(twin)
    with pytest.raises(BadFileError, match="are both"):
        converted(old, tmp_path / "out.gguf")


def test_a_folder_can_be_moved_away_while_it_is_open(tmp_path: Path) -> None:
    folder = converted(make_tiny(tmp_path / "in.gguf"), tmp_path / "folder")
    with open_checkpoint(folder) as opened:
        before = hashes(opened)
        shutil.rmtree(folder)
        assert hashes(opened) == before


@pytest.mark.corpus
def test_the_vocabulary_of_a_real_ggml_file_becomes_that_of_the_real_gguf_file(corpus: Path) -> None:
    from selfee.weights.vocab_keys import raw_pieces, written_vocab

    with open_checkpoint(corpus / "vocab" / "ggml-vocab.bin") as old:
        with open_checkpoint(corpus / "vocab" / "ggml-vocab-llama-spm.gguf") as new:
            written = written_vocab(old.vocab)
            assert len(written.tokens) == 32000
            assert list(written.tokens) == list(new.vocab.tokens)
            assert list(written.scores or []) == list(new.vocab.scores or [])
            assert list(written.types or []) == list(new.vocab.types or [])
            assert raw_pieces("new", new.vocab) == (list(old.vocab.tokens), list(old.vocab.scores or []))
        assert isinstance(old, GgmlCheckpoint)
