"""A chain goes on where it stopped: as if it had not been stopped, one round more, or after a person's feedback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import make_tiny

from selfee.chain.budgets import Budgets
from selfee.chain.continuing import steps_of, with_feedback
from selfee.chain.policy import RevisionPolicy
from selfee.chain.prompts import PROMPT_SETS
from selfee.chain.run import Mode, run_chain, stream_chain
from selfee.chain.types import Chain, ChainEnd, Instruction, SectionStart, Step, VerdictSource
from selfee.engines.base import ChatRequest, Request, SamplingParams
from selfee.engines.open import open_engine
from selfee.engines.scripted import ScriptedEngine
from selfee.errors import UsageError

CONTENT = "Fine. Revision is not needed."
WANTS = "Too short. Revision is needed."
SCORES = {" needed.": -1.0, " not needed.": -2.0}
BUDGETS = Budgets(answer=24, feedback=12, revision=24)


@pytest.mark.parametrize("mode", ["guided", "turns"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_continued_chain_is_the_chain_that_was_never_stopped(tmp_path: Path, mode: Mode, temperature: float) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_ctx=4096, metadata={"tokenizer.chat_template": TEMPLATE})
    params = SamplingParams(temperature=temperature, seed=7)
    options = {"mode": mode, "budgets": BUDGETS}
    with open_engine(str(path)) as engine:
        whole = run_chain(engine, "Why?", RevisionPolicy(3, 3, stop_repeats=False), params, **options)  # type: ignore[arg-type]
        for stop in (1, 2):
            if stop > whole.num_revisions:
                continue
            part = replace(whole, steps=whole.steps[:stop])
            again = run_chain(
                engine,
                "Why?",
                RevisionPolicy(3, 3, stop_repeats=False),
                params,
                start=steps_of(part),
                **options,  # type: ignore[arg-type]
            )
            assert [(step.answer, step.feedback) for step in again.steps] == [
                (step.answer, step.feedback) for step in whole.steps
            ]


TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


@given(
    st.lists(st.sampled_from([CONTENT, WANTS, None]), min_size=1, max_size=3),
    st.sampled_from(["guided", "single-pass", "turns"]),
    st.sampled_from(sorted(PROMPT_SETS)),
)
@settings(max_examples=60)
def test_one_more_round_makes_one_revision_whatever_came_before(
    feedbacks: list[str | None], mode: Mode, prompts: str
) -> None:
    steps = [Step(f"Answer {number}.", said or CONTENT) for number, said in enumerate(feedbacks)]
    chain = Chain(Instruction("Why?"), tuple(with_verdicts(steps)), ChainEnd.ACCEPTED)
    if feedbacks[-1] is None:
        chain = replace(chain, steps=(*chain.steps[:-1], Step(chain.steps[-1].answer)))
    made = len(chain.steps)
    new = [] if feedbacks[-1] is not None else ["It is short."]
    replies = [*new, "Better.", CONTENT]
    if mode == "single-pass":
        # The model ends its text after a revision: content.
        replies = [f"It is short. Revision is needed.\n\n### Revision {made}:\nBetter."] if new else ["Better."]
    policy = RevisionPolicy(made, made, always_criticise=False)
    with ScriptedEngine(replies, scores=SCORES) as engine:
        options = {"prompts": prompts} if mode == "turns" else {}
        again = run_chain(engine, "Why?", policy, mode=mode, start=steps_of(chain), **options)  # type: ignore[arg-type]
    assert again.num_revisions == made
    assert again.final == "Better."
    assert [step.answer for step in again.steps[:-1]] == [step.answer for step in chain.steps]


def with_verdicts(steps: list[Step]) -> list[Step]:
    from selfee.chain.verdict import find_verdict

    return [replace(step, verdict=find_verdict(step.feedback or "")) for step in steps]


@pytest.mark.parametrize("mode", ["guided", "single-pass", "turns"])
def test_a_persons_feedback_is_what_the_reviser_reads(mode: Mode) -> None:
    chain = Chain(Instruction("Why?"), tuple(with_verdicts([Step("So.", CONTENT)])), ChainEnd.ACCEPTED)
    start = with_feedback(chain, "  Say it in French. ")
    assert start[0].feedback == "Say it in French. Revision is needed."
    assert start[0].verdict is not None
    assert start[0].verdict.source is VerdictSource.USER
    with ScriptedEngine(["Ainsi.", CONTENT], strict=False, scores=SCORES) as engine:
        events = list(stream_chain(engine, "Why?", RevisionPolicy(0, 1), mode=mode, start=start))
    request = engine.requests[0]
    read = request.prompt if isinstance(request, Request) else str([m.content for m in request.messages])
    assert "Say it in French." in read
    assert isinstance(request, ChatRequest) == (mode == "turns")
    started = [event for event in events if isinstance(event, SectionStart)]
    assert started[0].number == 1, "what is there already is not told again"


def test_only_finished_steps_are_gone_on_from() -> None:
    cut = Chain(Instruction("Why?"), (Step("So.", "It is", None, feedback_finished=False),), ChainEnd.ACCEPTED)
    assert steps_of(cut) == (Step("So."),)
    half = Chain(Instruction("Why?"), (Step("So", answer_finished=False),), ChainEnd.ACCEPTED)
    with pytest.raises(UsageError, match="no finished answer"):
        steps_of(half)
    for start, said in (
        ((Step("So", answer_finished=False),), "not finished"),
        ((Step("A"), Step("B")), "no feedback"),
        ((Step("A", "Bad."),), "no verdict"),
    ):
        with pytest.raises(UsageError, match=said):
            stream_chain(ScriptedEngine([]), "Why?", start=start)
    with pytest.raises(UsageError, match="empty"):
        with_feedback(cut, "  ")
    with pytest.raises(UsageError, match="answer 3 of 1"):
        with_feedback(cut, "More", 3)
