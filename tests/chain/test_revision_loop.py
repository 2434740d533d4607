"""The table of faults R1 to R14 of the revision loop (serving specification, 5.1), row by row."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.run import Mode, run_chain, stream_chain
from selfee.chain.types import Chain, ChainEnd, ChainFinished, CutReason, Event, SectionEnd, SectionStart
from selfee.engines.base import SamplingParams
from selfee.engines.scripted import Reply, ScriptedEngine, split_tokens
from selfee.errors import UsageError

SIX = (
    "Revision is not needed",
    "revision is not needed",
    "No revision is needed",
    "no revision is needed",
    "No revisions needed",
    "no revisions needed",
)


def single(replies: Sequence[Reply | str], low: int = 0, high: int | None = 3, **options: object) -> Chain:
    engine = ScriptedEngine(replies, strict=False)
    return run_chain(engine, "Q", RevisionPolicy(low, high), mode="single-pass", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunks", range(1, 25))
def test_r1_a_phrase_may_be_split_over_any_pieces(chunks: int) -> None:
    chain = single([Reply("A\n\n### Feedback 1:\nGood. Revision is not needed.", chunks=chunks), "B"], 1, 1)
    assert chain.steps[0].feedback == "Good. Revision is needed."


@pytest.mark.parametrize("mention", ['"Revision is not needed"', "`Revision is not needed`", "“no revision is needed”"])
def test_r2_a_phrase_in_quotes_or_code_is_not_a_verdict(mention: str) -> None:
    chain = single(
        [f"A\n\n### Feedback 1:\nIt prints {mention} here. Revision is needed.", "B\n\n### Feedback 2:\nGood."]
    )
    assert chain.num_revisions == 1
    assert mention in (chain.steps[0].feedback or "")
    assert chain.steps[0].overruled is None


@pytest.mark.parametrize("phrase", [*SIX, "REVISION IS NOT NEEDED", "No Revision Is Needed"])
@pytest.mark.parametrize("low", [0, 1])
def test_r3_every_spelling_is_understood_and_overruled(phrase: str, low: int) -> None:
    chain = single([f"A\n\n### Feedback 1:\nFine. {phrase}.", "B\n\n### Feedback 2:\nFine."], low, 1)
    assert chain.num_revisions == low
    assert chain.steps[0].feedback == ("Fine. Revision is needed." if low else f"Fine. {phrase}.")


def test_r4_a_minimum_above_the_maximum_is_refused() -> None:
    with pytest.raises(UsageError, match="min_revisions"):
        RevisionPolicy(4, 3)


@pytest.mark.parametrize("low", range(4))
def test_r5_enforcement_gives_that_many_revisions_or_says_why_not(low: int) -> None:
    replies = [f"A{n}\n\n### Feedback {n + 1}:\nGood." for n in range(low + 1)]
    assert single(replies, low).num_revisions == low
    short = single([*replies[:1], Reply("", error="gone")], low) if low else None
    if short is not None:
        assert short.num_revisions <= low
        assert "gone" in short.status


@pytest.mark.parametrize("mode", ["single-pass", "guided", "turns"])
def test_r6_a_model_that_never_stops_is_capped(mode: Mode) -> None:
    engine = ScriptedEngine(["on and " * 100_000], strict=False)
    chain = run_chain(engine, "Q", RevisionPolicy(2), mode=mode, budgets=Budgets(answer=40))
    assert (chain.end, chain.cut) == (ChainEnd.CUT_OFF, CutReason.LENGTH)
    assert len(split_tokens(chain.final)) <= 41


def test_r6_a_model_that_always_wants_more_is_capped_by_the_maximum() -> None:
    text = "A0" + "".join(
        f"\n\n### Feedback {n}:\nRevision is needed.\n\n### Revision {n}:\nA{n}" for n in range(1, 500)
    )
    chain = single([text], 0, 5)
    assert (chain.num_revisions, chain.end) == (5, ChainEnd.CAPPED)
    assert chain.final == "A5"


def test_r7_empty_feedback_is_silence_and_an_unchanged_revision_stops() -> None:
    empty = single(["A\n\n### Feedback 1:\n"])
    assert (empty.end, empty.steps[0].feedback) == (ChainEnd.ACCEPTED, "")
    same = single(["A\n\n### Feedback 1:\nRevision is needed.\n\n### Revision 1:\nA\n\n### Feedback 2:\nHm."])
    assert same.end is ChainEnd.UNCHANGED


@pytest.mark.parametrize("room", range(34, 64))
def test_r8_however_little_context_is_left_the_last_complete_answer_is_delivered(room: int) -> None:
    text = (
        "A zero is here.\n\n### Feedback 1:\nIt is too short. Revision is needed.\n\n### Revision 1:\n"
        "A one is here and is longer.\n\n### Feedback 2:\nRevision is not needed."
    )
    chain = run_chain(ScriptedEngine([text], context_length=room, strict=False), "Q", mode="single-pass")
    finished = [step.answer for step in chain.steps if step.answer_finished]
    if finished:
        assert chain.final == finished[-1]
        assert set(finished) <= {"A zero is here.", "A one is here and is longer."}
    assert chain.is_complete or chain.cut is CutReason.CONTEXT


def test_r9_an_end_without_feedback_is_accepted_or_overruled() -> None:
    assert single(["A"]).end is ChainEnd.ACCEPTED
    assert single(["A", "Hm.", "B"], 1).num_revisions == 1


@pytest.mark.parametrize("headers", [("### Feedback1:", "### Revision1:"), ("### Feedback 1 :", "###Revision 1:")])
def test_r10_header_variants_are_read(headers: tuple[str, str]) -> None:
    chain = single([f"A\n\n{headers[0]}\nRevision is needed.\n\n{headers[1]}\nB\n\n### Feedback 2:\nGood."])
    assert (chain.final, chain.num_revisions) == ("B", 1)


@pytest.mark.parametrize("mode", ["single-pass", "guided", "turns"])
def test_r11_the_same_seed_and_settings_give_the_same_chain_and_another_seed_other_requests(mode: Mode) -> None:
    def once(seed: int) -> tuple[Chain, list[int | None]]:
        replies = [
            f"A{n}\n\n### Feedback {n + 1}:\nx" if mode == "single-pass" else f"No revision is needed {n}"
            for n in range(9)
        ]
        engine = ScriptedEngine(replies, strict=False)
        chain = run_chain(engine, "Q", RevisionPolicy(2, 2), SamplingParams(seed=seed), mode=mode)
        return chain, [request.params.seed for request in engine.requests]

    assert once(1) == once(1)
    assert not set(once(1)[1]) & set(once(2)[1])


@pytest.mark.parametrize("after", range(1, 12))
def test_r12_cancelling_after_any_event_leaves_a_chain_that_can_be_shown(after: int) -> None:
    text = "A b\n\n### Feedback 1:\nRevision is needed.\n\n### Revision 1:\nC d\n\n### Feedback 2:\nGood."
    stream = stream_chain(ScriptedEngine([text]), "Q", mode="single-pass")
    for _ in range(after):
        next(stream)
    stream.close()
    chain = stream.chain
    assert chain.cut is CutReason.CANCELLED
    assert chain.final in ("", "A", "A b", "C d")


def test_r13_a_users_stop_string_in_feedback_is_text() -> None:
    chain = single(
        ["A\n\n### Feedback 1:\nSTOP it. Revision is needed.\n\n### Revision 1:\nB STOP c", "Good."], stop=["STOP"]
    )
    assert chain.steps[0].feedback == "STOP it. Revision is needed."
    assert chain.final == "B "


def test_r14_a_chain_folded_from_its_events_is_the_chain_that_was_made() -> None:
    replies = ["A\n\n### Feedback 1:\nGood. Revision is not needed.", "B\n\n### Feedback 2:\nGood."]
    events: list[Event] = list(stream_chain(ScriptedEngine(replies), "Q", RevisionPolicy(1), mode="single-pass"))
    last = events[-1]
    assert isinstance(last, ChainFinished)
    answers = [event.text for event in events if isinstance(event, SectionEnd) and event.section.is_answer]
    assert answers == [step.answer for step in last.chain.steps]
    assert sum(isinstance(event, SectionStart) for event in events) == 4
    again = run_chain(
        ScriptedEngine(replies), "Q", RevisionPolicy(1), SamplingParams(seed=last.chain.seed), mode="single-pass"
    )
    assert again == last.chain
