"""A run: interrupted anywhere it ends as if it had not been, and leaves a model that inference opens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny_hf import make_tiny_hf
from tests.train.chains import some_chains, write_chains

from selfee.errors import BadFileError, ResourceError, SelfeeError, UsageError
from selfee.train import run
from selfee.train.config import Precision, TrainConfig, preset
from selfee.train.run import plan, train
from selfee.train.state import states
from selfee.weights.adapter import read_adapter, with_adapter
from selfee.weights.huggingface.stored import DType
from selfee.weights.open import open_checkpoint
from selfee.weights.quantize import dequantize

torch = pytest.importorskip("torch", reason="torch is not installed; pip install 'selfee[train]'")
pytest.importorskip("peft", reason="peft is not installed")

FULL = preset("tiny", max_steps=6, global_batch=3, batch_size=2, save_minutes=0)
LORA = replace(FULL, lora_rank=2, lora_dropout=0.2)


class KilledError(Exception):
    """Stands for a process that ends without another word."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_tiny_hf(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_chains(tmp_path / "data.jsonl", some_chains(7))
    return tmp_path / "data.jsonl"


def killed_after(step: int) -> Any:
    def on_row(row: dict[str, Any]) -> None:
        if row["kind"] == "step" and row["step"] == step:
            raise KilledError  # after the step, before its state is saved

    return on_row


