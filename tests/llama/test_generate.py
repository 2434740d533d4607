"""Generation: the same tokens with any drafter, and a session that can be used afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import make_tiny

from selfee.errors import ContextOverflowError, UsageError
from selfee.llama.drafting import CopyDrafter, Draft, Drafter
from selfee.llama.generate import Token, generate
from selfee.llama.model import Model
from selfee.llama.sampling import Sampler, SamplerConfig
from selfee.weights.quants import QuantType

GREEDY = SamplerConfig(temperature=0)
CONFIGS = (
    GREEDY,
    SamplerConfig(temperature=1.5, seed=7),
    SamplerConfig(repeat_penalty=1.3, repeat_last_n=-1, seed=3),
    SamplerConfig(mirostat=2, mirostat_tau=3, seed=11),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = make_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", type=QuantType.Q8_0, n_head_kv=2)
    with Model.load(path, threads=2) as loaded:
        yield loaded


@dataclass
class Oracle:
    """Knows the answer, and is wrong at every ``wrong_every``-th guess."""

    answer: list[int]
    wrong_every: int = 10**9
    most: int = 10**9
    limits: list[int] = field(default_factory=list)
    text: list[int] = field(default_factory=list)

    def begin(self, tokens: Sequence[int]) -> None:
        self.text = list(tokens)

    def wrote(self, tokens: Sequence[int]) -> None:
        self.text += tokens

    def propose(self, limit: int) -> Draft:
        self.limits.append(limit)
        start = len(self.text)
        guesses = self.answer[start : start + min(limit, self.most) + 5 * (self.most > limit)]  # more than asked for
        wrong = [(g + 1) % 300 if i % self.wrong_every == self.wrong_every - 1 else g for i, g in enumerate(guesses)]
        return Draft(wrong, [1.0] * len(wrong))


def tokens_of(
    model: Model, prompt: list[int], config: SamplerConfig, drafter: Drafter | None, count: int
) -> list[Token]:
    return list(generate(model.new_session(), prompt, Sampler(config), drafter, count))


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 299), min_size=1, max_size=40),
    st.sampled_from(CONFIGS),
    st.integers(1, 9),
    st.integers(0, 40),
)
def test_a_drafter_changes_neither_tokens_nor_logits(
    model: Model, prompt: list[int], config: SamplerConfig, wrong_every: int, count: int
) -> None:
    plain = tokens_of(model, prompt, config, None, count)
    answer = prompt + [token.id for token in plain]
    for drafter in (Oracle(answer, wrong_every), CopyDrafter()):
        drafted = tokens_of(model, prompt, config, drafter, count)
        assert [token.id for token in drafted] == [token.id for token in plain]
        assert [token.logits.tobytes() for token in drafted] == [token.logits.tobytes() for token in plain]
    assert len(plain) == count


def test_right_guesses_are_counted_and_save_evaluations(model: Model) -> None:
    prompt = [1, 2, 3]
    answer = prompt + [token.id for token in tokens_of(model, prompt, GREEDY, None, 30)]
    oracle = Oracle(answer, most=8)
    drafted = tokens_of(model, prompt, GREEDY, oracle, 30)
    assert len(oracle.limits) == 4  # 30 tokens, nine an evaluation
    assert sum(token.verified for token in drafted) == 30 - 4
    assert sum(token.drafted for token in drafted) == 30 - 4


@settings(max_examples=30)
@given(st.integers(0, 25), st.integers(1, 6), st.booleans())
def test_closing_early_leaves_a_beginning_of_what_was_seen(
    model: Model, taken: int, wrong_every: int, with_drafter: bool
) -> None:
    prompt = [5, 6, 7, 8]
    answer = prompt + [token.id for token in tokens_of(model, prompt, GREEDY, None, 40)]
    session = model.new_session()
    stream = generate(session, prompt, Sampler(GREEDY), Oracle(answer, wrong_every) if with_drafter else None, 30)
    seen = prompt + [token.id for token in islice(stream, taken)]
    stream.close()
    assert session.length <= len(seen)
    if session.length:
        fresh = model.new_session()
        fresh.forward(seen[: session.length])
        assert session.forward([9]).tobytes() == fresh.forward([9]).tobytes()


def test_a_session_that_holds_the_prompt_gives_the_same_tokens(model: Model) -> None:
    prompt = list(range(20, 60))
    fresh = [token.id for token in tokens_of(model, prompt, GREEDY, None, 10)]
    for held in (0, 1, 20, 39, 40):
        session = model.new_session()
        if held:
            session.forward(prompt[:held])
        assert [token.id for token in generate(session, prompt, Sampler(GREEDY), None, 10)] == fresh


def test_a_text_cut_and_grown_again_is_the_same_text(model: Model) -> None:
    config = SamplerConfig(temperature=1.2, seed=99)
    session, sampler, prompt = model.new_session(), Sampler(config), [4, 5, 6]
    first = [token.id for token in generate(session, prompt, sampler, None, 25)]
    session.truncate(2)
    assert [token.id for token in generate(session, prompt, sampler, None, 25)] == first
    other = Sampler(SamplerConfig(temperature=1.2, seed=100))
    assert [token.id for token in generate(session, prompt, other, None, 25)] != first


def test_the_context_can_be_filled_to_its_last_token(model: Model) -> None:
    prompt = [1] * 500
    assert len(tokens_of(model, prompt, GREEDY, CopyDrafter(), 12)) == 12
    stream = generate(model.new_session(), prompt, Sampler(GREEDY), None, 14)
    with pytest.raises(ContextOverflowError):
        list(stream)


def test_an_empty_prompt_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="no tokens"):
        next(generate(model.new_session(), [], Sampler(GREEDY)))
