"""Any completion model, under headers that we write."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    Overruled,
    SectionEnd,
    SectionStart,
    TextDelta,
    VerdictSource,
)
from selfee.engines.base import Request, SamplingParams
from selfee.engines.scripted import Reply, ScriptedEngine

WHY = Instruction("Why is the sky blue?")
PROMPT = render_prompt(WHY)
NEEDED = {" needed.": -0.5, " not needed.": -2.0}
CONTENT = {" needed.": -3.0, " not needed.": -0.1}


def run(engine: ScriptedEngine, low: int = 0, high: int | None = 3, **options: object) -> Chain:
    options = {"prompts": "plain"} | options
    return run_chain(engine, WHY, RevisionPolicy(low, high), mode="guided", **options)  # type: ignore[arg-type]


def prompts(engine: ScriptedEngine) -> list[str]:
    return [request.prompt for request in engine.requests if isinstance(request, Request)]


def scorer(*verdicts: bool):  # type: ignore[no-untyped-def]
    """Scores that give these verdicts, one after another."""
    left = list(verdicts)

    def score(prompt: str, choices: Sequence[str]) -> list[float]:
        needed = left.pop(0)
        return [-0.5, -2.0] if needed else [-2.0, -0.5]

    return score


def test_we_write_the_headers_and_the_model_what_stands_under_them() -> None:
    with ScriptedEngine(["The sea.", "It is wrong.", "Scattering.", "Correct."], scores=scorer(True, False)) as engine:
        chain = run(engine)
    assert prompts(engine) == [
        PROMPT,
        PROMPT + "The sea.\n\n### Feedback 1:\n",
        PROMPT + "The sea.\n\n### Feedback 1:\nIt is wrong. Revision is needed.\n\n### Revision 1:\n",
        PROMPT + "The sea.\n\n### Feedback 1:\nIt is wrong. Revision is needed.\n\n### Revision 1:\nScattering."
        "\n\n### Feedback 2:\n",
    ]
    assert (chain.final, chain.end) == ("Scattering.", ChainEnd.ACCEPTED)
    assert chain.steps[-1].feedback == "Correct. Revision is not needed."
    assert read_chain(render_target(chain), WHY).final == "Scattering."


def test_the_verdict_is_the_likelier_sentence_and_its_probability_is_reported() -> None:
    with ScriptedEngine(["A", "Fine."], scores=CONTENT) as engine:
        chain = run(engine)
    verdict = chain.steps[0].verdict
    assert verdict is not None
    assert (verdict.needed, verdict.source) == (False, VerdictSource.CHOICE)
    assert verdict.probability == pytest.approx(1 / (1 + 2.718281828**2.9))
    assert engine.scored == [(PROMPT + "A\n\n### Feedback 1:\nFine. Revision is", (" needed.", " not needed."))]


def test_a_content_model_is_overruled_in_the_text_it_reads_next() -> None:
    engine = ScriptedEngine(["A", "Fine.", "B", "Fine too."], scores=CONTENT)
    events = list(stream_chain(engine, WHY, RevisionPolicy(1, 1), mode="guided", prompts="plain"))
    assert [event.feedback for event in events if isinstance(event, Overruled)] == ["Fine. Revision is needed."]
    assert prompts(engine)[2].endswith("Fine. Revision is needed.\n\n### Revision 1:\n")


@pytest.mark.parametrize("enforced", range(4))
@pytest.mark.parametrize("scores", [NEEDED, CONTENT, None])
def test_enforcement_is_exact(enforced: int, scores: dict[str, float] | None) -> None:
    replies: list[str] = []
    for number in range(enforced + 1):
        replies += [f"Answer {number}.", "Hm."] + ([" maybe"] if scores is None else [])
    if enforced == 0:
        replies = replies[:1]
    with ScriptedEngine(replies, scores=scores) as engine:
        chain = run(engine, enforced, enforced)
    assert chain.num_revisions == enforced
    assert chain.final == f"Answer {enforced}."


def test_scores_that_do_not_tell_the_choices_apart_are_no_verdict() -> None:
    with ScriptedEngine(["A", "Weak.", " not needed"], scores={" needed.": -7.0, " not needed.": -7.0}) as engine:
        chain = run(engine)
    assert chain.steps[0].verdict is not None
    assert chain.steps[0].verdict.source is VerdictSource.ASKED


def test_without_scoring_the_model_finishes_the_sentence() -> None:
    with ScriptedEngine(["A", "Weak.", " needed. And so on", "B", "Good.", " not needed"]) as engine:
        chain = run(engine)
    assert prompts(engine)[2].endswith("\n\n### Feedback 1:\nWeak. Revision is")
    verdicts = [step.verdict for step in chain.steps]
    assert [(verdict.needed, verdict.source) for verdict in verdicts if verdict] == [
        (True, VerdictSource.ASKED),
        (False, VerdictSource.ASKED),
    ]
    assert chain.steps[0].feedback == "Weak. Revision is needed."


def test_a_model_that_cannot_finish_the_sentence_is_silent_and_not_content() -> None:
    with ScriptedEngine(["A", "Weak.", " banana"]) as engine:
        chain = run(engine)
    assert chain.steps[0].verdict is not None
    assert chain.steps[0].verdict.source is VerdictSource.SILENCE
    assert chain.steps[0].feedback == "Weak."


def test_feedback_is_stopped_where_the_model_begins_its_own_verdict() -> None:
    with ScriptedEngine(["A", "Weak. Revision is not needed, I think"], scores=CONTENT) as engine:
        chain = run(engine)
    assert chain.steps[0].feedback == "Weak. Revision is not needed."
    assert "Revision is" in engine.requests[1].stop


def test_a_verdict_in_other_words_is_taken_as_said() -> None:
    with ScriptedEngine(["A", "There is no need for any revision."]) as engine:
        chain = run(engine)
    assert chain.steps[0].verdict is not None
    assert chain.steps[0].verdict.source is VerdictSource.PHRASE
    assert not chain.steps[0].verdict.needed


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("A\n\n### Feedback 1:\nmine", "A"),
        ("A\n\n### Instruction:\nAnother task", "A"),
        ("A\n\n### Answer:\nagain", "A"),
        ("### Feedback 1:\nat once", ""),
        ("  \n A ###\n  ", "A ###"),
        ("A\n\n### Feedback 7:\nmiscounted", "A"),
        ("A\n### Revision2 :\nmiscounted", "A"),
        ("### Step 1\nx\n### Feedback loops\ny", "### Step 1\nx\n### Feedback loops\ny"),
    ],
)
@pytest.mark.parametrize("chunks", [1, 3, None])
def test_an_answer_ends_where_a_header_begins_and_has_no_margins(reply: str, answer: str, chunks: int | None) -> None:
    chain = run(ScriptedEngine([Reply(reply, chunks=chunks), "Good."], scores=CONTENT))
    assert chain.steps[0].answer == answer


@given(st.integers(1, 30))
def test_deltas_join_to_the_sections_text(size: int) -> None:
    replies = [Reply(text, chunks=size) for text in (" The sea. \n", "Wrong:\n\n- all\n", "Air.", "Good. Revision is")]
    joined = ""
    for event in stream_chain(
        ScriptedEngine(replies, scores=lambda prompt, choices: [-1, -2] if "Air" not in prompt else [-2, -1]),
        WHY,
        mode="guided",
    ):
        if isinstance(event, SectionStart):
            joined = ""
        elif isinstance(event, TextDelta):
            joined += event.text
        elif isinstance(event, SectionEnd):
            assert joined == event.text == event.text.strip()


def test_each_section_is_asked_for_within_its_own_budget() -> None:
    engine = ScriptedEngine(["A", "Bad.", "B", "Good."], scores=scorer(True, False))
    run(engine, budgets=Budgets(answer=7, feedback=5, revision=9))
    assert [request.max_tokens for request in engine.requests] == [7, 5, 9, 5]


def test_feedback_that_uses_up_its_budget_still_gets_a_verdict() -> None:
    engine = ScriptedEngine(["A", "too long a feedback", "B", "Good."], scores=scorer(True, False))
    chain = run(engine, budgets=Budgets(feedback=3))
    assert chain.steps[0].feedback == "too long a\n\nRevision is needed."
    assert not chain.steps[0].feedback_finished
    assert chain.final == "B"


def test_a_model_that_never_stops_is_cut_off_with_a_reason() -> None:
    chain = run(ScriptedEngine(["word " * 5_000], strict=False), 2, budgets=Budgets(answer=20))
    assert (chain.end, chain.cut, len(chain.final.split())) == (ChainEnd.CUT_OFF, CutReason.LENGTH, 20)
    assert chain.delivered is None
    assert (
        chain.status == "the first answer was cut off: its token budget was used up; 2 revisions were enforced, 0 made"
    )


def test_old_rounds_are_forgotten_where_the_context_window_is_too_small() -> None:
    base = len(PROMPT.split())
    replies = [text for n in range(4) for text in (f"Answer {n} " + "w " * 10, f"Feedback {n} hm.")]
    engine = ScriptedEngine(replies, scores=NEEDED, context_length=base + 75)
    chain = run(engine, 3, 3, budgets=Budgets(answer=20, feedback=20, revision=20))
    assert chain.num_revisions == 3
    assert chain.end is ChainEnd.CAPPED
    last = prompts(engine)[-1]
    assert "Answer 3" in last
    assert "Answer 0" not in last
    assert last.startswith(PROMPT)
    assert chain.steps[0].answer.startswith("Answer 0"), "what the model forgot, the record keeps"


def test_a_context_window_that_is_full_ends_the_chain_with_what_was_finished() -> None:
    base = len(PROMPT.split())
    engine = ScriptedEngine(
        ["Answer " + "w " * 18, "Feedback " + "f " * 30], scores=NEEDED, context_length=base + 30, strict=False
    )
    chain = run(engine, 1, 1)
    assert (chain.end, chain.cut) == (ChainEnd.CUT_OFF, CutReason.CONTEXT)
    assert chain.final.startswith("Answer w")


def test_the_example_stands_before_the_prompt_in_the_same_format() -> None:
    engine = ScriptedEngine(["A", "Fine."], scores=CONTENT)
    run_chain(engine, WHY, mode="guided")
    opening, _, _ = prompts(engine)[0].partition(PROMPT)
    assert "### Feedback 1:\n" in opening
    assert "### Revision 1:\n" in opening
    assert opening.endswith("Revision is not needed.\n\n")


def test_a_users_stop_string_ends_answers_but_never_feedback() -> None:
    with ScriptedEngine(["One END two", "Say END more.", "B END", "Ok."], scores=scorer(True, False)) as engine:
        chain = run(engine, stop=["END"])
    assert [step.answer for step in chain.steps] == ["One", "B"]
    assert chain.steps[0].feedback == "Say END more. Revision is needed."


def test_the_chain_is_the_same_with_the_seed_it_recorded() -> None:
    def once(seed: int | None) -> tuple[Chain, list[int | None]]:
        engine = ScriptedEngine(["A", "Bad.", "B", "Good."], scores=scorer(True, False))
        chain = run(engine, params=SamplingParams(seed=seed))
        return chain, [request.params.seed for request in engine.requests]

    chain, seeds = once(None)
    assert chain.seed is not None
    assert len(set(seeds)) == 4
    assert once(chain.seed) == (chain, seeds)
