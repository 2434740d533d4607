"""GPTQ is handed over: what does not fit is refused first, what goes wrong leaves nothing, what comes out is GPTQ's."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from selfee.errors import BadFileError, MissingExtraError, ResourceError, UsageError
from selfee.weights.huggingface import gptq
from selfee.weights.huggingface.gptq import calibration_pieces, export_gptq

SENTENCE = "The sky is blue because the air scatters short waves of light more than long ones, day and night. "


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    path = tmp_path / "prose.txt"
    path.write_text(SENTENCE * 400, encoding="utf-8")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What looks like a Hugging Face folder from outside."""
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(8))
    return folder


def pretend_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A gptqmodel on the path of this process and its children: a few lines of Python in place of a gigabyte."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "gptqmodel.py").write_text(body)
    known = os.environ.get("PYTHONPATH", "")
    here = str(Path(gptq.__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), here, known]))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])


WORKS = """
import json, os, pathlib
class QuantizeConfig:
    def __init__(self, **fields): self.fields = fields
class GPTQModel:
    @classmethod
    def load(cls, source, config, trust_remote_code):
        assert trust_remote_code is False
        model = cls(); model.source = source; model.config = config
        print("loading", source)
        return model
    def quantize(self, pieces, batch_size): self.count = len(pieces)
    def save(self, out):
        pathlib.Path("logs").mkdir()
        values = self.config.fields | {"pieces": self.count, "offline": os.environ["HF_HUB_OFFLINE"]}
        pathlib.Path(out, "quantize_config.json").write_text(json.dumps(values))
        pathlib.Path(out, "model.safetensors").write_bytes(b"weights")
"""


def test_without_the_library_the_extra_is_named(source: Path, prose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gptq, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'selfee\[gptq\]'"):
        export_gptq(source, source.parent / "out", calibration=prose)
    assert not (source.parent / "out").exists()


def test_the_library_gets_what_was_asked_for_and_its_folder_appears_whole(
    tmp_path: Path, source: Path, prose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_library(tmp_path, monkeypatch, WORKS)
    heard: list[str] = []
    export_gptq(source, tmp_path / "out", calibration=prose, bits=8, group_size=32, on_line=heard.append)
    found = json.loads((tmp_path / "out" / "quantize_config.json").read_text())
    assert found == {"bits": 8, "group_size": 32, "pieces": len(calibration_pieces(prose)), "offline": "1"}
    assert heard == [f"loading {source}"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.safetensors", "quantize_config.json"]
    assert not list(tmp_path.glob(".*"))


def test_a_library_that_gives_up_leaves_nothing_and_its_last_words_are_shown(
    tmp_path: Path, source: Path, prose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_library(tmp_path, monkeypatch, "raise SystemExit('no such\\x1b[31m architecture')")
    with pytest.raises(ResourceError, match=r"exit code 1; it said: no such\\x1b\[31m architecture"):
        export_gptq(source, tmp_path / "out", calibration=prose)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_library_that_writes_no_weights_is_an_error(
    tmp_path: Path, source: Path, prose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_library(tmp_path, monkeypatch, WORKS.replace("model.safetensors", "model.txt"))
    with pytest.raises(ResourceError, match="no weights"):
        export_gptq(source, tmp_path / "out", calibration=prose)
    assert not (tmp_path / "out").exists()


def test_words_that_do_not_fit_are_refused_first(tmp_path: Path, source: Path, prose: Path) -> None:
    for wrong in ({"bits": 5}, {"group_size": 100}):
        with pytest.raises(UsageError, match="expected one of"):
            export_gptq(source, tmp_path / "out", calibration=prose, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is a file"):
        export_gptq(source / "config.json", tmp_path / "out", calibration=prose)
    with pytest.raises(BadFileError, match=r"no config\.json"):
        export_gptq(tmp_path, tmp_path / "out", calibration=prose)
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(BadFileError, match="no safetensors"):
        export_gptq(source, tmp_path / "out", calibration=prose)


def test_a_folder_that_is_there_is_not_overwritten(
    tmp_path: Path, source: Path, prose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_library(tmp_path, monkeypatch, WORKS)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        export_gptq(source, tmp_path / "out", calibration=prose)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("data", "words"), [(b"short", "longer text"), (b"\xff\xfe" * 9, "no UTF-8"), (None, "no such")]
)
def test_a_text_that_teaches_nothing_is_refused(tmp_path: Path, data: bytes | None, words: str) -> None:
    path = tmp_path / "text"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=words):
        calibration_pieces(path)


def test_a_long_text_is_sampled_from_all_over(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("".join(f"{number:07} " for number in range(300_000)), encoding="utf-8")
    pieces = calibration_pieces(path)
    assert 128 < len(pieces) <= 256
    assert pieces[0].startswith("0000000")
    assert int(pieces[-1].split()[1]) > 290_000


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gptqmodel") is None, reason="GPTQModel is not installed (extra gptq)")
def test_the_real_library_quantises_a_tiny_model(tmp_path: Path, prose: Path) -> None:
    folder = tiny_hugging_face_folder(tmp_path / "hf")
    export_gptq(folder, tmp_path / "out", calibration=prose, group_size=64)
    config = json.loads((tmp_path / "out" / "quantize_config.json").read_text())
    assert (config["bits"], config["group_size"]) == (4, 64)
    raw = (tmp_path / "out" / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    packed = header["model.layers.0.mlp.down_proj.qweight"]
    assert packed["dtype"] == "I32"
    assert np.prod(packed["shape"]) * 8 == 256 * 128  # eight values of four bits a word


def tiny_hugging_face_folder(folder: Path) -> Path:
    """A LLaMA of two layers with a byte-level tokenizer, made by transformers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([SENTENCE], trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    config = transformers.LlamaConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, vocab_size=400,
        bos_token_id=0, eos_token_id=1, max_position_embeddings=2048,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).to(torch.float16).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
