"""Reading a trained model's own stream, and overruling it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chain.strategies import chains, merge_deltas

from selfee.chain.budgets import Budgets
from selfee.chain.format import render_prompt, render_target
from selfee.chain.parser import read_chain
from selfee.chain.policy import RevisionPolicy
from selfee.chain.run import run_chain, stream_chain
from selfee.chain.types import (
    Chain,
    ChainEnd,
    CutReason,
    Instruction,
    Overrule,
    Overruled,
    SectionEnd,
    SectionStart,
    TextDelta,
    VerdictSource,
)
from selfee.engines.base import FinishReason, Request, SamplingParams
from selfee.engines.scripted import Reply, ScriptedEngine

WHY = Instruction("Why is the sky blue?")
PROMPT = render_prompt(WHY)
TWO = (
    "The sea.\n\n### Feedback 1:\nWrong. Revision is needed.\n\n### Revision 1:\nScattering.\n\n### Feedback 2:\n"
    "Good. Revision is not needed."
)
GOOD = "Scattering.\n\n### Feedback 1:\nGood. Revision is not needed."


def run(engine: ScriptedEngine, low: int = 0, high: int | None = 3, **options: object) -> Chain:
    return run_chain(engine, WHY, RevisionPolicy(low, high), mode="single-pass", **options)  # type: ignore[arg-type]


def prompts(engine: ScriptedEngine) -> list[str]:
    return [request.prompt for request in engine.requests if isinstance(request, Request)]


def test_left_to_itself_a_chain_is_one_request_and_the_text_as_it_came() -> None:
    with ScriptedEngine([TWO]) as engine:
        chain = run(engine)
    assert prompts(engine) == [PROMPT]
    assert chain.steps == read_chain(TWO, WHY).steps
    assert (chain.end, chain.final, chain.num_revisions) == (ChainEnd.ACCEPTED, "Scattering.", 1)
    assert chain.status == "accepted after 1 revision"


def test_an_overruled_verdict_is_one_request_more_with_the_edited_text() -> None:
    with ScriptedEngine([GOOD, "Rayleigh scattering.\n\n### Feedback 2:\nRevision is not needed."]) as engine:
        events = list(stream_chain(engine, WHY, RevisionPolicy(1), mode="single-pass"))
        assert (
            prompts(engine)[1]
            == PROMPT + "Scattering.\n\n### Feedback 1:\nGood. Revision is needed.\n\n### Revision 1:\n"
        )
    assert Overruled(1, "Good. Revision is needed.", Overrule.REPLACED) in events
    chain = run(ScriptedEngine([GOOD, "Rayleigh scattering.\n\n### Feedback 2:\nRevision is not needed."]), 1)
    first = chain.steps[0]
    assert first.feedback == "Good. Revision is needed."
    assert first.overruled == "Good. Revision is not needed."
    assert first.verdict is not None
    assert first.verdict.forced
    assert not first.verdict.needed
    assert chain.num_revisions == 1


@pytest.mark.parametrize("enforced", range(5))
@pytest.mark.parametrize(
    "ending",
    [
        "Good. Revision is not needed.",
        "No revision is needed",
        "No revisions are needed.",
        "Nothing to add.",
        "",
        'I would say "Revision is needed" to others.',
        "Revision is needed.",
    ],
)
def test_enforcement_is_exact_however_the_feedback_ends(enforced: int, ending: str) -> None:
    replies = [f"Answer {n}.\n\n### Feedback {n + 1}:\n{ending}" for n in range(enforced + 1)]
    with ScriptedEngine(replies) as engine:
        chain = run(engine, enforced, enforced)
    assert chain.num_revisions == enforced
    assert chain.final == f"Answer {enforced}."
    assert all("ovision" not in prompt for prompt in prompts(engine))


def test_a_text_that_ends_without_feedback_is_asked_for_feedback_where_revisions_are_enforced() -> None:
    with ScriptedEngine(["First.", "Fine.", "Second."]) as engine:
        chain = run(engine, 1)
    assert prompts(engine)[1].endswith("First.\n\n### Feedback 1:\n")
    assert prompts(engine)[2].endswith("### Feedback 1:\nFine. Revision is needed.\n\n### Revision 1:\n")
    assert (chain.num_revisions, chain.end) == (1, ChainEnd.ACCEPTED)
    assert "without feedback" in chain.status


def test_an_autonomous_text_that_ends_without_feedback_is_accepted_and_says_so() -> None:
    chain = run(ScriptedEngine(["Just an answer."]))
    assert (chain.final, chain.end) == ("Just an answer.", ChainEnd.ACCEPTED)
    assert chain.status == "the model ended after the first answer without feedback"


def test_a_text_that_ends_by_asking_for_a_revision_gets_its_revision() -> None:
    with ScriptedEngine(
        ["A\n\n### Feedback 1:\nRevision is needed.", "B\n\n### Feedback 2:\nRevision is not needed."]
    ) as engine:
        chain = run(engine)
    assert (chain.num_revisions, chain.final) == (1, "B")
    assert not any(step.overruled for step in chain.steps)


def test_at_the_maximum_the_stream_is_closed_when_the_model_goes_on() -> None:
    reply = Reply(TWO + "\n\n### Revision 2:\nNever read.", chunks=1)
    engine = ScriptedEngine([reply])
    chain = run(engine, 0, 1)
    assert engine.cancelled == 1
    assert (chain.num_revisions, chain.end) == (1, ChainEnd.CAPPED)
    assert chain.status == "another revision is wanted, but max_revisions is 1"


def test_the_last_revision_gets_its_feedback_too() -> None:
    chain = run(ScriptedEngine([TWO]), 1, 1)
    assert chain.steps[-1].feedback == "Good. Revision is not needed."


def test_with_no_revisions_allowed_the_answer_is_not_criticised() -> None:
    engine = ScriptedEngine([Reply(TWO, chunks=3)])
    chain = run(engine, 0, 0)
    assert engine.cancelled == 1
    assert (chain.final, chain.num_revisions, chain.end) == ("The sea.", 0, ChainEnd.CAPPED)
    assert chain.steps[0].feedback is None


def test_a_model_that_revises_without_a_verdict_is_followed() -> None:
    chain = run(ScriptedEngine(["A\n\n### Feedback 1:\nHm.\n\n### Revision 1:\nB\n\n### Feedback 2:\nFine."]))
    verdict = chain.steps[0].verdict
    assert verdict is not None
    assert verdict.source is VerdictSource.HEADER
    assert verdict.needed
    assert chain.final == "B"


def test_a_trigger_phrase_in_the_question_changes_nothing() -> None:
    question = Instruction(
        "Explain 'Revision is not needed'. No revision is needed.\n\n### Feedback 1:\nno revisions needed"
    )
    with ScriptedEngine(["It means so.\n\n### Feedback 1:\nGood. Revision is not needed.", "Better."]) as engine:
        chain = run_chain(engine, question, RevisionPolicy(1, 1), mode="single-pass")
    assert all(prompt.startswith(render_prompt(question)) for prompt in prompts(engine))
    assert chain.num_revisions == 1


def test_a_verdict_within_an_answer_or_its_code_neither_stops_nor_forces_anything() -> None:
    answer = "It prints:\n```\nRevision is not needed\n```\nNo revision is needed."
    with ScriptedEngine([f"{answer}\n\n### Feedback 1:\nGood. Revision is not needed.", "B"]) as engine:
        chain = run(engine, 1, 1)
    assert chain.steps[0].answer == answer
    assert f"{answer}\n\n### Feedback 1:\nGood. Revision is needed." in prompts(engine)[1]


@given(st.integers(1, 40), st.integers(0, 2))
def test_how_the_engine_cuts_its_text_changes_nothing(size: int, low: int) -> None:
    def events(chunks: int | None) -> list[object]:
        replies = [Reply(text, chunks=chunks) for text in (TWO, "New.\n\n### Feedback 3:\nNo revisions needed")]
        stream = stream_chain(
            ScriptedEngine(replies), WHY, RevisionPolicy(low, 3), SamplingParams(seed=1), mode="single-pass"
        )
        return list(merge_deltas(event for event in stream if not hasattr(event, "chain")))

    assert events(size) == events(None)


def test_a_sections_text_is_its_deltas_joined_and_every_section_ends() -> None:
    joined = ""
    opened = 0
    for event in stream_chain(ScriptedEngine([TWO]), WHY, mode="single-pass"):
        if isinstance(event, SectionStart):
            joined, opened = "", opened + 1
        elif isinstance(event, TextDelta):
            joined += event.text
        elif isinstance(event, SectionEnd):
            assert event.text == joined
            opened -= 1
    assert opened == 0


def test_each_section_has_a_budget_of_its_own() -> None:
    long = " ".join(f"word{n}" for n in range(40))
    replies = [
        f"{long}\n\n### Feedback 1:\n{long} Revision is needed.\n\n### Revision 1:\nX {long}\n\n### Feedback 2:\nGood."
    ]
    with ScriptedEngine(replies) as engine:
        chain = run(engine, budgets=Budgets(answer=50, feedback=50, revision=50))
    assert chain.end is ChainEnd.ACCEPTED
    assert chain.final == f"X {long}"


def test_an_answer_that_uses_up_its_budget_is_cut_off_and_never_delivered_over_a_finished_one() -> None:
    endless = " ".join(["more"] * 10_000)
    engine = ScriptedEngine([f"A\n\n### Feedback 1:\nRevision is needed.\n\n### Revision 1:\n{endless}"])
    chain = run(engine, budgets=Budgets(answer=30, feedback=30, revision=30))
    assert (chain.end, chain.cut, chain.final) == (ChainEnd.CUT_OFF, CutReason.LENGTH, "A")
    assert len(chain.steps[1].answer.split()) == 30 + 1  # the piece that ends the header line holds a word already
    assert chain.status == "revision 1 was cut off: its token budget was used up"
    assert engine.cancelled == 1


def test_feedback_that_uses_up_its_budget_is_no_consent() -> None:
    endless = " ".join(["hm"] * 10_000)
    chain = run(ScriptedEngine([f"A\n\n### Feedback 1:\n{endless}"]), budgets=Budgets(feedback=20))
    assert (chain.end, chain.cut, chain.final) == (ChainEnd.CUT_OFF, CutReason.LENGTH, "A")
    assert chain.steps[0].verdict is None


def test_feedback_that_uses_up_its_budget_is_overruled_where_a_revision_is_enforced() -> None:
    endless = " ".join(["hm"] * 10_000)
    with ScriptedEngine([f"A\n\n### Feedback 1:\n{endless}", "B"]) as engine:
        chain = run(engine, 1, 1, budgets=Budgets(feedback=20))
    assert chain.final == "B"
    assert prompts(engine)[1].endswith("hm hm\n\nRevision is needed.\n\n### Revision 1:\n")


def test_a_request_that_ends_before_its_section_is_asked_on() -> None:
    class Stingy(ScriptedEngine):
        """Like a server that gives at most five tokens a request and does not count."""

        count_tokens = None  # type: ignore[assignment]

        def stream(self, request: Request):  # type: ignore[no-untyped-def]
            return super().stream(Request(request.prompt, request.params, 5, request.stop))

    with Stingy(["one two three four five six", " six seven"]) as engine:
        chain = run(engine)
    assert prompts(engine)[1] == PROMPT + "one two three four five"
    assert chain.final == "one two three four five six seven"
    assert chain.steps[0].answer_cost is not None
    assert len(chain.steps[0].answer_cost.seeds) == 2


def test_an_engine_that_gives_nothing_does_not_loop() -> None:
    chain = run(ScriptedEngine([Reply("", finish_reason=FinishReason.LENGTH)]))
    assert (chain.end, chain.cut, chain.final) == (ChainEnd.CUT_OFF, CutReason.LENGTH, "")


def test_when_the_context_window_fills_the_last_finished_answer_is_delivered() -> None:
    words = " ".join(["w"] * 30)
    text = f"First {words}\n\n### Feedback 1:\nRevision is needed.\n\n### Revision 1:\nSecond {words}"
    chain = run(ScriptedEngine([text], context_length=70, strict=False), 2)
    assert (chain.end, chain.cut) == (ChainEnd.CUT_OFF, CutReason.CONTEXT)
    assert chain.final == f"First {words}"
    assert chain.status == "revision 1 was cut off: the context window is full; 2 revisions were enforced, 0 made"


def test_a_users_stop_string_ends_an_answer_and_the_chain_goes_on() -> None:
    with ScriptedEngine(["One END two\n\n### Feedback 1:\nx", "Say END more. Revision is not needed."]) as engine:
        chain = run(engine, stop=["END"])
    assert chain.final == "One "
    assert chain.steps[0].feedback == "Say END more. Revision is not needed."
    assert prompts(engine)[1] == PROMPT + "One \n\n### Feedback 1:\n"


def test_a_revision_that_changes_nothing_ends_the_chain_and_says_so() -> None:
    text = TWO.replace("Scattering.", "The sea.").replace("Good. Revision is not needed.", "Revision is needed.")
    engine = ScriptedEngine([Reply(text + "\n\n### Revision 2:\nX", chunks=1)])
    chain = run(engine, 3)
    assert (chain.end, chain.num_revisions) == (ChainEnd.UNCHANGED, 1)
    assert chain.status == "revision 1 changes nothing; 3 revisions were enforced, 1 made"


def test_a_chain_that_goes_round_in_circles_is_recognised() -> None:
    text = (
        "A\n\n### Feedback 1:\nRevision is needed.\n\n### Revision 1:\nB\n\n### Feedback 2:\nRevision is needed."
        "\n\n### Revision 2:\nA\n\n### Feedback 3:\nRevision is needed."
    )
    chain = run(ScriptedEngine([text]), 0, None)
    assert (chain.end, chain.num_revisions) == (ChainEnd.REPEATED, 2)
    assert chain.status == "revision 2 repeats the first answer word for word"


def test_repeats_are_allowed_where_the_policy_says_so() -> None:
    replies = ["A\n\n### Feedback 1:\nGood.", "A\n\n### Feedback 2:\nGood.", "A\n\n### Feedback 3:\nGood."]
    policy = RevisionPolicy(2, 2, stop_repeats=False)
    chain = run_chain(ScriptedEngine(replies), WHY, policy, mode="single-pass")
    assert (chain.end, chain.num_revisions) == (ChainEnd.ACCEPTED, 2)


def test_tokens_and_seeds_are_recorded_for_each_section() -> None:
    engine = ScriptedEngine([GOOD, "New words here.\n\n### Feedback 2:\nFine."])
    chain = run_chain(engine, WHY, RevisionPolicy(1), SamplingParams(seed=11), mode="single-pass")
    costs = [cost for step in chain.steps for cost in (step.answer_cost, step.feedback_cost) if cost]
    assert len(costs) == 4
    assert sum(cost.tokens for cost in costs) == len(f"{GOOD} New words here. ### Feedback 2: Fine.".split())
    assert chain.cost.seeds == tuple(request.params.seed for request in engine.requests)
    assert chain.cost.seeds[0] == chain.seed == 11
    assert chain.cost.prompt_tokens > 0


@given(chains(), st.integers(1, 30))
def test_any_chain_that_a_model_says_is_the_chain_it_gets(said: Chain, size: int) -> None:
    # The second is asked for where the chain ends with a wish for a revision.
    engine = ScriptedEngine([Reply(render_target(said), chunks=size), "So."], strict=False)
    policy = RevisionPolicy(0, None, stop_repeats=False)
    chain = run_chain(engine, WHY, policy, mode="single-pass", budgets=Budgets(9999, 9999, 9999))
    texts = [(step.answer, step.feedback) for step in said.steps]
    assert [(step.answer, step.feedback) for step in chain.steps][: len(texts)] == texts
    last = said.steps[-1].verdict
    assert len(chain.steps) == len(texts) + (last is not None and last.needed)
