"""What a whole chain may spend: nothing finished is lost, nothing that cannot fit is begun."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chain.test_run import DRIVERS, PIECES, script

from selfee.chain.allowance import Allowance, Purse, match_cost
from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import from_json, to_json
from selfee.chain.run import Mode, run_chain, stream_chain
from selfee.chain.types import ChainEnd, Cost, CutReason, SectionEnd, SectionStart
from selfee.engines.base import ChatRequest, Chunk, Request, SamplingParams
from selfee.engines.scripted import Reply, ScriptedEngine, split_tokens
from selfee.errors import UsageError

PARAMS = SamplingParams(seed=1)
ENDLESS = RevisionPolicy(max_revisions=None)
WORDS = st.lists(st.sampled_from(["one", "two", "three", "\n", "###", "it."]), max_size=12).map(" ".join)


@st.composite
def scripts(draw: st.DrawFn, mode: Mode) -> list[Reply]:
    """Chains of any length whose critic is never or at last content, delivered in pieces of any size."""
    rounds = draw(st.integers(1, 5))
    answers = [f"{number} {draw(WORDS)}" for number in range(rounds)]
    verdict = "It needs revision." if mode == "guided" else "Revision is needed."
    feedback = [f"{draw(WORDS)} {verdict}" for _ in range(rounds)]
    if draw(st.booleans()):
        feedback[-1] = "There is no need for revision."
    chunks = draw(st.sampled_from([None, 1, 3, 1000]))
    if mode != "single-pass":
        return [Reply(text, chunks) for pair in zip(answers, feedback, strict=True) for text in pair]
    whole = answers[0]
    for number, text in enumerate(feedback, 1):
        whole += f"\n\n### Feedback {number}:\n{text}"
        if number < rounds:
            whole += f"\n\n### Revision {number}:\n{answers[number]}"
    return [Reply(whole, chunks)]


@pytest.mark.parametrize("mode", DRIVERS)
@settings(max_examples=400)
@given(data=st.data(), total=st.integers(1, 80))
def test_tokens_never_exceed_the_allowance_and_no_finished_answer_is_lost(
    mode: Mode, data: st.DataObject, total: int
) -> None:
    replies = data.draw(scripts(mode))
    engine = ScriptedEngine([*replies, *[Reply("It needs revision.")] * 9])
    ends = []
    stream = stream_chain(
        engine, "Q", ENDLESS, PARAMS, mode=mode, allowance=Allowance(tokens=total), prompts=_plain(mode)
    )
    for event in stream:
        if isinstance(event, SectionEnd) and event.section.is_answer and event.finished and event.text.strip():
            ends.append(event.text)
    chain = stream.chain
    longest_piece = max(len(split_tokens(piece)) for reply in replies for piece in reply.pieces(reply.text) or [""])
    assert chain.cost.tokens <= total + longest_piece
    assert [step.answer for step in chain.steps if step.is_deliverable] == ends
    assert chain.final == (ends[-1] if ends else chain.steps[0].answer)
    assert (chain.cut is CutReason.SPENT) <= (chain.end is ChainEnd.CUT_OFF)
    assert repr(from_json(to_json(chain))) == repr(chain)
    again = ScriptedEngine([*replies, *[Reply("It needs revision.")] * 9])
    allowance = Allowance(tokens=total)
    assert run_chain(again, "Q", ENDLESS, PARAMS, mode=mode, allowance=allowance, prompts=_plain(mode)) == chain


def test_text_that_is_held_back_counts_when_pieces_are_recounted() -> None:
    reply = Reply("0 one \n \n\n\n### Feedback 1:\n### Revision is needed.", chunks=3)
    chain = run_chain(ScriptedEngine([reply]), "Q", ENDLESS, mode="single-pass", allowance=Allowance(tokens=10))
    assert chain.cost.tokens <= 11


def _plain(mode: Mode) -> str | None:
    return "plain" if mode == "guided" else None


@pytest.mark.parametrize("mode", DRIVERS)
def test_an_engine_that_honours_limits_is_never_asked_for_more_than_is_left(mode: Mode) -> None:
    for total in range(1, 80):
        chain = run_chain(script(mode), "Q", ENDLESS, mode=mode, allowance=Allowance(tokens=total))
        assert chain.cost.tokens <= total, (total, chain)
        if chain.end is ChainEnd.ACCEPTED:
            return
    pytest.fail("80 tokens are enough for this chain")


@pytest.mark.parametrize("mode", DRIVERS)
def test_an_answer_under_way_when_tokens_run_out_is_cut_off(mode: Mode) -> None:
    chain = run_chain(script(mode), "Q", mode=mode, allowance=Allowance(tokens=1))
    assert (chain.end, chain.cut, chain.final) == (ChainEnd.CUT_OFF, CutReason.SPENT, "A")
    assert chain.status == "the first answer was cut off: the allowance of the whole chain is spent"


@pytest.mark.parametrize("mode", DRIVERS)
def test_a_revision_that_is_not_likely_to_fit_is_not_begun(mode: Mode) -> None:
    first = len(split_tokens(PIECES[0])) + len(split_tokens(PIECES[1]))
    headers = 6 if mode == "single-pass" else 0  # "### Feedback 1:", "### Revision 1:"
    stream = stream_chain(script(mode), "Q", mode=mode, allowance=Allowance(tokens=first + headers + 1))
    starts = [(event.section.value, event.number) for event in stream if isinstance(event, SectionStart)]
    chain = stream.chain
    assert starts[:2] == [("answer", 0), ("feedback", 1)]
    assert chain.final == "A zero."
    assert chain.end is ChainEnd.SPENT
    assert chain.is_complete
    assert "are spent; revision 1 would take about" in chain.status


def test_feedback_is_begun_where_a_revision_would_not_fit_so_that_the_last_answer_is_judged_too() -> None:
    engine = ScriptedEngine(["one two three four", "Good. Revision is not needed."])
    chain = run_chain(engine, "Q", mode="turns", allowance=Allowance(tokens=9))
    assert chain.end is ChainEnd.ACCEPTED


def test_enforced_revisions_that_could_not_be_paid_are_named() -> None:
    chain = run_chain(script("turns"), "Q", RevisionPolicy(3, None), mode="turns", allowance=Allowance(tokens=9))
    assert chain.status.endswith("; 3 revisions were enforced, 1 made")


def test_a_verdict_that_never_came_because_tokens_ran_out_is_no_consent() -> None:
    engine = ScriptedEngine(["one two", "Hm well."])
    chain = run_chain(engine, "Q", mode="turns", allowance=Allowance(tokens=4))
    assert chain.end is ChainEnd.SPENT
    assert chain.status == "the allowance was spent before feedback 1 gave a verdict"
    cut = run_chain(ScriptedEngine(["one two", "Hm well so"]), "Q", mode="turns", allowance=Allowance(tokens=4))
    assert (cut.end, cut.cut) == (ChainEnd.CUT_OFF, CutReason.SPENT)


def test_asking_for_a_verdict_costs_tokens_too() -> None:
    chain = run_chain(ScriptedEngine(["A", "Hm.", "Revision is not needed."]), "Q", mode="turns")
    assert chain.cost.tokens == 1 + 1 + 4


class Clocked(ScriptedEngine):
    """Every piece takes a second on ``clock``."""

    def __init__(self, replies: Sequence[Reply | str]) -> None:
        super().__init__(replies)
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def _timed(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self.now += bool(chunk.text)
            yield chunk

    def stream(self, request: Request) -> Iterator[Chunk]:
        return self._timed(super().stream(request))

    def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
        return self._timed(super().stream_chat(request))


@pytest.mark.parametrize(("seconds", "final", "end"), [(1.5, "A zero.", "cut_off"), (99, "A two.", "accepted")])
@pytest.mark.parametrize("mode", DRIVERS)
def test_seconds_end_a_chain_between_two_pieces(
    mode: Mode, seconds: float, final: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = script(mode)
    engine = Clocked(plain._replies)
    monkeypatch.setattr("selfee.chain.allowance.time.monotonic", engine.clock)
    monkeypatch.setattr("selfee.chain.asking.time.monotonic", engine.clock)
    chain = run_chain(engine, "Q", mode=mode, allowance=Allowance(seconds=seconds))
    assert chain.end.value == end
    assert chain.final.startswith(final if end == "accepted" else "A")


def test_a_revision_that_would_take_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Clocked(["one two three four", "Bad. Revision is needed."])
    monkeypatch.setattr("selfee.chain.allowance.time.monotonic", engine.clock)
    monkeypatch.setattr("selfee.chain.asking.time.monotonic", engine.clock)
    chain = run_chain(engine, "Q", mode="turns", allowance=Allowance(seconds=10))
    assert (chain.end, chain.final) == (ChainEnd.SPENT, "one two three four")
    assert chain.status.startswith("8.0 s of 10 s are spent")


@pytest.mark.parametrize("piece", ["more ", " ", ""])
@pytest.mark.parametrize("mode", DRIVERS)
def test_an_engine_that_ignores_the_allowance_is_closed(mode: Mode, piece: str) -> None:
    class Endless(ScriptedEngine):
        def stream(self, request: Request) -> Iterator[Chunk]:
            while True:
                yield Chunk(piece)

        def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
            return self.stream(Request(""))

    chain = run_chain(Endless(), "Q", mode=mode, allowance=Allowance(tokens=10))
    assert (chain.end, chain.cut) == (ChainEnd.CUT_OFF, CutReason.SPENT)


def test_a_section_without_a_single_token_counts_as_one_so_that_a_silent_engine_ends() -> None:
    engine = ScriptedEngine(["", "Revision is needed."] * 50, strict=False)
    policy = RevisionPolicy(0, None, stop_repeats=False)
    chain = run_chain(engine, "Q", policy, mode="turns", allowance=Allowance(tokens=20))
    assert chain.end in (ChainEnd.SPENT, ChainEnd.CUT_OFF)


def test_a_sections_own_budget_still_holds() -> None:
    engine = ScriptedEngine(["one two three four"])
    chain = run_chain(engine, "Q", mode="turns", budgets=Budgets(answer=2), allowance=Allowance(tokens=100))
    assert chain.cut is CutReason.LENGTH


def test_the_allowance_is_recorded_and_an_unlimited_one_leaves_no_trace() -> None:
    limited = run_chain(script("turns"), "Q", mode="turns", allowance=Allowance(tokens=500))
    assert limited.settings["allowance"] == {"tokens": 500, "seconds": None}
    free = run_chain(script("turns"), "Q", mode="turns")
    assert "allowance" not in free.settings
    assert match_cost(free) == Allowance(tokens=free.cost.tokens)


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"tokens": -1}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_an_allowance_that_allows_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="allowance"):
        Allowance(**wrong)  # type: ignore[arg-type]


def test_a_purse_counts_from_when_it_is_opened() -> None:
    now = iter([5.0, 6.0, 8.0, 8.0, 8.0])
    purse = Purse(Allowance(seconds=3.0), lambda: next(now))
    assert purse.seconds == 0.0
    purse.open()
    assert purse.seconds == 1.0
    assert purse.is_late
    assert not purse.holds(Cost(seconds=0.5))
    assert str(Allowance(5, 2.0)) == "5 tokens and 2 s"
    assert str(Allowance()) == "no limit"
