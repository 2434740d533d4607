"""The sampler of June 2023: where it was wrong it is wrong, elsewhere it keeps the tokens that ours keeps."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from selfee.errors import BadFileError
from selfee.llama.sampling import Sampler, SamplerConfig
from selfee.llama.sampling_2023 import Sampler2023

OFF: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


def logits_of(*p: float) -> npt.NDArray[np.float32]:
    logits: npt.NDArray[np.float32] = np.log(np.array(p)).astype(np.float32)
    return logits


def drawn(config: SamplerConfig, logits: npt.NDArray[np.float32], count: int = 3000) -> Counter[int]:
    tokens: Counter[int] = Counter()
    sampler = Sampler2023(config, 8)
    for _ in range(count):
        tokens[sampler.sample(logits)] += 1
    return tokens


def test_top_p_drops_the_token_that_crosses_but_never_all() -> None:
    logits = logits_of(0.4, 0.3, 0.2, 0.1)
    assert set(drawn(SamplerConfig(**OFF | {"top_p": 0.8}), logits)) == {0, 1}
    assert set(drawn(SamplerConfig(**OFF | {"top_p": 0.1}), logits)) == {0}


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"top_k": 3},
        {"tail_free_z": 0.5},
        {"typical_p": 0.5},
        {"mirostat": 2, "mirostat_tau": 1.5, "mirostat_eta": 0.0},
        {"mirostat": 1, "mirostat_tau": 1.5, "mirostat_eta": 0.0},
        {"top_k": 1, "repeat_penalty": 1.7, "frequency_penalty": 0.3, "presence_penalty": 0.2},
        {"temperature": 0.0, "logit_bias": {3: 5.0, 0: -math.inf}},
    ],
    ids=str,
)
def test_elsewhere_the_same_tokens_can_be_drawn(change: dict[str, Any]) -> None:
    config = SamplerConfig(**OFF | change | {"repeat_last_n": 8})
    logits = np.random.default_rng(5).normal(0, 2, 12).astype(np.float32)
    kept: tuple[set[int], set[int]] = (set(), set())
    for seed in range(400):
        settings = SamplerConfig(**{**vars(config), "seed": seed})
        samplers: tuple[Any, ...] = (Sampler2023(settings, 64), Sampler(settings))
        for sampler, tokens in zip(samplers, kept, strict=True):
            sampler.begin([1, 2, 2, 5, 7, 7, 7, 9])
            tokens.add(sampler.sample(logits))
    assert kept[0] == kept[1]


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    logits = logits_of(0.5, 0.3, 0.2)
    config = SamplerConfig(**OFF | {"seed": 3})
    tokens = drawn(config, logits)
    for token, p in enumerate((0.5, 0.3, 0.2)):
        assert tokens[token] / 3000 == pytest.approx(p, abs=0.03)
    assert tokens == drawn(config, logits)


def test_the_window_begins_full_of_token_0_and_the_newline_is_penalised() -> None:
    config = SamplerConfig(temperature=0, repeat_penalty=2.0, repeat_last_n=4, penalize_newline=False)
    logits = np.array([3.0, 2.0, 1.0], np.float32)
    sampler = Sampler2023(config, 8)
    sampler.begin([])
    assert sampler.sample(logits) == 1, "0 was never written"
    sampler.read([1, 1, 1])
    assert sampler.sample(logits) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_no_number_is_an_error(bad: float) -> None:
    with pytest.raises(BadFileError, match="damaged"):
        Sampler2023(SamplerConfig(), 8).sample(np.array([0.0, bad], np.float32))