def log_of(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    timeless = ("step", "loss", "parts", "rate", "gradient", "epoch", "tokens")
    return [{name: row[name] for name in timeless} for row in rows if row["kind"] == "step"]


@pytest.mark.parametrize("config", [FULL, LORA], ids=["full", "lora"])
def test_a_run_killed_twice_ends_bit_for_bit_like_one_that_was_not(
    tmp_path: Path, model: Path, data: Path, config: TrainConfig
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(plan(model, data, whole, config))
    for step in (3, 5):
        with pytest.raises(KilledError):
            train(plan(model, data, broken, config), killed_after(step))
        assert states(broken)
    train(plan(model, data, broken, config))
    assert log_of(whole) == log_of(broken)
    assert [row["step"] for row in log_of(broken)] == [1, 2, 3, 4, 5, 6]
    first, second = (open_checkpoint(out / "model") for out in (whole, broken))
    for name in first.tensors:
        assert np.array_equal(first.read(name), second.read(name)), name
    assert not states(broken)


def test_a_trained_folder_is_opened_by_inference_and_keeps_what_lora_does_not_touch(tmp_path: Path, data: Path) -> None:
    model = tmp_path / "short"
    make_tiny_hf(model, dtype=DType.F16)  # bfloat16, in which the base is computed with, would lose bits of it
    config = replace(LORA, learning_rate=1e-2, precision=Precision.BF16)
    end = train(plan(model, data, tmp_path / "out", config))
    folder = Path(end["folder"])
    assert (folder / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    adapter = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_model_name_or_path"] == "short"
    for path in (tmp_path / "out").rglob("*.*"):  # nothing that goes to others tells where it was made
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes() or path.name == "log.jsonl", path
    modes = {(folder / name).stat().st_mode for name in ("model.safetensors", "config.json")}
    assert len(modes) == 1  # whoever may read the one may read the other
    base, trained = open_checkpoint(model), open_checkpoint(folder)
    first, second = ({n: (one.shape, one.type) for n, one in file.tensors.items()} for file in (base, trained))
    assert first == second
    assert not np.array_equal(base.read("blk.0.attn_q.weight"), trained.read("blk.0.attn_q.weight"))
    assert np.array_equal(base.read("token_embd.weight"), trained.read("token_embd.weight"))
    added = with_adapter(base, read_adapter(tmp_path / "out" / "adapter"))
    for name, info in trained.tensors.items():  # peft merges in 16 bits, we in more
        ours = dequantize(added.tensors[name].type, added.read(name))
        np.testing.assert_allclose(ours, dequantize(info.type, trained.read(name)), rtol=2e-3, atol=2e-3)


def test_validation_chains_are_looked_at_and_told_by_section(tmp_path: Path, model: Path) -> None:
    write_chains(tmp_path / "train.jsonl", some_chains(6))
    write_chains(tmp_path / "validation.jsonl", some_chains(2))
    rows: list[dict[str, Any]] = []
    train(plan(model, tmp_path, tmp_path / "out", replace(FULL, max_steps=2, validate_every=1)), rows.append)
    looked = [row for row in rows if row["kind"] == "validation"]
    assert [row["step"] for row in looked] == [1, 2]
    assert {"flawed", "revision", "verdict"} <= set(looked[0]["parts"])


def test_another_configuration_does_not_go_on_with_a_run(tmp_path: Path, model: Path, data: Path) -> None:
    with pytest.raises(KilledError):
        train(plan(model, data, tmp_path / "out", FULL), killed_after(2))
    with pytest.raises(UsageError, match=r"holds a run with learning_rate 0\.001, now it is 0\.002"):
        train(plan(model, data, tmp_path / "out", replace(FULL, learning_rate=0.002)))
    write_chains(data, some_chains(5))
    with pytest.raises(UsageError, match="holds a run with data "):
        train(plan(model, data, tmp_path / "out", FULL))


def test_a_finished_run_is_not_trained_over(tmp_path: Path, model: Path, data: Path) -> None:
    train(plan(model, data, tmp_path / "out", replace(FULL, max_steps=1)))
    with pytest.raises(UsageError, match="holds a finished run"):
        plan(model, data, tmp_path / "out", FULL)


def test_packing_reads_every_chain_in_fewer_rows(tmp_path: Path, model: Path, data: Path) -> None:
    eager = replace(FULL, lazy=False, max_length=512)
    one, packed = (plan(model, data, tmp_path / "out", replace(eager, pack=on)) for on in (False, True))
    assert len(one.feed) == 7
    assert len(packed.feed) < 7
    assert sum(len(row) for row in packed.feed.all()) == 7


def test_data_without_anything_to_learn_say_why(tmp_path: Path, model: Path, data: Path) -> None:
    short = replace(FULL, max_length=8)
    with pytest.raises(BadFileError, match=r"refused: prompt too long \(7\)"):
        plan(model, data, tmp_path / "out", replace(short, lazy=False))
    with pytest.raises(BadFileError, match="every chain is refused"):
        train(plan(model, data, tmp_path / "out", short))


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    tmp_path: Path, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_free_memory", lambda processes: 1 << 20)
    with pytest.raises(ResourceError, match="training it takes about"):
        plan(model, data, tmp_path / "out", FULL)


def test_what_is_no_hugging_face_folder_says_how_to_make_one(tmp_path: Path, data: Path) -> None:
    with pytest.raises(BadFileError, match="selfee convert"):
        plan(tmp_path, data, tmp_path / "out", FULL)


def test_a_context_or_vocabulary_that_does_not_fit_is_said_before_the_start(tmp_path: Path, data: Path) -> None:
    make_tiny_hf(tmp_path / "short", config={"max_position_embeddings": 128})
    with pytest.raises(UsageError, match="add --max-length 128"):
        plan(tmp_path / "short", data, tmp_path / "out", FULL)
    make_tiny_hf(tmp_path / "few", config={"vocab_size": 300})
    with pytest.raises(BadFileError, match="its embedding 300 rows"):
        plan(tmp_path / "few", data, tmp_path / "out", FULL)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_state(
    tmp_path: Path, model: Path, data: Path
) -> None:
    with pytest.raises(KilledError):
        train(plan(model, data, tmp_path / "out", replace(FULL, learning_rate=1e30)), killed_after(2))
    with pytest.raises(SelfeeError, match="try a lower --learning-rate"):
        train(plan(model, data, tmp_path / "out", replace(FULL, learning_rate=1e30)))
    assert states(tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()
