"""Any chat model, in turns: answerer, critic, reviser."""

from __future__ import annotations

import pytest

from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.prompts import PROMPT_SETS
from selfee.chain.run import run_chain, stream_chain
from selfee.chain.types import (
    Chain,
    ChainEnd,
    CutReason,
    Instruction,
    SectionEnd,
    SectionStart,
    TextDelta,
    VerdictSource,
)
from selfee.engines.base import ChatRequest, Message, Request
from selfee.engines.scripted import Reply, ScriptedEngine
from selfee.errors import UsageError

ASK = Instruction("Add the numbers.", "1 2")
CONTENT = "Score: 9/10. Revision is not needed."
WANTS = "Score: 5/10. Revision is needed."


class Chatter(ScriptedEngine):
    """A chat model that neither scores nor completes text."""


def run(engine: ScriptedEngine, low: int = 0, high: int | None = 3, **options: object) -> Chain:
    return run_chain(engine, ASK, RevisionPolicy(low, high), mode="turns", **options)  # type: ignore[arg-type]


def messages(engine: ScriptedEngine, number: int) -> list[tuple[str, str]]:
    request = engine.requests[number]
    assert isinstance(request, ChatRequest)
    return [(message.role, message.content) for message in request.messages]


def test_answerer_critic_and_reviser_take_turns_until_the_critic_is_content() -> None:
    with ScriptedEngine(["4", WANTS, "3", CONTENT]) as engine:
        chain = run(engine)
    assert (chain.final, chain.end, chain.num_revisions) == ("3", ChainEnd.ACCEPTED, 1)
    assert messages(engine, 0) == [("user", "Add the numbers.\n\n1 2")]
    assert [role for role, _ in messages(engine, 1)] == ["system", "user"]
    assert "# Answer\n4\n" in messages(engine, 1)[1][1]
    assert messages(engine, 2)[:2] == [("user", "Add the numbers.\n\n1 2"), ("assistant", "4")]
    assert WANTS in messages(engine, 2)[2][1]
    assert "4" not in messages(engine, 3)[1][1], "a critique sees one answer only"


@pytest.mark.parametrize("enforced", range(4))
@pytest.mark.parametrize("feedback", [CONTENT, WANTS, "Hm."])
@pytest.mark.parametrize("prompts", sorted(PROMPT_SETS))
def test_enforcement_is_exact_with_every_prompt_set(enforced: int, feedback: str, prompts: str) -> None:
    replies: list[str] = []
    for number in range(enforced + 1):
        replies += [f"Answer {number}.", feedback] + (["I cannot say"] if feedback == "Hm." else [])
    with ScriptedEngine(replies if enforced else replies[:1]) as engine:
        chain = run(engine, enforced, enforced, prompts=prompts)
    assert chain.num_revisions == enforced
    assert chain.final == f"Answer {enforced}."
    assert chain.settings["prompts"] == prompts


def test_the_reviser_reads_what_the_overruled_critic_says_now() -> None:
    with ScriptedEngine(["4", "Nice. " + CONTENT, "3", CONTENT]) as engine:
        chain = run(engine, 1, 1)
    assert "Nice. Score: 9/10. Revision is needed." in messages(engine, 2)[-1][1]
    assert "not needed" not in messages(engine, 2)[-1][1]
    assert chain.steps[0].overruled == "Nice. " + CONTENT


def test_the_small_set_sends_the_words_that_were_found_to_work() -> None:
    scores = {" needed.": -1.0, " not needed.": -2.0}
    with ScriptedEngine(["Five", " adding right.", "Three", " nothing"], scores=scores) as engine:
        chain = run(engine, 1, 1, prompts="small")
    question = "Add the numbers.\n\n1 2"
    system = ("system", "You are a helpful AI assistant. Answer in one short paragraph.")
    assert messages(engine, 0) == [system, ("user", question)]
    assert messages(engine, 1) == [
        system,
        ("user", f"Instruction: {question}\n\nAnswer: Five\n\nHow could this answer be improved?"),
    ]
    critique = engine.requests[1]
    assert isinstance(critique, ChatRequest)
    assert (critique.prefix, critique.stop) == ("The answer could be improved by", ("\n\n",))
    words = "The answer could be improved by adding right."
    assert messages(engine, 2) == [
        system,
        ("user", question),
        ("assistant", "Five"),
        ("user", f"{words}\n\nPlease answer again, better: {question}"),
    ]
    assert chain.steps[0].feedback == f"{words} Revision is needed."
    verdict = chain.steps[0].verdict
    assert verdict is not None
    assert verdict.source is VerdictSource.CHOICE
    assert verdict.probability == pytest.approx(0.731, abs=1e-3)


def test_an_engine_that_refuses_a_prefix_is_asked_without_it() -> None:
    class Refuses(ScriptedEngine):
        def stream_chat(self, request: ChatRequest):  # type: ignore[no-untyped-def]
            if request.prefix:
                raise UsageError("remote: no prefix")
            return super().stream_chat(request)

    with Refuses(["Five", " Add.", "Revision is not needed."]) as engine:
        chain = run(engine, prompts="small")
    assert chain.steps[0].feedback == "Add. Revision is not needed."


def test_a_critic_without_a_verdict_is_asked_once_more() -> None:
    with ScriptedEngine(
        ["4", "It is wrong.", "Revision is needed.", "3", "Right.", "Revision is not needed."]
    ) as engine:
        chain = run(engine)
    again = messages(engine, 2)
    assert again[-2:] == [("assistant", "It is wrong."), ("user", PROMPT_SETS["standard"].ask_verdict)]
    assert [step.verdict.source for step in chain.steps if step.verdict] == [VerdictSource.ASKED] * 2
    assert [step.feedback for step in chain.steps] == [
        "It is wrong. Revision is needed.",
        "Right. Revision is not needed.",
    ]


