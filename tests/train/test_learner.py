"""What is learned, measured on a tiny model: packing, batch size and checkpointing change nothing; weights do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_hf import make_tiny_hf
from tests.train.chains import some_chains, tiny_tokenizer

from selfee.errors import ResourceError
from selfee.train.config import Precision, TrainConfig, preset
from selfee.train.dataset import Example, encode_lesson, parse_weights
from selfee.train.feed import Feed
from selfee.train.learner import Learner
from selfee.train.lessons import Objective, lessons_of
from selfee.train.memory import estimate, require_room, shape_of
from selfee.train.packing import attention_mask

torch = pytest.importorskip("torch", reason="torch is not installed; pip install 'selfee[train]'")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TINY = preset("tiny", batch_size=3)


def rows_of(count: int = 6, weights: Sequence[str] = ()) -> list[list[Example]]:
    return [
        [encode_lesson(lesson, tiny_tokenizer("bpe"), parse_weights(weights), 512)]
        for chain in some_chains(count)
        for lesson in lessons_of(chain, Objective.FULL)
    ]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    make_tiny_hf(folder)
    return folder


def gradients(learner: Learner, rows: list[list[Example]]) -> tuple[float, dict[str, Any]]:
    """Loss and gradient of a step, taken before the optimiser clears it."""
    kept: dict[str, Any] = {}
    optimizer = learner.optimizer
    step = optimizer.step
    optimizer.step = lambda: kept.update({n: p.grad.clone() for n, p in learner.parameters().items()})
    try:
        losses, _ = learner.step(rows, 0.0)
    finally:
        optimizer.step = step
    return losses.mean, kept


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_packed_and_unpacked_rows_give_the_same_loss_and_gradient(model: Path) -> None:
    rows = rows_of()
    packed = [[row[0] for row in rows[:4]], [row[0] for row in rows[4:]]]
    learner = Learner(model, TINY)
    (loss, plain), (packed_loss, dense) = gradients(learner, rows), gradients(learner, packed)
    assert packed_loss == pytest.approx(loss, abs=1e-6)
    assert same(plain, dense)


def test_packing_with_neighbours_in_sight_would_be_another_loss(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of()
    learner = Learner(model, TINY)
    loss = learner.measure(rows).mean
    monkeypatch.setattr("selfee.train.learner.attention_mask", lambda segments: attention_mask(segments > 0))
    assert abs(learner.measure([[row[0] for row in rows]]).mean - loss) > 1e-4


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("rank", [0, 4])
def test_what_only_saves_memory_changes_neither_loss_nor_gradient(
    model: Path, change: dict[str, Any], rank: int
) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    rows, config = rows_of(), replace(TINY, lora_rank=rank)
    loss, plain = gradients(Learner(model, config), rows)
    other, changed = gradients(Learner(model, replace(config, **change)), rows)
    assert any(float(value.abs().max()) > 1e-4 for value in plain.values())
    assert other == pytest.approx(loss, abs=1e-6)
    assert same(plain, changed)


def test_a_masked_section_is_not_learned_and_its_loss_still_told(model: Path) -> None:
    learner = Learner(model, TINY)
    whole, masked = learner.measure(rows_of()), learner.measure(rows_of(weights=["flawed=0"]))
    assert masked.by_part == pytest.approx(whole.by_part)
    assert set(whole.by_part) == {"answer", "flawed", "feedback", "verdict", "revision", "end"}
    assert masked.weight == whole.weight - whole.counts[2]
    total = sum(whole.sums[1:]) - whole.sums[2]
    assert masked.mean == pytest.approx(total / masked.weight, rel=1e-5)


def test_a_weight_of_two_counts_a_section_twice(model: Path) -> None:
    losses = Learner(model, TINY).measure(rows_of(weights=["verdict=2"]))
    place = list(losses.by_part).index("verdict") + 1
    expected = (sum(losses.sums[1:]) + losses.sums[place]) / (sum(losses.counts[1:]) + losses.counts[place])
    assert losses.mean == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("rank", [0, 4])
def test_a_model_learns_its_rows_by_heart(model: Path, precision: Precision, rank: int) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    rate = 1e-2 if rank else 3e-3
    learner = Learner(model, replace(TINY, precision=precision, lora_rank=rank, learning_rate=rate))
    rows = rows_of(3)
    losses = [learner.step(rows, rate)[0].mean for _ in range(12)]
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("rank", [0, 4])
def test_the_estimate_counts_what_torch_counts(model: Path, rank: int) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    config = replace(TINY, lora_rank=rank)
    learner = Learner(model, config)
    memory = estimate(shape_of(model), config)
    assert memory.trained == sum(value.numel() for value in learner.parameters().values())


def test_too_little_memory_is_said_before_anything_is_loaded_with_what_to_change(model: Path) -> None:
    config = TrainConfig(batch_size=8)
    memory = estimate(shape_of(model), config)
    require_room(model, memory, memory.total, config)
    require_room(model, memory, None, config)
    advice = "are free; expected less; try --batch-size 4 or --lora-rank 16 or --max-length 1024"
    with pytest.raises(ResourceError, match=advice):
        require_room(model, memory, memory.total - 1, config)


def test_the_learning_rates_are_those_of_transformers() -> None:
    config = TrainConfig(learning_rate=0.5, warmup=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, 3, 30)
    for step in range(30):
        assert config.rate(step, 30) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_an_epoch_is_each_row_once_and_the_next_has_another_order() -> None:
    from selfee.train.dataset import Dataset, Weights
    from selfee.train.records import Sourced

    sourced = [Sourced(str(number), chain) for number, chain in enumerate(some_chains(8))]
    dataset = Dataset(sourced, tiny_tokenizer("bpe"), Objective.FULL, Weights(), 512)
    feed = Feed(dataset, TINY)
    first, position = feed.take(0, 8)
    second, position = feed.take(position, 8)
    orders = [[row[0].where for row in rows] for rows in (first, second)]
    assert position == 16
    assert sorted(orders[0]) == sorted(orders[1]) == [str(number) for number in range(8)]
    assert orders[0] != orders[1]
    assert [row[0].where for row in Feed(dataset, TINY).take(5, 6)[0]] == orders[0][5:] + orders[1][:3]
