"""One entry for every engine: which way it is driven, and what happens when something goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.prompts import GUIDED_PROMPTS, PROMPT_SETS
from selfee.chain.record import from_json, to_json
from selfee.chain.run import MODES, ChainStream, Mode, choose_mode, run_chain, stream_chain
from selfee.chain.selectors import Selector, highest_score, least_doubted
from selfee.chain.types import Chain, ChainEnd, ChainFinished, CutReason, Event, Section, SectionEnd, SectionStart
from selfee.engines.base import ChatRequest, Chunk, Request, SamplingParams
from selfee.engines.scripted import Reply, ScriptedEngine
from selfee.errors import ContextOverflowError, EngineError, UsageError

SINGLE = (
    "A zero.\n\n### Feedback 1:\nWrong, 3/10. Revision is needed.\n\n### Revision 1:\nA one.\n\n### Feedback 2:\n"
    "Good, 9/10. Revision is needed.\n\n### Revision 2:\nA two.\n\n### Feedback 3:\n"
    "Worse, 5/10. Revision is not needed."
)
PIECES = [
    "A zero.",
    "Wrong, 3/10. Revision is needed.",
    "A one.",
    "Good, 9/10. Revision is needed.",
    "A two.",
    "Worse, 5/10. Revision is not needed.",
]
DRIVERS: tuple[Mode, ...] = ("single-pass", "guided", "turns")


def script(mode: Mode, error_in: int | None = None) -> ScriptedEngine:
    """The same chain for each way to drive an engine; section number ``error_in`` breaks off after its first word."""
    if mode == "single-pass":
        if error_in is None:
            return ScriptedEngine([SINGLE])
        words = 2 * error_in + sum(len(piece.split()) for piece in PIECES[:error_in])
        return ScriptedEngine([Reply(SINGLE, error="gone", error_after=words + error_in + 1)])
    pieces = [Reply(text) for text in PIECES]
    if mode == "guided":  # verdicts in other words, because guided mode takes over at "Revision is"
        pieces = [
            Reply(
                text.replace("Revision is needed", "It needs revision")
                .replace("Revision is not", "It is not")
                .replace("It is not needed", "There is no need for revision")
            )
            for text in PIECES
        ]
    if error_in is not None:
        pieces[error_in] = Reply(pieces[error_in].text, error="gone", error_after=1)
        pieces = pieces[: error_in + 1]
    return ScriptedEngine(pieces)


def collect(stream: ChainStream, events: list[Event]) -> None:
    """Keeps the events that came before an error."""
    for event in stream:
        events.append(event)


class Dead:
    """An engine that is not there."""

    name = "dead"
    context_length = None

    def stream(self, request: Request) -> Iterator[Chunk]:
        raise EngineError("dead: cannot be reached; start it")


@pytest.mark.parametrize("mode", DRIVERS)
def test_every_way_gives_the_same_answers_and_ends_with_the_chain(mode: Mode) -> None:
    events = list(stream_chain(script(mode), "Q", mode=mode))
    assert isinstance(events[-1], ChainFinished)
    chain = events[-1].chain
    assert [step.answer for step in chain.steps] == ["A zero.", "A one.", "A two."]
    assert (chain.final, chain.end, chain.mode, chain.engine) == ("A two.", ChainEnd.ACCEPTED, mode, "script")
    starts = [(event.section, event.number) for event in events if isinstance(event, SectionStart)]
    assert starts == [
        (Section.ANSWER, 0),
        (Section.FEEDBACK, 1),
        (Section.REVISION, 1),
        (Section.FEEDBACK, 2),
        (Section.REVISION, 2),
        (Section.FEEDBACK, 3),
    ]
    assert run_chain(script(mode), "Q", params=SamplingParams(seed=chain.seed), mode=mode) == chain
    assert from_json(to_json(chain)) == chain


@pytest.mark.parametrize("mode", DRIVERS)
@pytest.mark.parametrize("section", range(6))
def test_cancelling_in_any_section_leaves_a_sound_chain(mode: Mode, section: int) -> None:
    engine = script(mode)
    stream = stream_chain(engine, "Q", mode=mode)
    started = -1
    for event in stream:
        started += isinstance(event, SectionStart)
        if started == section and not isinstance(event, SectionStart):
            break
    stream.close()
    chain = stream.chain
    assert (chain.end, chain.cut) == (ChainEnd.CUT_OFF, CutReason.CANCELLED)
    assert len(chain.steps) == section // 2 + 1
    finished = [step.answer for step in chain.steps if step.answer_finished]
    assert finished == ["A zero.", "A one.", "A two."][: (section + 1) // 2]
    assert chain.final == (finished[-1] if finished else chain.steps[0].answer)
    assert chain.status.startswith("cancelled in ")
    assert engine.cancelled == 1
    assert list(stream) == []
    assert from_json(to_json(chain)) == chain


@pytest.mark.parametrize("mode", DRIVERS)
@pytest.mark.parametrize("section", range(6))
def test_what_was_made_before_an_engine_failed_is_delivered_before_the_error(mode: Mode, section: int) -> None:
    events: list[Event] = []
    with pytest.raises(EngineError, match="gone"):
        collect(stream_chain(script(mode, section), "Q", mode=mode), events)
    assert isinstance(events[-1], ChainFinished)
    chain = events[-1].chain
    assert (chain.end, chain.cut) == (ChainEnd.CUT_OFF, CutReason.ERROR)
    assert "gone" in chain.status
    answers = ["A zero.", "A one.", "A two."][: (section + 1) // 2]
    assert [step.answer for step in chain.steps if step.answer_finished] == answers
    opened = sum(isinstance(event, SectionStart) for event in events)
    assert opened == sum(isinstance(event, SectionEnd) for event in events) == section + 1


@pytest.mark.parametrize("mode", DRIVERS)
def test_run_chain_returns_what_was_made_and_raises_only_if_nothing_was_finished(mode: Mode) -> None:
    chain = run_chain(script(mode, 3), "Q", mode=mode)
    assert (chain.final, chain.cut) == ("A one.", CutReason.ERROR)
    with pytest.raises(EngineError, match="gone"):
        run_chain(script(mode, 0), "Q", mode=mode)


def test_an_engine_that_is_not_there_is_an_error() -> None:
    with pytest.raises(EngineError, match="cannot be reached"):
        run_chain(Dead(), "Q", mode="guided")


def test_a_prompt_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ContextOverflowError):
        run_chain(ScriptedEngine(["A"], context_length=5), "Q " * 50, mode="single-pass")


def test_a_server_that_refuses_prompt_and_limit_together_is_asked_for_less() -> None:
    class Strict(ScriptedEngine):
        """Like a server with a window of 300 tokens that refuses instead of cutting short."""

        count_tokens = None  # type: ignore[assignment]

        def stream(self, request: Request) -> Iterator[Chunk]:
            if (request.max_tokens or 0) > 300:
                self.requests.append(request)
                raise ContextOverflowError("server: prompt and max_tokens exceed 300")
            return super().stream(request)

    engine = Strict([SINGLE])
    chain = run_chain(engine, "Q", mode="single-pass")
    assert chain.final == "A two."
    limits = [request.max_tokens or 0 for request in engine.requests]
    assert limits == sorted(limits, reverse=True)
    assert len({request.params.seed for request in engine.requests}) == 1, "nothing was generated: the same request"


def test_a_context_that_overflows_in_mid_chain_ends_it_without_an_error() -> None:
    class Filling(ScriptedEngine):
        def stream(self, request: Request) -> Iterator[Chunk]:
            if "### Revision 1" in request.prompt:
                raise ContextOverflowError("engine: full")
            return super().stream(request)

    engine = Filling(["A", "Bad, it needs revision."])
    chain = run_chain(engine, "Q", RevisionPolicy(1), mode="guided", prompts="plain")
    assert (chain.end, chain.cut, chain.final) == (ChainEnd.CUT_OFF, CutReason.CONTEXT, "A")


class Trained(ScriptedEngine):
    trained_on_chains = True


class Mute(ScriptedEngine):
    supports_chat = False


class ChatOnly:
    name = "chat"
    context_length = None

    def stream_chat(self, request: object) -> Iterator[Chunk]:
        yield from ()


def test_the_mode_follows_from_the_engine() -> None:
    assert choose_mode(ScriptedEngine()) == "turns"
    assert choose_mode(Trained()) == "single-pass"
    assert choose_mode(Mute()) == "guided"
    assert choose_mode(ChatOnly()) == "turns"
    assert [choose_mode(ScriptedEngine(), mode) for mode in MODES[1:]] == list(MODES[1:])


def test_a_mode_that_the_engine_cannot_do_is_refused() -> None:
    with pytest.raises(UsageError, match="chat template"):
        choose_mode(Mute(), "turns")
    with pytest.raises(UsageError, match="only chats"):
        choose_mode(ChatOnly(), "guided")
    with pytest.raises(UsageError, match="unknown"):
        choose_mode(ScriptedEngine(), "magic")  # type: ignore[arg-type]


def test_small_models_get_short_prompts_and_unknown_prompts_are_refused() -> None:
    engine = ScriptedEngine(["A"])
    engine.num_parameters = 135_000_000  # type: ignore[attr-defined]
    assert run_chain(engine, "Q", RevisionPolicy(0, 0)).settings["prompts"] == "small"
    for mode, prompts in (("turns", "plain"), ("guided", "standard")):
        with pytest.raises(UsageError, match="expected one of"):
            stream_chain(ScriptedEngine(), "Q", mode=mode, prompts=prompts)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="guided mode"):
        stream_chain(ScriptedEngine(), "Q", mode="turns", prompts=GUIDED_PROMPTS["plain"])
    with pytest.raises(UsageError, match="for turns"):
        stream_chain(ScriptedEngine(), "Q", mode="guided", prompts=PROMPT_SETS["small"])


def test_settings_and_seed_are_recorded() -> None:
    chain = run_chain(script("turns"), "Q", RevisionPolicy(0, 2), SamplingParams(temperature=0.2, seed=5), stop=["END"])
    assert chain.seed == 5
    assert chain.settings["policy"] == {
        "min_revisions": 0,
        "max_revisions": 2,
        "stop_repeats": True,
        "always_criticise": False,
        "accept_score": None,
    }
    assert chain.settings["params"]["temperature"] == 0.2
    assert chain.settings["params"]["seed"] == 5
    assert chain.settings["budgets"] == {"answer": 1024, "feedback": 256, "revision": 1024}
    assert chain.settings["selector"] == "last_finished"
    assert chain.settings["stop"] == ["END"]
    assert "context_length" not in chain.settings  # not known of this engine
    assert "reference" not in chain.settings


def test_whatever_else_shapes_a_chain_is_recorded() -> None:
    engine = ScriptedEngine(["A.", "Good. Revision is not needed."], context_length=900)
    chain = run_chain(engine, "Q", mode="turns", prompts="selfee-code", reference="A good answer.")
    assert chain.settings["context_length"] == 900
    assert chain.settings["reference"] == "A good answer."


@pytest.mark.parametrize("mode", DRIVERS)
def test_the_best_attempt_is_delivered_where_a_selector_is_given(mode: Mode) -> None:
    chain = run_chain(script(mode), "Q", mode=mode, selector=highest_score)
    assert (chain.selected, chain.final) == (1, "A one.")


def test_the_least_doubted_attempt_is_chosen_by_the_verdicts_probabilities() -> None:
    doubts = iter([[-1.0, -2.0], [-1.0, -9.0], [-1.0, -1.5], [-1.0, -3.0]])
    engine = ScriptedEngine(
        ["A", "Hm.", "B", "Hm.", "C", "Hm.", "D", "Hm."], scores=lambda prompt, choices: next(doubts)
    )
    chain = run_chain(engine, "Q", mode="guided", selector=least_doubted)
    assert (chain.selected, chain.final) == (2, "C")


@pytest.mark.parametrize("mode", ["single-pass", "turns"])
def test_verdicts_in_words_are_scored_where_they_decide(mode: Mode) -> None:
    doubts = {"Wrong, 3/10.": [-1.0, -9.0], "Good, 9/10.": [-9.0, -1.0], "Worse, 5/10.": [-1.0, -1.5]}

    def score(prompt: str, choices: object) -> list[float]:
        assert prompt.endswith(" Revision is")
        assert prompt.count("### Feedback") == 1, "earlier rounds do not bias the score"
        return next(found for words, found in doubts.items() if f"{words} Revision is" in prompt)

    engine = script(mode)
    scoring = ScriptedEngine(engine._replies, scores=score, strict=False)
    chain = run_chain(scoring, "Q", mode=mode, selector=least_doubted)
    assert (chain.selected, chain.final) == (1, "A one.")
    assert [step.verdict and step.verdict.needed for step in chain.steps] == [True, True, False], "words stay words"
    assert run_chain(script(mode), "Q", mode=mode, selector=least_doubted).selected is None


def test_a_score_that_cannot_be_had_leaves_the_verdict_as_it_is() -> None:
    def fail(prompt: str, choices: object) -> list[float]:
        raise ContextOverflowError("too long")

    engine = ScriptedEngine(PIECES, scores=fail)
    chain = run_chain(engine, "Q", mode="turns", selector=least_doubted)
    assert (chain.selected, chain.final) == (None, "A two.")


@pytest.mark.parametrize("selector", [highest_score, least_doubted])
def test_an_empty_answer_is_never_selected(selector: Selector) -> None:
    scores = iter([[-1.0, -1.5], [-9.0, -1.0]])
    engine = ScriptedEngine(["A", "Poor, 2/10.", "", "Good, 9/10."], scores=lambda prompt, choices: next(scores))
    chain = run_chain(engine, "Q", mode="turns", selector=selector)
    assert (chain.num_revisions, chain.final) == (1, "A")


def test_selectors_without_anything_to_go_by_leave_the_last_finished_answer() -> None:
    for selector in (highest_score, least_doubted):
        chain = run_chain(ScriptedEngine(["A\n\n### Feedback 1:\nGood."]), "Q", mode="single-pass", selector=selector)
        assert chain.selected is None
        assert chain.final == "A"


@pytest.mark.parametrize("choice", [-1, 7])
def test_a_selector_that_names_no_finished_answer_is_an_error_after_the_chain(choice: int) -> None:
    def choose(chain: Chain) -> int:
        return choice

    events: list[Event] = []
    with pytest.raises(UsageError, match="selector"):
        collect(stream_chain(script("turns"), "Q", selector=choose), events)
    assert isinstance(events[-1], ChainFinished)
    assert events[-1].chain.final == "A two."


def test_a_stream_is_a_context_that_cancels() -> None:
    engine = script("turns")
    with stream_chain(engine, "Q") as stream:
        next(stream)
        next(stream)
    assert engine.cancelled == 1
    assert stream.chain.cut is CutReason.CANCELLED


def test_before_its_first_event_a_chain_is_empty() -> None:
    stream = stream_chain(script("turns"), "Q")
    assert stream.chain.steps == ()
    assert stream.chain.status == "cancelled before the first answer"


@pytest.mark.parametrize("piece", ["more ", ""])
@pytest.mark.parametrize("mode", DRIVERS)
def test_an_engine_that_ignores_every_limit_is_closed(mode: Mode, piece: str) -> None:
    class Endless(ScriptedEngine):
        closed = False

        def _endless(self) -> Iterator[Chunk]:
            try:
                while True:
                    yield Chunk(piece)
            finally:
                self.closed = True

        def stream(self, request: Request) -> Iterator[Chunk]:
            return self._endless()

        def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
            return self._endless()

    engine = Endless()
    chain = run_chain(engine, "Q", mode=mode, budgets=Budgets(answer=10))
    assert (chain.end, chain.cut) == (ChainEnd.CUT_OFF, CutReason.LENGTH)
    assert engine.closed


def test_a_server_that_sends_single_characters_does_not_use_up_a_budget_sooner() -> None:
    engine = ScriptedEngine([Reply(SINGLE, chunks=1)])
    chain = run_chain(engine, "Q", mode="single-pass", budgets=Budgets(answer=9, feedback=9, revision=9))
    assert chain.end is ChainEnd.ACCEPTED


@pytest.mark.parametrize("stop", ["END", [""]])
def test_stop_strings_that_cannot_be_looked_for_are_refused(stop: list[str]) -> None:
    with pytest.raises(UsageError, match="stop"):
        stream_chain(script("single-pass"), "Q", mode="single-pass", stop=stop)
