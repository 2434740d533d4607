"""Settings of training: the published recipe, presets, and errors that name the setting."""

from __future__ import annotations

from typing import Any

import pytest

from selfee.errors import UsageError
from selfee.train.config import Precision, TrainConfig, preset


def test_the_presets_for_real_models_are_the_published_recipe() -> None:
    for name in ("7b", "13b"):
        config = preset(name)
        assert (config.global_batch, config.learning_rate, config.epochs, config.max_length) == (128, 2e-5, 3, 2048)
        assert (config.weight_decay, config.warmup, config.precision) == (0, 0.03, Precision.BF16)
        assert config.tf32
        assert config.gradient_checkpointing
        assert config.lazy


def test_what_is_given_wins_over_the_preset() -> None:
    assert preset("tiny", max_length=64).max_length == 64
    assert preset("tiny").learning_rate == 1e-3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size: is 0; expected at least 1"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"warmup": 1.0}, "warmup"),
        ({"pack": True}, "--no-lazy"),
        ({"weights": ("flaw=0",)}, "flaw=0"),
        ({"epoch": 2}, "'epoch' is no setting"),
    ],
)
def test_a_value_out_of_range_is_an_error_that_names_it(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        preset("", **values)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="7b, 13b, tiny"):
        preset("70b")


def test_the_rate_rises_to_its_highest_and_falls_to_almost_nothing() -> None:
    config = TrainConfig(warmup=0.1)
    rates = [config.rate(step, 100) for step in range(100)]
    assert rates[0] == 0
    assert rates[10] == config.learning_rate == max(rates)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001 * config.learning_rate


def test_steps_are_counted_from_rows_and_epochs() -> None:
    assert TrainConfig(global_batch=128).steps(178_000) == 4172
    assert TrainConfig(max_steps=7).steps(178_000) == 7
    assert TrainConfig().steps(1) == 1
