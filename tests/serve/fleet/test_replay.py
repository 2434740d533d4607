"""A job done again delivers what an uninterrupted one would have, wherever it was cut and however pieces fall."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.web.site import CONTENT, CRITIC, FIRST, SECOND, THIRD, chain_text

from selfee.chain.allowance import Allowance
from selfee.chain.policy import RevisionPolicy
from selfee.chain.run import stream_chain
from selfee.chain.types import ChainFinished, Instruction, TextDelta
from selfee.engines.base import Chunk, FinishReason, SamplingParams, TokenLogprob
from selfee.engines.scripted import Reply, Rule, ScriptedEngine
from selfee.serve.engine.jobs import ChainJob, Outcome, TextJob
from selfee.serve.fleet.replay import Replay, ReplayMismatchError

INSTRUCTION = Instruction("Why is the sky blue?")


def engine(chunks: int) -> ScriptedEngine:
    def say(text: str) -> Reply:
        return Reply(text, chunks=chunks)

    rules = [
        Rule(say(chain_text(FIRST, CRITIC, SECOND, CONTENT)), ends_with="### Answer:\n"),
        Rule(say(CRITIC), ends_with="### Feedback 1:\n"),
        Rule(say(SECOND + "\n\n### Feedback 2:\n" + CONTENT), ends_with="### Revision 1:\n"),
        Rule(say(CONTENT), pattern=r"### Feedback \d+:\n\Z"),
        Rule(say(THIRD), pattern=r"### Revision \d+:\n\Z"),
    ]
    return ScriptedEngine(rules=rules, strict=False)


def outcomes(job: ChainJob, chunks: int) -> Iterator[Outcome]:
    return iter(
        stream_chain(
            engine(chunks),
            job.instruction,
            job.policy,
            job.params,
            mode=job.mode,
            allowance=job.allowance,
            start=job.start,
        )
    )


def joined(told: Sequence[Outcome]) -> list[Any]:
    """Outcomes with deltas joined, and without what differs in time."""
    found: list[Any] = []
    for outcome in told:
        if isinstance(outcome, TextDelta) and found and isinstance(found[-1], str):
            found[-1] += outcome.text
        elif isinstance(outcome, TextDelta):
            found.append(outcome.text)
        elif isinstance(outcome, ChainFinished):
            found.append((outcome.chain.steps, outcome.chain.end))
        else:
            found.append(outcome)
    return found


def interrupted(job: ChainJob, cuts: Sequence[tuple[int, int]]) -> list[Outcome]:
    """What is delivered where each of several workers dies after so many outcomes of pieces of such a size."""
    replay, told = Replay(job, "single-pass"), list[Outcome]()
    for count, chunks in cuts:
        for index, outcome in enumerate(outcomes(replay.job, chunks)):  # type: ignore[arg-type]
            if index >= count or isinstance(outcome, ChainFinished):
                break
            told += replay.take(outcome)
        replay.restart()
    for outcome in outcomes(replay.job, 11):  # type: ignore[arg-type]
        told += replay.take(outcome)
    return told


@given(
    st.lists(st.tuples(st.integers(0, 120), st.integers(1, 40)), max_size=5),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.7]),
    st.sampled_from([None, 100_000]),
)
def test_however_often_and_wherever_workers_die_the_same_chain_comes(
    cuts: list[tuple[int, int]], least: int, temperature: float, tokens: int | None
) -> None:
    job = ChainJob(
        INSTRUCTION,
        RevisionPolicy(least, 3),
        SamplingParams(temperature=temperature, seed=7),
        allowance=Allowance(tokens),
        mode="single-pass",
    )
    assert joined(interrupted(job, cuts)) == joined(list(outcomes(job, 11)))


def test_finished_steps_are_not_made_again_where_the_text_does_not_depend_on_it() -> None:
    greedy = ChainJob(INSTRUCTION, RevisionPolicy(), SamplingParams(temperature=0), mode="single-pass")
    for job, steps in ((greedy, 1), (replace(greedy, params=SamplingParams(temperature=1)), 0)):
        replay = Replay(job, "single-pass")
        for index, outcome in enumerate(outcomes(replay.job, 20)):  # type: ignore[arg-type]
            list(replay.take(outcome))
            if index > 22:
                break
        replay.restart()
        assert isinstance(replay.job, ChainJob)
        assert len(replay.job.start) == steps


def test_the_seed_is_fixed_before_the_first_worker_hears_of_the_job() -> None:
    replay = Replay(ChainJob(INSTRUCTION, RevisionPolicy(), SamplingParams(seed=None)), "turns")
    assert replay.job.params.seed is not None
    seed = replay.job.params.seed
    replay.restart()
    assert replay.job.params.seed == seed


def test_another_text_is_an_error_and_never_a_mixture() -> None:
    replay = Replay(TextJob("p", SamplingParams(), 99), "guided")
    assert list(replay.take(Chunk("The sky"))) == [Chunk("The sky")]
    replay.restart()
    with pytest.raises(ReplayMismatchError, match="does not continue its text"):
        list(replay.take(Chunk("The sea")))
    replay.restart()
    with pytest.raises(ReplayMismatchError):
        list(replay.take(Chunk("The", FinishReason.END)))


@given(st.lists(st.integers(0, 8), max_size=4), st.integers(1, 6))
def test_a_texts_log_probabilities_come_once_each(cuts: list[int], size: int) -> None:
    text = "abcdefgh"

    def chunks(size: int) -> Iterator[Chunk]:
        for start in range(0, len(text), size):
            piece = text[start : start + size]
            yield Chunk(piece, logprobs=tuple(TokenLogprob(ord(letter), letter, -1.0) for letter in piece))
        yield Chunk("", FinishReason.END)

    replay, told = Replay(TextJob("p", SamplingParams(), 99), "guided"), list[Chunk]()
    for cut in cuts:
        for chunk in list(chunks(1))[:cut]:
            told += replay.take(chunk)  # type: ignore[arg-type]
        replay.restart()
    for chunk in chunks(size):
        told += replay.take(chunk)  # type: ignore[arg-type]
    assert "".join(chunk.text for chunk in told) == text
    assert "".join(each.text for chunk in told for each in chunk.logprobs) == text
    assert told[-1].finish_reason is FinishReason.END
