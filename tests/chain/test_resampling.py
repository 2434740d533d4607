"""Best-of-N: attempts like any first answer, a budget that is kept, and a choice that says why."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chain.test_run import DRIVERS

from selfee.chain.allowance import Allowance, match_cost
from selfee.chain.checkers import FunctionChecker
from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import samples_from_json, samples_to_json
from selfee.chain.resampling import KEEPS, Keep, SampleEvent, SamplesStream, run_samples, stream_samples
from selfee.chain.run import Mode, run_chain
from selfee.chain.samples import Sampled, Samples, SamplesEnd, SamplesFinished
from selfee.chain.types import Chain, ChainEnd, ChainFinished, CutReason, SectionStart
from selfee.chain.votes import Vote, last_number
from selfee.engines.base import ChatRequest, Chunk, FinishReason, Request, SamplingParams
from selfee.engines.scripted import Reply, ScriptedEngine
from selfee.errors import BadFileError, EngineError, UsageError

PARAMS = SamplingParams(seed=5)


def through_json(samples: Samples) -> Samples:
    return samples_from_json(json.loads(json.dumps(samples_to_json(samples))))


def passes(*answers: str) -> FunctionChecker:
    return FunctionChecker(lambda instruction, answer: answer in answers, name="passes")


@pytest.mark.parametrize("mode", DRIVERS)
def test_every_attempt_is_a_first_answer_to_the_same_prompt_with_a_seed_of_its_own(mode: Mode) -> None:
    engine = ScriptedEngine(["It is 4.", "It is 5.", "So 5."])
    samples = run_samples(engine, "Q", 3, PARAMS, keep="vote", mode=mode)
    assert [attempt.final for attempt in samples.attempts] == ["It is 4.", "It is 5.", "So 5."]
    assert {attempt.num_revisions for attempt in samples.attempts} == {0}
    seeds = [attempt.seed for attempt in samples.attempts]
    assert seeds[0] == 5
    assert len(set(seeds)) == 3
    assert (samples.end, samples.chosen, samples.final) == (SamplesEnd.COMPLETE, 1, "It is 5.")
    assert samples.votes == (Vote("5", (1, 2)), Vote("4", (0,)))
    assert samples.status == "3 attempts; attempt 2 is delivered: 2 of 3 attempts came to '5'"
    prompts = {str(getattr(request, "prompt", getattr(request, "messages", ""))) for request in engine.requests}
    assert len(prompts) == 1
    assert repr(through_json(samples)) == repr(samples)


def test_an_attempt_can_be_made_again_alone() -> None:
    samples = run_samples(ScriptedEngine(["a", "b"]), "Q", 2, PARAMS, keep="first")
    again = run_chain(ScriptedEngine(["b"]), "Q", RevisionPolicy(0, 0), SamplingParams(seed=samples.attempts[1].seed))
    assert again == samples.attempts[1]
    assert samples.final == run_chain(ScriptedEngine(["a"]), "Q", RevisionPolicy(0, 0), PARAMS).final


def test_the_same_seed_gives_the_same_samples() -> None:
    first, second = (run_samples(ScriptedEngine(["a", "b"]), "Q", 2, PARAMS, keep="vote") for _ in range(2))
    assert first == second


@pytest.mark.parametrize("mode", ["guided", "turns"])
def test_the_least_doubted_is_chosen_after_one_feedback_each(mode: Mode) -> None:
    doubts = iter([[-1.0, -2.0], [-9.0, -1.0], [-1.0, -1.5]])
    engine = ScriptedEngine(["a", "Hm.", "b", "Hm.", "c", "Hm."], scores=lambda prompt, choices: next(doubts))
    samples = run_samples(engine, "Q", 3, mode=mode)
    assert (samples.chosen, samples.final) == (1, "b")
    assert all(attempt.steps[0].feedback for attempt in samples.attempts)
    assert {attempt.num_revisions for attempt in samples.attempts} == {0}
    assert [attempt.end for attempt in samples.attempts] == [ChainEnd.CAPPED, ChainEnd.ACCEPTED, ChainEnd.CAPPED]
    assert samples.status.endswith("its critic asks for a revision with probability 0.00")
    assert samples.settings["keep"] == "doubt"


def test_a_verdict_in_words_counts_as_certain_and_silence_as_nothing() -> None:
    engine = ScriptedEngine(["a", "Revision is needed.", "b", "Hm.", "?", "c", "Fine. Revision is not needed."])
    samples = run_samples(engine, "Q", 3, mode="turns")
    assert samples.chosen == 2
    only_silence = run_samples(ScriptedEngine(["a", "Hm.", "?"]), "Q", 1, mode="turns")
    assert (only_silence.chosen, only_silence.final) == (None, "a")
    assert only_silence.status == "1 attempt; the first is delivered"


@pytest.mark.parametrize("mode", ["single-pass", "turns"])
def test_attempts_that_all_want_a_revision_are_told_apart_by_how_much(mode: Mode) -> None:
    verdict = "Revision is needed."
    pieces = [("a", f"Hm. {verdict}"), ("b", f"Well. {verdict}"), ("c", f"No. {verdict}")]
    whole = [f"{answer}\n\n### Feedback 1:\n{feedback}" for answer, feedback in pieces]
    doubts = {"Hm.": [-1.0, -2.0], "Well.": [-1.0, -1.1], "No.": [-1.0, -9.0]}

    def score(prompt: str, choices: Sequence[str]) -> Sequence[float]:
        return next(found for words, found in doubts.items() if prompt.endswith(f"{words} Revision is"))

    replies = whole if mode == "single-pass" else [text for piece in pieces for text in piece]
    samples = run_samples(ScriptedEngine(replies, scores=score), "Q", 3, mode=mode)
    assert (samples.chosen, samples.final) == (1, "b")
    assert repr(through_json(samples)) == repr(samples)


def test_a_trained_model_criticises_its_attempt_in_the_same_stream() -> None:
    whole = "{}\n\n### Feedback 1:\n{} Revision is {}needed.\n\n### Revision 1:\nmore"
    engine = ScriptedEngine([whole.format("a", "Bad.", ""), whole.format("b", "Good.", "not ")])
    samples = run_samples(engine, "Q", 2, mode="single-pass")
    assert [attempt.num_revisions for attempt in samples.attempts] == [0, 0]
    assert [attempt.steps[0].feedback is not None for attempt in samples.attempts] == [True, True]


def test_the_highest_score_in_words_is_chosen_and_of_equals_the_first() -> None:
    verdict = "Revision is needed."
    engine = ScriptedEngine(["a", f"5/10 {verdict}", "b", f"8/10 {verdict}", "c", f"8/10 {verdict}"])
    samples = run_samples(engine, "Q", 3, keep="score", mode="turns")
    assert (samples.chosen, samples.status) == (1, "3 attempts; attempt 2 is delivered: its critic gave it 8 of 10")


def test_what_passes_the_check_is_chosen_and_of_equals_the_first() -> None:
    samples = run_samples(ScriptedEngine(["a", "b", "c"]), "Q", 3, checker=passes("b", "c"))
    assert (samples.chosen, samples.final) == (1, "b")
    assert samples.settings["checker"] == {"name": "passes", "signal": "external"}
    none = run_samples(ScriptedEngine(["a", "b"]), "Q", 2, checker=passes())
    assert (none.chosen, none.final) == (None, "a")
    assert "no attempt passed the check" in none.status
    scored = run_samples(ScriptedEngine(["a", "bb"]), "Q", 2, checker=FunctionChecker(lambda _, answer: len(answer)))
    assert scored.chosen == 1


def test_sampling_ends_with_the_first_that_passes() -> None:
    engine = ScriptedEngine(["a", "b", "c"], strict=False)
    samples = run_samples(engine, "Q", 3, checker=passes("b"), until_passed=True)
    assert (samples.end, samples.chosen, len(samples.attempts)) == (SamplesEnd.PASSED, 1, 2)
    assert samples.attempts[1].end is ChainEnd.PASSED


def test_a_checker_that_fails_leaves_the_first_and_the_status_tells() -> None:
    def fail(instruction: object, answer: str) -> bool:
        raise ValueError("gone")

    samples = run_samples(ScriptedEngine(["a", "b"]), "Q", 2, checker=FunctionChecker(fail))
    assert (samples.chosen, samples.final) == (None, "a")
    assert samples.status.endswith("2 checks failed themselves: ValueError: gone")


def test_an_extractor_that_raises_costs_a_vote_and_nothing_else() -> None:
    def extract(text: str) -> str:
        if text == "a":
            raise RuntimeError("hm")
        return text

    samples = run_samples(ScriptedEngine(["a", "b"]), "Q", 2, keep="vote", extractor=extract)
    assert samples.votes == (Vote("b", (1,)),)
    nothing = run_samples(ScriptedEngine(["a"]), "Q", 1, keep="vote", extractor=lambda text: None)
    assert (nothing.chosen, nothing.final, nothing.votes) == (None, "a", ())


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    total=st.integers(1, 60),
    count=st.none() | st.integers(1, 12),
)
def test_an_attempt_begins_within_the_allowance_and_is_finished(
    lengths: list[int], total: int, count: int | None
) -> None:
    texts = [" ".join(["word"] * length) for length in lengths * 60]
    samples = run_samples(
        ScriptedEngine(texts, strict=False), "Q", count, PARAMS, keep="vote", allowance=Allowance(tokens=total)
    )
    costs = [attempt.cost.tokens for attempt in samples.attempts]
    assert sum(costs[:-1]) < total
    assert all(attempt.is_complete for attempt in samples.attempts)
    assert samples.cost.tokens == sum(costs)
    if count is None or len(costs) < count:
        assert samples.end is SamplesEnd.SPENT
        assert sum(costs) >= total
        assert f"{sum(costs)} tokens of {total} token" in samples.status
    else:
        assert samples.end is SamplesEnd.COMPLETE
    assert repr(through_json(samples)) == repr(samples)


def test_resampling_at_the_cost_of_a_chain_spends_as_much_as_it_to_an_attempt() -> None:
    replies = ["It is 4.", "Wrong. Revision is needed.", "It is 5.", "Good. Revision is not needed."]
    chain = run_chain(ScriptedEngine(replies), "Q", mode="turns")
    answers = [f"It is {number}." for number in (4, 5, 5, 6, 5, 5, 5, 5)]
    samples = run_samples(
        ScriptedEngine(answers, strict=False), "Q", keep="vote", extractor=last_number, allowance=match_cost(chain)
    )
    longest = max(attempt.cost.tokens for attempt in samples.attempts)
    assert chain.cost.tokens <= samples.cost.tokens < chain.cost.tokens + longest
    assert samples.votes[0].answer == "5"


def test_an_engine_that_says_nothing_is_not_asked_for_ever() -> None:
    samples = run_samples(ScriptedEngine([""] * 9, strict=False), "Q", keep="vote", allowance=Allowance(tokens=5))
    assert len(samples.attempts) == 5
    assert (samples.delivered, samples.final) == (None, "")


def test_seconds_end_sampling_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Slow(ScriptedEngine):
        def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
            now[0] += 4
            return super().stream_chat(request)

    monkeypatch.setattr("selfee.chain.allowance.time.monotonic", lambda: now[0])
    samples = run_samples(Slow(["a"] * 9, strict=False), "Q", keep="vote", allowance=Allowance(seconds=10))
    assert len(samples.attempts) == 3


def test_an_attempt_that_was_cut_off_is_not_delivered() -> None:
    cut = Reply("one two", finish_reason=FinishReason.LENGTH)
    samples = run_samples(ScriptedEngine([cut, "b"]), "Q", 2, keep="vote", mode="turns")
    assert (samples.chosen, samples.final) == (1, "b")


def collect(stream: SamplesStream, events: list[SampleEvent]) -> None:
    for event in stream:
        events.append(event)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_what_was_made_before_an_engine_failed_is_delivered_before_the_error(failing: int) -> None:
    replies: list[Reply | str] = ["a", "b", "c"]
    replies[failing] = Reply("one two", error="gone", error_after=1)
    events: list[SampleEvent] = []
    with pytest.raises(EngineError, match="gone"):
        collect(stream_samples(ScriptedEngine(replies, strict=False), "Q", 3, keep="vote", mode="turns"), events)
    assert isinstance(events[-1], SamplesFinished)
    samples = events[-1].samples
    assert (samples.end, len(samples.attempts)) == (SamplesEnd.CUT_OFF, failing + 1)
    assert samples.attempts[-1].cut is CutReason.ERROR
    assert "gone" in samples.status
    if failing:
        assert run_samples(ScriptedEngine(replies, strict=False), "Q", 3, keep="vote", mode="turns").final == "a"
    else:
        with pytest.raises(EngineError, match="gone"):
            run_samples(ScriptedEngine(replies, strict=False), "Q", 3, keep="vote", mode="turns")


@pytest.mark.parametrize("attempt", [0, 1])
def test_cancelling_leaves_sound_samples_and_closes_the_request(attempt: int) -> None:
    engine = ScriptedEngine(["one two", "three four"])
    with stream_samples(engine, "Q", 2, keep="vote", mode="turns") as stream:
        for event in stream:
            if isinstance(event, Sampled) and event.attempt == attempt and not isinstance(event.event, SectionStart):
                break
    samples = stream.samples
    assert engine.cancelled == 1
    assert (samples.end, len(samples.attempts)) == (SamplesEnd.CUT_OFF, attempt + 1)
    assert samples.attempts[-1].cut is CutReason.CANCELLED
    assert samples.final == ("one two" if attempt else "one")
    assert list(stream) == []
    assert repr(through_json(samples)) == repr(samples)


def test_before_its_first_event_there_is_no_attempt() -> None:
    stream = stream_samples(ScriptedEngine(["a"], strict=False), "Q", 1, keep="first")
    assert stream.samples.attempts == ()
    assert stream.samples.final == ""
    stream.close()
    assert list(stream) == []


def test_events_tell_their_attempt_and_each_ends_with_its_chain() -> None:
    events = list(stream_samples(ScriptedEngine(["a", "b"]), "Q", 2, keep="first"))
    assert isinstance(events[-1], SamplesFinished)
    ends = [event for event in events[:-1] if isinstance(event, Sampled) and isinstance(event.event, ChainFinished)]
    assert [event.attempt for event in ends] == [0, 1]
    chains: Sequence[Chain] = [event.event.chain for event in ends if isinstance(event.event, ChainFinished)]
    assert tuple(chains) == events[-1].samples.attempts


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"count": 2, "mode": "magic"}, "mode: 'magic'"),
        ({"count": 2, "stop": [""]}, "stop"),
        ({}, "would never end"),
        ({"count": 2, "params": SamplingParams(temperature=0)}, "temperature is 0"),
        ({"count": 2, "keep": "best"}, "keep is 'best'"),
        ({"count": 2, "keep": "check"}, "no checker"),
        ({"count": 2, "until_passed": True}, "no checker"),
        ({"count": 2, "keep": "vote", "checker": passes(), "until_passed": True}, "set keep to 'check'"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stream_samples(ScriptedEngine(), "Q", **wrong)


@pytest.mark.parametrize("keep", [keep for keep in KEEPS if keep != "check"])
def test_nothing_to_go_by_leaves_the_first_finished(keep: Keep) -> None:
    samples = run_samples(ScriptedEngine(["", "", "a", "Hm", "?"], strict=False), "Q", 1, keep=keep, mode="turns")
    assert samples.delivered is None
    assert isinstance(samples.status, str)


FULL = run_samples(ScriptedEngine(["1", "2"]), "Q", 2, PARAMS, keep="vote")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("end",), "done", "end is 'done'"),
        (("chosen",), 2, "chosen is 2"),
        (("chosen",), "0", "'chosen' is a str"),
        (("votes", 0, "attempts"), [7], r"votes\[0\]: field 'attempts'"),
        (("votes", 0, "attempts"), [True], r"votes\[0\]: field 'attempts'"),
        (("votes", 0), 3, r"votes\[0\]: found a int"),
        (("attempts", 1, "end"), "x", r"attempts\[1\]: end is 'x'"),
        (("attempts",), None, "'attempts' is a NoneType"),
    ],
)
def test_a_damaged_line_is_refused_by_name(path: tuple[Any, ...], value: Any, message: str) -> None:
    row = copy.deepcopy(samples_to_json(FULL))
    inner: Any = row
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(BadFileError, match=message):
        samples_from_json(row)


def test_a_line_says_what_was_delivered_and_what_it_cost() -> None:
    row = samples_to_json(FULL)
    assert (row["final"], row["delivered"], row["tokens"]) == ("1", 0, 2)
    assert [attempt["final"] for attempt in row["attempts"]] == ["1", "2"]


def test_a_request_that_only_completes_is_sampled_too() -> None:
    class Completes:
        name = "completes"
        context_length = None

        def stream(self, request: Request) -> Iterator[Chunk]:
            return ScriptedEngine(["a"]).stream(request)

    assert run_samples(Completes(), "Q", 2, keep="vote").votes == (Vote("a", (0, 1)),)
