"""What a step costs in operations, counted a second way; and the share of the peak that the log tells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_hf import make_tiny_hf
from tests.train.chains import some_chains, write_chains

from selfee.train.config import TrainConfig, preset
from selfee.train.memory import estimate, shape_of
from selfee.train.speed import flops

TINY = preset("tiny", max_steps=2, global_batch=2, batch_size=2)


def test_operations_are_those_that_torch_counts(tmp_path: Path) -> None:
    """Torch counts products as they are made: the attention of every pair of tokens, where we count the seen half."""
    torch = pytest.importorskip("torch", reason="torch is not installed; pip install 'selfee[train]'")
    pytest.importorskip("peft", reason="peft is not installed")
    from torch.utils.flop_counter import FlopCounterMode

    from selfee.train.learner import Learner

    make_tiny_hf(tmp_path / "model")
    ids = torch.arange(40)[None] + 5
    for rank in (0, 4):
        config = replace(TINY, lora_rank=rank)
        model = Learner(tmp_path / "model", config).model
        model.config._attn_implementation = "eager"  # whose products it can see
        counter = FlopCounterMode(display=False)
        with counter:
            model(input_ids=ids).logits.sum().backward()
        shape = shape_of(tmp_path / "model")
        attention = 2 * shape.layers * shape.hidden * 40 * 40 * 3
        ours = flops(shape, config, 40, 40) + attention
        assert ours == pytest.approx(counter.get_total_flops(), rel=0.03), rank


def test_a_7b_model_needs_about_six_operations_a_weight_and_token(tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "model")
    shape = shape_of(tmp_path / "model")
    big = replace(shape, linear=((4096, 4096),) * 128 + ((4096, 11008),) * 96, vocabulary=32000, hidden=4096, layers=32)
    assert flops(big, TrainConfig(), 1, 2048) / 6.6e9 == pytest.approx(6.5, abs=0.3)
    assert flops(big, TrainConfig(lora_rank=16), 1, 2048) / 6.6e9 == pytest.approx(4.5, abs=0.3)


def test_the_share_of_the_peak_is_told_with_where_the_peak_is_from(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed; pip install 'selfee[train]'")
    from selfee.train.run import plan, train

    make_tiny_hf(tmp_path / "model")
    data = write_chains(tmp_path / "data.jsonl", some_chains(4))
    logs: list[list[dict[str, Any]]] = []
    for name, config in (("given", replace(TINY, peak_tflops=0.5)), ("measured", TINY)):
        train(plan(tmp_path / "model", data, tmp_path / name, config))
        lines = (tmp_path / name / "log.jsonl").read_text(encoding="utf-8").splitlines()
        logs.append([json.loads(line) for line in lines])
    assert [(log[0]["peak"]) for log in logs] == ["given", "measured"]
    assert logs[0][0]["peak_tflops"] == 0.5
    assert logs[1][0]["peak_tflops"] > 0
    for log in logs:
        assert all(0 < row["mfu"] < 1 for row in log if row["kind"] == "step")


def test_each_of_several_processes_needs_a_share_of_the_model_and_a_layer_put_together(tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "model")
    shape = replace(shape_of(tmp_path / "model"), parameters=7_000_000_000, layers=32)
    alone, one_of_eight = (estimate(shape, TrainConfig(), count) for count in (1, 8))
    assert one_of_eight.optimizer * 8 == alone.optimizer
    assert one_of_eight.gradients * 8 == alone.gradients
    assert one_of_eight.activations == alone.activations
    assert one_of_eight.total < alone.total
    together = estimate(shape, TrainConfig(keep_gathered=True), 8)
    assert together.weights == one_of_eight.weights + 4 * (sum(a * b for a, b in shape.linear) * 31 // 32)
