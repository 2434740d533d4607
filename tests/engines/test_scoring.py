"""Scores of token sequences are those of the plain forward pass, whatever was asked before or is asked beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.test_local import PIECES, ToyRuntime, ToySession
from tests.tiny import make_tiny

from selfee.engines.cancelling import Cancellation
from selfee.engines.growing import log_softmax
from selfee.engines.local import LocalEngine
from selfee.engines.runtime import load_runtime
from selfee.engines.scoring import ScoredSequence, ScoringRequest, TokenScoringEngine, token_scoring_of
from selfee.engines.scripted import ScriptedEngine
from selfee.errors import ContextOverflowError, EngineError, UsageError
from selfee.llama.reference import ReferenceSession
from selfee.weights.open import open_checkpoint

TOKENS = st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=12).map(tuple)
REQUESTS = st.builds(ScoringRequest, TOKENS, st.integers(0, 14), st.integers(0, 4))


def plain(request: ScoringRequest) -> list[tuple[int, float | None, bool, list[int]]]:
    """The definition: every row of one fresh session, looked at one by one."""
    rows = ToySession().forward(request.tokens, "all")
    found: list[tuple[int, float | None, bool, list[int]]] = []
    for position in range(len(request.tokens) + 1):
        is_next = position == len(request.tokens)
        token = int(rows[-1].argmax()) if is_next else request.tokens[position]
        if position == 0 or (position < request.since and not is_next):
            found.append((token, None, False, []))
            continue
        row = rows[position - 1]
        order = sorted(range(row.size), key=lambda one: (-row[one], one))
        found.append((token, float(log_softmax(row)[token]), order[0] == token, order[: request.top]))
    return found


def told(scored: ScoredSequence) -> list[tuple[int, float | None, bool, list[int]]]:
    return [
        (each.token, each.logprob, each.is_greedy, [token for token, _, _ in each.top])
        for each in (*scored.tokens, scored.next)
    ]


@given(st.lists(REQUESTS, max_size=8), st.integers(1, 3), st.booleans(), st.lists(REQUESTS, max_size=3))
def test_scores_are_those_of_one_fresh_pass_whatever_is_asked_together(
    batch: list[ScoringRequest], parallel: int, reuse: bool, before: list[ScoringRequest]
) -> None:
    engine = LocalEngine(ToyRuntime(), parallel=parallel, reuse=reuse)
    engine.score_tokens(before)
    assert [told(scored) for scored in engine.score_tokens(batch)] == [plain(request) for request in batch]


def test_what_choices_share_is_read_once() -> None:
    runtime = ToyRuntime()
    engine = LocalEngine(runtime)
    prompt = tuple([4, 5, 6] * 10)
    scored = engine.score_tokens([ScoringRequest((*prompt, choice)) for choice in (4, 5, 6, 7)])
    assert sum(each.evaluated for each in scored) == sum(session.evaluated for session in runtime.sessions)
    assert sorted(each.evaluated for each in scored) == [2, 2, 2, 31]  # the last token of the prompt, and the choice


def test_asked_one_after_another_the_prompt_is_not_read_again_either() -> None:
    engine = LocalEngine(ToyRuntime())
    prompt = tuple([4, 5, 6] * 10)
    evaluated = [engine.score_tokens([ScoringRequest((*prompt, choice))])[0].evaluated for choice in (4, 5, 4)]
    assert evaluated == [31, 2, 0]


def test_ends_of_several_sequences_go_through_the_model_together() -> None:
    runtime = ToyRuntime()
    engine = LocalEngine(runtime, parallel=4)
    engine.score_tokens([ScoringRequest((4, 5, 6, choice)) for choice in (4, 5, 6, 7, 8)])
    assert runtime.passes == 1


def test_a_continuation_before_a_given_position_costs_no_scores() -> None:
    scored = LocalEngine(ToyRuntime()).score_tokens([ScoringRequest((0, 4, 5, 6), since=3)])[0]
    assert [each.logprob is None for each in scored.tokens] == [True, True, True, False]
    total, greedy = scored.total(3)
    assert total == scored.tokens[3].logprob
    assert greedy is scored.tokens[3].is_greedy
    with pytest.raises(UsageError, match="position 2 not every token is scored"):
        scored.total(2)


def test_a_batch_that_is_given_up_goes_no_further() -> None:
    cancellation = Cancellation()

    class Watched(ToyRuntime):
        def piece(self, token: int) -> str:  # asked for once the first scores are there
            cancellation.set()
            return super().piece(token)

    runtime = Watched()
    engine = LocalEngine(runtime)
    batch = [ScoringRequest((4 + number, *[4, 5, 6] * 9), cancellation=cancellation) for number in range(4)]
    with pytest.raises(EngineError, match="given up"):
        engine.score_tokens(batch)
    assert sum(session.evaluated for session in runtime.sessions) == 28
    assert engine.score_tokens([ScoringRequest(batch[1].tokens)])  # and the next may begin


def test_tokens_that_cannot_be_scored_are_refused_before_anything_is_computed() -> None:
    runtime = ToyRuntime(context_length=8)
    engine = LocalEngine(runtime)
    good = ScoringRequest((4, 5))
    with pytest.raises(ContextOverflowError, match="9 tokens to score; the context window holds 8"):
        engine.score_tokens([good, ScoringRequest((4,) * 9)])
    with pytest.raises(UsageError, match="token 99 does not exist"):
        engine.score_tokens([good, ScoringRequest((4, 99))])
    assert not runtime.sessions
    for wrong in ({"tokens": ()}, {"tokens": (1,), "top": 101}, {"tokens": (1,), "since": -1}):
        with pytest.raises(UsageError):
            ScoringRequest(**wrong)


def test_only_an_engine_that_can_score_tokens_says_so() -> None:
    engine = LocalEngine(ToyRuntime())
    assert isinstance(engine, TokenScoringEngine)
    assert token_scoring_of(engine) is engine
    assert token_scoring_of(ScriptedEngine(["a"], strict=False)) is None


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("scoring") / "tiny.gguf")


@pytest.fixture(params=[1, 3])
def engine(tiny: Path, request: pytest.FixtureRequest) -> Iterator[LocalEngine]:
    with LocalEngine(load_runtime(tiny, parallel=request.param), parallel=request.param) as engine:
        yield engine


def test_a_real_model_scores_as_the_reference_forward_pass(tiny: Path, engine: LocalEngine) -> None:
    texts = ["The sky is blue because light scatters.", "The sky is not", "Answer: yes", "The sky is blue"]
    requests = [ScoringRequest(tuple(engine.encode_text(text)), top=3) for text in texts]
    scored = engine.score_tokens(requests)
    with open_checkpoint(tiny) as checkpoint:
        for request, found in zip(requests, scored, strict=True):
            rows = ReferenceSession(checkpoint).forward(request.tokens, "all")
            for position in range(1, len(request.tokens)):
                row = rows[position - 1]
                expected = float(log_softmax(row)[request.tokens[position]])
                token = found.tokens[position]
                assert token.logprob == pytest.approx(expected, abs=2e-4)
                assert token.is_greedy == (int(row.argmax()) == request.tokens[position])
                assert token.top[0][2] >= token.top[1][2] >= token.top[2][2]
            assert found.next.token == int(rows[-1].argmax())


def test_alone_and_in_company_a_real_model_gives_the_same_bits(tiny: Path, engine: LocalEngine) -> None:
    texts = [f"The answer is {word}" for word in ("yes", "no", "blue", "not blue", "light", "the sky")]
    requests = [ScoringRequest(tuple(engine.encode_text(text))) for text in texts]
    together = engine.score_tokens(requests)
    with LocalEngine(load_runtime(tiny), reuse=False) as alone:
        for request, found in zip(requests, together, strict=True):
            assert told(alone.score_tokens([request])[0]) == told(found)


def test_a_score_agrees_with_what_the_engine_says_of_choices(engine: LocalEngine) -> None:
    prompt, choice = "The sky is", " blue"
    before, whole = engine.encode_text(prompt), engine.encode_text(prompt + choice)
    total, _ = engine.score_tokens([ScoringRequest(tuple(whole))])[0].total(len(before))
    assert total == engine.score(prompt, [choice])[0]