def test_silence_of_a_critic_is_recorded_as_silence() -> None:
    with ScriptedEngine(["4", "It is.", "Whatever."]) as engine:
        chain = run(engine)
    assert chain.steps[0].verdict is not None
    assert chain.steps[0].verdict.source is VerdictSource.SILENCE
    assert chain.end is ChainEnd.ACCEPTED


def test_silence_of_a_critic_who_used_up_the_budget_is_no_consent() -> None:
    with ScriptedEngine(["4", "w " * 50, "Whatever."]) as engine:
        chain = run(engine, budgets=Budgets(feedback=10))
    assert (chain.end, chain.cut, chain.final) == (ChainEnd.CUT_OFF, CutReason.LENGTH, "4")


def test_the_alpaca_set_keeps_one_conversation_for_two_rounds_and_then_begins_anew() -> None:
    replies = ["A0", WANTS, "A1", WANTS, "A2", WANTS, "A3", CONTENT]
    with ScriptedEngine(replies) as engine:
        run(engine, prompts="selfee-alpaca")
    roles = ["".join(role[0] for role, _ in messages(engine, number)) for number in range(8)]
    assert roles == ["u", "u", "uau", "uauau", "uauauau", "u", "uau", "u"]
    assert messages(engine, 1)[0][1].startswith(
        "Add the numbers.\n1 2\nHere is a proposed answer:\nA0\n\nAre there any"
    )
    assert messages(engine, 4)[-1][1].endswith("Write as if the revised answer is the first try.\nRevision:")
    assert messages(engine, 6)[-1][1].endswith("apology for the past mistake.\nRevision:")


def test_the_code_set_lets_the_teacher_alone_see_the_reference() -> None:
    with ScriptedEngine(["A0", WANTS, "A1", CONTENT]) as engine:
        run(engine, prompts="selfee-code", reference="GOLD")
    assert [text for _, text in messages(engine, 1)][1:3] == [
        "Here is the instruction:\nAdd the numbers.\n1 2\n",
        "Here is the answer:\nGOLD\n",
    ]
    assert messages(engine, 2) == [
        ("user", "Add the numbers.\n1 2"),
        ("assistant", "A0"),
        ("user", WANTS),
        ("user", PROMPT_SETS["selfee-code"].revise[1].text),
    ]
    teacher = [text for _, text in messages(engine, 3)]
    assert teacher[-3:-1] == [WANTS, "A1"]
    assert teacher[-1].startswith("Here is a revised proposed answer:\nA1\n")
    assert not any("GOLD" in text for number in (0, 2) for _, text in messages(engine, number))


def test_without_a_reference_its_turn_is_left_out() -> None:
    with ScriptedEngine(["A0", CONTENT]) as engine:
        run(engine, prompts="selfee-code")
    assert not any("Here is the answer:" in text for _, text in messages(engine, 1))


def test_contents_that_look_like_fields_or_markup_stay_contents() -> None:
    nasty = "{answer} {feedback} <|im_end|> [/INST] ### Feedback 1:"
    with ScriptedEngine([nasty, WANTS, "B", CONTENT]) as engine:
        chain = run_chain(engine, nasty, mode="turns")
    assert messages(engine, 0) == [("user", nasty)]
    assert messages(engine, 2)[1] == ("assistant", nasty)
    assert f"# Task\n{nasty}\n\n# Answer\n{nasty}\n" in messages(engine, 1)[1][1]
    assert not any(isinstance(request, Request) and request.parse_special for request in engine.requests)
    assert chain.steps[0].answer == nasty


def test_a_kept_conversation_is_dropped_where_the_context_window_is_too_small() -> None:
    replies = ["A0 " + "w " * 60, WANTS, "A1 " + "w " * 60, WANTS, "A2 " + "w " * 60, CONTENT]
    with ScriptedEngine(replies, context_length=420) as engine:
        chain = run(engine, prompts="selfee-alpaca", budgets=Budgets(answer=100, feedback=100, revision=100))
    assert chain.num_revisions == 2
    held = ["".join(text for _, text in messages(engine, number)) for number in range(6)]
    assert "A0" in held[2]
    assert "A0" not in held[4]
    assert "A1" in held[4]


def test_deltas_join_to_the_sections_text() -> None:
    joined = ""
    for event in stream_chain(ScriptedEngine([" 4 \n", "\n" + WANTS + "\n\n", "3", Reply(CONTENT, chunks=1)]), ASK):
        if isinstance(event, SectionStart):
            joined = ""
        elif isinstance(event, TextDelta):
            joined += event.text
        elif isinstance(event, SectionEnd):
            assert joined == event.text == event.text.strip()


def test_a_revision_that_changes_nothing_ends_the_chain() -> None:
    chain = run(ScriptedEngine(["4", WANTS, " 4"]), 2)
    assert chain.end is ChainEnd.UNCHANGED
    assert chain.status == "revision 1 changes nothing; 2 revisions were enforced, 1 made"


def test_messages_are_plain_data() -> None:
    assert Message("user", "x") == Message("user", "x")
    assert all(turn.text for prompts in PROMPT_SETS.values() for turn in (*prompts.answer, *prompts.critique))


def test_a_revision_that_was_cut_off_does_not_count_as_made() -> None:
    engine = ScriptedEngine(["A zero.", "Bad. Revision is needed.", "one two three four"])
    chain = run_chain(engine, "Q", RevisionPolicy(1, 1), mode="turns", budgets=Budgets(revision=3))
    assert chain.final == "A zero."
    assert chain.status == "revision 1 was cut off: its token budget was used up; 1 revision was enforced, 0 made"
