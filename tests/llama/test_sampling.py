"""The sampler chain: native equals its twin, each step does what it says, draws follow the probabilities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfee.engines.base import SAMPLER_ORDER, SamplingParams
from selfee.errors import BadFileError, UsageError
from selfee.llama.sampling import STEPS, Sampler, SamplerConfig
from selfee.llama.sampling_reference import ReferenceSampler, softmax, uniform

OFF: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


def logits_of(seed: int, count: int, spread: float, coarse: bool) -> npt.NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(0, spread, count)
    return (np.round(values) if coarse else values).astype(np.float32)  # coarse: many equal logits


configs = st.builds(
    SamplerConfig,
    temperature=st.sampled_from([0.0, 0.2, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 3, 40, 1000]),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    typical_p=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    tail_free_z=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    repeat_penalty=st.sampled_from([0.5, 1.0, 1.1, 2.0]),
    repeat_last_n=st.sampled_from([-1, 0, 3, 64]),
    frequency_penalty=st.sampled_from([-0.5, 0.0, 0.7]),
    presence_penalty=st.sampled_from([-0.5, 0.0, 0.7]),
    penalize_newline=st.booleans(),
    mirostat=st.sampled_from([0, 0, 1, 2]),
    mirostat_tau=st.sampled_from([0.0, 2.0, 5.0]),
    mirostat_eta=st.sampled_from([0.1, 1.0]),
    logit_bias=st.sampled_from([{}, {1: -math.inf, 2: 3.0}, {0: 100.0}, {10**6: 1.0}]),
    seed=st.integers(-(2**70), 2**70),
    samplers=st.lists(st.sampled_from(STEPS), max_size=9),
)


@settings(max_examples=300)
@given(
    configs,
    st.sampled_from([4, 30, 200]),
    st.sampled_from([0.01, 1.0, 5.0, 200.0]),
    st.booleans(),
    st.lists(st.integers(0, 3), max_size=70),
    st.integers(0, 2**32),
)
def test_native_chooses_the_same_tokens_as_its_twin(
    config: SamplerConfig, count: int, spread: float, coarse: bool, history: list[int], seed: int
) -> None:
    native, twin = Sampler(config, newline=2), ReferenceSampler(config, newline=2)
    native.begin(history)
    twin.begin(history)
    for step in range(4):
        logits = logits_of(seed + step, count, spread, coarse)
        assert native.sample(logits) == twin.sample(logits)


@settings(max_examples=60)
@given(
    configs,
    st.sampled_from([1.0, 5.0]),
    st.booleans(),
    st.lists(st.integers(0, 3000), max_size=70),
    st.integers(0, 2**32),
    st.sampled_from([0, 1, 2900, 3000]),
)
def test_a_few_tokens_picked_from_a_large_vocabulary_are_those_of_the_twin(
    config: SamplerConfig, spread: float, coarse: bool, history: list[int], seed: int, banned: int
) -> None:
    config = SamplerConfig(**{**vars(config), "top_k": min(config.top_k or 40, 40), "samplers": STEPS, "mirostat": 0})
    logits = logits_of(seed, 3000, spread, coarse)
    logits[np.random.default_rng(seed).permutation(3000)[:banned]] = -np.inf
    native, twin = Sampler(config, newline=2), ReferenceSampler(config, newline=2)
    native.begin(history)
    twin.begin(history)
    for _ in range(3 if banned < 3000 else 0):
        assert native.sample(logits) == twin.sample(logits)
    if banned == 3000:
        with pytest.raises(BadFileError, match="banned"):
            native.sample(logits)


@pytest.mark.parametrize("change", [{"temperature": 0.0}, {"top_k": 5}, {"top_k": 0}], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 63, 64, 2000, 2999])
def test_a_logit_that_is_no_number_is_found_wherever_it_stands(change: dict[str, Any], bad: float, at: int) -> None:
    logits = logits_of(1, 3000, 1.0, False)
    logits[at] = bad
    with pytest.raises(BadFileError, match=f"token {at} is"):
        Sampler(SamplerConfig(**change)).sample(logits)


def draws(config: SamplerConfig, logits: Sequence[float], count: int, history: Sequence[int] = ()) -> Counter[int]:
    """Tokens drawn from the same logits by ``count`` different seeds."""
    row = np.array(logits, dtype=np.float32)
    found: Counter[int] = Counter()
    for seed in range(count):
        sampler = Sampler(SamplerConfig(**{**vars(config), "seed": seed}))
        sampler.begin(history)
        found[sampler.sample(row)] += 1
    return found


def logits_for(*probabilities: float) -> list[float]:
    return [math.log(p) if p else -math.inf for p in probabilities]


def test_draws_follow_the_probabilities() -> None:
    probabilities = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    found = draws(SamplerConfig(**OFF), logits_for(*probabilities), 5000)
    expected = probabilities * 5000
    chi_square = sum((found[token] - expected[token]) ** 2 / expected[token] for token in range(5))
    assert chi_square < 18.5  # exceeded once in a thousand with four degrees of freedom; the seeds are fixed


def test_draws_of_one_seed_follow_the_probabilities_too() -> None:
    sampler, row = Sampler(SamplerConfig(**OFF, seed=5)), np.array(logits_for(0.5, 0.25, 0.25), dtype=np.float32)
    found = Counter(sampler.sample(row) for _ in range(4000))
    chi_square = sum((found[t] - 4000 * p) ** 2 / (4000 * p) for t, p in enumerate((0.5, 0.25, 0.25)))
    assert chi_square < 13.9  # once in a thousand with two degrees of freedom


def test_random_numbers_are_spread_evenly_over_seeds_and_draws() -> None:
    numbers = np.array([[uniform(seed, draw) for draw in range(100)] for seed in range(100)])
    assert ((numbers >= 0) & (numbers < 1)).all()
    for values in (numbers.ravel(), np.diff(numbers, axis=0).ravel() % 1, np.diff(numbers, axis=1).ravel() % 1):
        counts = np.histogram(values, bins=20, range=(0, 1))[0]
        expected = len(values) / 20
        assert ((counts - expected) ** 2 / expected).sum() < 43.8  # once in a thousand with 19 degrees of freedom


def test_temperature_zero_takes_the_most_likely_and_of_equals_the_first() -> None:
    sampler = Sampler(SamplerConfig(temperature=0))
    assert sampler.sample(np.array([1, 3, 2, 3], dtype=np.float32)) == 1


def test_a_higher_temperature_flattens() -> None:
    logits = logits_for(0.8, 0.1, 0.1)
    cold, hot = (draws(SamplerConfig(**OFF | {"temperature": t}), logits, 500)[0] for t in (0.3, 3.0))
    assert cold > 480
    assert hot < 300


P = (0.5, 0.2, 0.15, 0.1, 0.05)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 1}, {0}),
        ({"top_p": 0.69}, {0, 1}),  # 0.5 + 0.2 crosses 0.69, and the token that crosses stays
        ({"top_p": 0.71}, {0, 1, 2}),
        ({"top_p": 0.0}, {0}),
        ({"min_p": 0.25}, {0, 1, 2}),
        ({"min_p": 1.0}, {0}),
        # Entropy 1.33 nats; surprises 0.69 1.61 1.90 2.30 3.00: closest first are 1, 2, 0.
        ({"typical_p": 0.1}, {1}),
        ({"typical_p": 0.3}, {1, 2}),
        ({"typical_p": 0.4}, {0, 1, 2}),
        # Slopes 0.3 0.05 0.05 0.05, curvatures 0.25 0 0: all of it is used at the first.
        ({"tail_free_z": 0.9}, {0}),
        ({"top_k": 3, "min_p": 0.35}, {0, 1}),
        ({"logit_bias": {0: -math.inf}}, {1, 2, 3, 4}),
        ({"logit_bias": {4: 50.0}}, {4}),
    ],
    ids=str,
)
def test_each_step_keeps_what_it_says(change: dict[str, Any], kept: set[int]) -> None:
    assert set(draws(SamplerConfig(**OFF | change), logits_for(*P), 400)) == kept


def test_steps_apply_in_the_order_given() -> None:
    # 0.4 0.3 0.3: top-p 0.65 keeps two of three; after top-k 2 (0.57 0.43) it keeps both as well, but 0.55 only one.
    logits = logits_for(0.4, 0.3, 0.3)
    first_k = SamplerConfig(**OFF | {"top_k": 2, "top_p": 0.55}, samplers=("top_k", "top_p"))
    first_p = SamplerConfig(**OFF | {"top_k": 2, "top_p": 0.55}, samplers=("top_p", "top_k"))
    assert set(draws(first_k, logits, 200)) == {0}
    assert set(draws(first_p, logits, 200)) == {0, 1}


def test_a_step_left_out_of_the_list_is_not_applied() -> None:
    assert set(draws(SamplerConfig(temperature=1.0, top_k=1, samplers=()), logits_for(*P), 400)) == {0, 1, 2, 3, 4}


def greedy_after(history: list[int], logits: list[float], newline: int | None = None, **changes: Any) -> int:
    sampler = Sampler(SamplerConfig(temperature=0, **changes), newline)
    sampler.begin(history)
    return sampler.sample(np.array(logits, dtype=np.float32))


def test_the_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    assert greedy_after([0], [3.0, 2.0], repeat_penalty=1.4) == 0  # 2.14
    assert greedy_after([0], [3.0, 2.0], repeat_penalty=1.6) == 1  # 1.88
    assert greedy_after([0, 0, 0], [3.0, 2.0], repeat_penalty=1.4) == 0  # once, however often it occurred
    assert greedy_after([0], [-1.0, -1.3], repeat_penalty=1.4) == 1  # -1.4


def test_frequency_counts_occurrences_and_presence_does_not() -> None:
    assert greedy_after([0, 0], [3.0, 2.0], frequency_penalty=0.4) == 0
    assert greedy_after([0, 0, 0], [3.0, 2.0], frequency_penalty=0.4) == 1
    assert greedy_after([0, 0, 0], [3.0, 2.0], presence_penalty=0.9) == 0
    assert greedy_after([0], [3.0, 2.0], presence_penalty=1.1) == 1


def test_penalties_look_at_the_last_tokens_only_and_at_the_prompt_too() -> None:
    assert greedy_after([0, 1, 1], [3.0, 2.0, 0.0], repeat_penalty=2, repeat_last_n=2) == 0
    assert greedy_after([0, 1, 1], [3.0, 2.0, 0.0], repeat_penalty=5, repeat_last_n=3) == 0  # both are penalised
    assert greedy_after([0, 2, 2], [3.0, 2.0, 0.0], repeat_penalty=2, repeat_last_n=3) == 1
    assert greedy_after([0, 2, 2], [3.0, 2.0, 0.0], repeat_penalty=2, repeat_last_n=-1) == 1
    assert greedy_after([0, 2, 2], [3.0, 2.0, 0.0], repeat_penalty=2, repeat_last_n=0) == 0


def test_a_drawn_token_is_penalised_at_the_next_draw() -> None:
    sampler, row = Sampler(SamplerConfig(temperature=0, presence_penalty=2.0)), np.array([3, 2, 1.5], dtype=np.float32)
    sampler.begin([])
    assert [sampler.sample(row) for _ in range(4)] == [0, 1, 2, 0]


def test_newline_can_be_spared() -> None:
    assert greedy_after([0], [3.0, 2.0], newline=0, repeat_penalty=5.0) == 1
    assert greedy_after([0], [3.0, 2.0], newline=0, repeat_penalty=5.0, penalize_newline=False) == 0


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_steers_the_average_surprise_to_its_target(version: int) -> None:
    logits = (-1.2 * np.log(np.arange(1, 501))).astype(np.float32)  # Zipf: left alone, 5.8 bits
    p = softmax(dict(enumerate(logits.tolist())))
    means = []
    for target in (1.0, 3.0):
        sampler = ReferenceSampler(SamplerConfig(temperature=1.0, mirostat=version, mirostat_tau=target, seed=1))
        drawn = [sampler.sample(logits) for _ in range(400)]
        # Each draw moves mu by eta x (target - surprise): where mu stays put, the average surprise is the target.
        assert abs(sampler._mu - 2 * target) / (0.1 * 400) < 0.25
        means.append(np.mean([-math.log2(p[token]) for token in drawn[100:]]))
    assert means[0] + 1 < means[1] < 5.8


def test_beginning_again_forgets_draws_history_and_mirostat() -> None:
    config = SamplerConfig(mirostat=2, repeat_penalty=1.2, seed=4)
    sampler, rows = Sampler(config), [logits_of(seed, 50, 2.0, coarse=False) for seed in range(20)]
    sampler.begin([1, 2])
    first = [sampler.sample(row) for row in rows]
    sampler.begin([1, 2])
    assert [sampler.sample(row) for row in rows] == first


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error_and_not_a_token(wrong: float, temperature: float) -> None:
    with pytest.raises(BadFileError, match="logit of token 1"):
        Sampler(SamplerConfig(temperature=temperature)).sample(np.array([1, wrong, 2], dtype=np.float32))


@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {}, {"mirostat": 1}, {"mirostat": 2}, {"top_k": 0}])
def test_banning_every_token_is_an_error(changes: dict[str, Any]) -> None:
    config = SamplerConfig(**changes, logit_bias={0: -math.inf, 1: -math.inf})
    with pytest.raises(BadFileError, match="banned"):
        Sampler(config).sample(np.array([1, 2], dtype=np.float32))


@pytest.mark.parametrize(
    "wrong",
    [
        {"samplers": ("top_q",)},
        {"logit_bias": {1: math.nan}},
        {"logit_bias": {1: math.inf}},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"repeat_penalty": 0.0},
        {"mirostat": 3},
        {"min_p": 1.5},
        {"min_p": math.inf},
        {"typical_p": -0.5},
        {"typical_p": math.nan},
        {"top_p": math.nan},
        {"tail_free_z": -1.0},
    ],
    ids=str,
)
def test_senseless_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SamplerConfig(**wrong)


def test_the_settings_are_those_of_a_request() -> None:
    config, params = vars(SamplerConfig()), vars(SamplingParams())
    assert set(config) == set(params)
    assert {key: value for key, value in config.items() if key != "seed"} == {
        key: value for key, value in params.items() if key != "seed"
    }
    assert tuple(STEPS) == tuple(SAMPLER_ORDER)


@settings(max_examples=60)
@given(configs, st.lists(st.integers(0, 3), max_size=9), st.integers(0, 2**32))
def test_tokens_read_in_between_join_the_history_and_change_no_draw(
    config: SamplerConfig, read: list[int], seed: int
) -> None:
    native, twin = Sampler(config, newline=2), ReferenceSampler(config, newline=2)
    for step in range(3):
        logits = logits_of(seed + step, 30, 3.0, False)
        assert native.sample(logits) == twin.sample(logits)
        native.read(read)
        twin.read(read)
