"""Answers for every number of revisions from one run: those of runs of their own, however often it is killed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chain.test_shorter import Improviser

from selfee.chain.run import run_chain
from selfee.chain.types import Exchange, Instruction
from selfee.engines.base import ChatRequest, Chunk, SamplingParams
from selfee.engines.scripted import Reply, Rule, ScriptedEngine
from selfee.errors import EngineError, UsageError
from selfee.eval.answering.files import write_all
from selfee.eval.answering.plan import Plan, first_jobs
from selfee.eval.answering.run import Outcome, answer_questions
from selfee.eval.answers import Answer
from selfee.eval.folder import Folder
from selfee.eval.questions import Question
from selfee.journal import Journal

ONE_TURN = [Question(str(number), (f"Question {number}?",), "generic") for number in range(5)]
TWO_TURNS = [Question(str(number), (f"First {number}?", f"Then {number}?")) for number in range(3)]


class Chatter(Improviser):
    """The improviser as a chat model, several texts at a time."""

    parallel = 3

    def __init__(self, character: int) -> None:
        super().__init__(character)
        self.trained_on_chains = False
        self.asked = 0

    def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
        self.asked += 1
        return super().stream_chat(request)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal


def plan(**fields: object) -> Plan:
    return replace(Plan("mine", 3, params=SamplingParams(seed=11), prompts="standard"), **fields)  # type: ignore[arg-type]


def answers_of(folder: Path, outcome: Outcome, questions: list[Question], plan: Plan) -> dict[str, Answer]:
    place = Folder(folder)
    place.make()
    return {f"{each.question_id} {each.system}": each for each in write_all(place, questions, plan, outcome.made)}


def test_each_answer_is_that_of_a_run_of_its_own(journal: Journal, tmp_path: Path) -> None:
    engine = Chatter(3)
    outcome = answer_questions(engine, ONE_TURN, plan(), journal)
    answers = answers_of(tmp_path, outcome, ONE_TURN, plan())
    assert len(answers) == 5 * 5
    for question, job in zip(ONE_TURN, first_jobs(ONE_TURN, plan())):
        for system in plan().systems:
            params = replace(plan().params, seed=job.seed)
            chain = run_chain(engine, question.turns[0], plan().policy(system), params, prompts="standard")
            name = "mine" if system is None else f"mine@{system}"
            turn = answers[f"{question.id} {name}"].turns[0]
            assert (turn.text, turn.delivered) == (chain.final, chain.delivered)
            assert turn.spent == chain.cost.tokens


def test_a_second_turn_follows_what_each_system_delivered_first(journal: Journal, tmp_path: Path) -> None:
    engine = Chatter(5)
    outcome = answer_questions(engine, TWO_TURNS, plan(), journal)
    answers = answers_of(tmp_path, outcome, TWO_TURNS, plan())
    for question in TWO_TURNS:
        for system in plan().systems:
            first, second = answers[f"{question.id} {'mine' if system is None else f'mine@{system}'}"].turns
            job = next(
                one.job
                for one in outcome.made
                if one.job.turn == 1 and one.job.question is question and system in one.job.systems
            )
            instruction = Instruction(question.turns[1], history=(Exchange(question.turns[0], first.text),))
            params = replace(plan().params, seed=job.seed)
            chain = run_chain(engine, instruction, plan().policy(system), params, prompts="standard")
            assert second.text == chain.final


def test_systems_that_delivered_the_same_first_answer_share_their_second_chain(journal: Journal) -> None:
    content = "Fine. Revision is not needed."
    rules = [
        Rule(Reply("A second answer."), contains="user: Then"),
        Rule(Reply(content), contains="proposed answer"),
        Rule(Reply("An answer."), contains="First"),
    ]
    questions = [Question("1", ("First?", "Then?"))]
    engine = ScriptedEngine(rules=rules, strict=False)
    outcome = answer_questions(engine, questions, plan(revisions=2), journal)
    assert [(one.job.turn, one.job.systems) for one in outcome.made] == [(0, (0, 1, 2, None)), (1, (0, 1, 2, None))]
    assert {one.turn_of(2).status for one in outcome.made} == {"repeated"}


def test_autonomous_answers_are_what_the_model_delivers_by_itself(journal: Journal, tmp_path: Path) -> None:
    alone = plan(enforces=False)
    outcome = answer_questions(Chatter(3), ONE_TURN, alone, journal)
    enforced = answer_questions(Chatter(3), ONE_TURN, plan(), journal)
    own = answers_of(tmp_path / "a", outcome, ONE_TURN, alone)
    read_off = answers_of(tmp_path / "b", enforced, ONE_TURN, plan())
    assert {key: answer.texts for key, answer in own.items()} == {
        key: answer.texts for key, answer in read_off.items() if answer.revision is None
    }


@settings(max_examples=12)
@given(stop=st.integers(0, 40), seed=st.integers(0, 5))
def test_a_run_that_breaks_anywhere_and_goes_on_leaves_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, stop: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    questions = TWO_TURNS if seed % 2 else ONE_TURN
    with Journal(folder / "whole.sqlite") as journal:
        whole = answer_questions(Chatter(seed), questions, plan(), journal)
    engine = Breaking(seed, stop)
    with Journal(folder / "broken.sqlite") as journal:
        first = answer_questions(engine, random.Random(stop).sample(questions, 2), plan(), journal)
        engine.left = 10**9
        rest = answer_questions(engine, questions, plan(), journal, parallel=2)
    assert {one.turn for one in first.failures} <= {0, 1}
    texts = [
        {key: answer.texts for key, answer in answers_of(folder, each, questions, plan()).items()}
        for each in (whole, rest)
    ]
    assert texts[0] == texts[1]
    assert not rest.failures


class Breaking(Chatter):
    """Fails after so many requests."""

    def __init__(self, character: int, left: int) -> None:
        super().__init__(character)
        self.left = left

    def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
        self.left -= 1
        if self.left < 0:
            raise EngineError("broken", retryable=True)
        return super().stream_chat(request)


def test_what_the_journal_has_is_not_asked_again(journal: Journal) -> None:
    engine = Chatter(1)
    answer_questions(engine, ONE_TURN, plan(), journal)
    asked = engine.asked
    again = answer_questions(engine, ONE_TURN, plan(), journal)
    assert engine.asked == asked
    assert again.recalled == len(ONE_TURN)
    answer_questions(engine, ONE_TURN, plan(params=SamplingParams(seed=12)), journal)
    assert engine.asked > asked


def test_a_chain_that_failed_leaves_its_question_out_and_says_why(journal: Journal, tmp_path: Path) -> None:
    outcome = answer_questions(Breaking(1, 9), ONE_TURN, plan(), journal, parallel=1)
    answers = answers_of(tmp_path, outcome, ONE_TURN, plan())
    assert outcome.failures
    assert all("broken" in failure.reason for failure in outcome.failures)
    failed = {failure.question_id for failure in outcome.failures}
    assert failed.isdisjoint({answer.question_id for answer in answers.values()})


def test_the_order_of_questions_and_company_change_nothing(journal: Journal, tmp_path: Path) -> None:
    one = answer_questions(Chatter(2), ONE_TURN, plan(), journal, parallel=1)
    with Journal(tmp_path / "other.sqlite") as other_journal:
        other = answer_questions(Chatter(2), ONE_TURN[::-1], plan(), other_journal, parallel=4)
    texts = [
        {one.job.question.id: [step.answer for step in one.chain.steps] for one in each.made} for each in (one, other)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["", "a/b", "x@2", ".hidden"])
def test_a_name_that_cannot_name_a_file_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a file"):
        Plan(name)


def test_a_run_needs_a_seed() -> None:
    with pytest.raises(UsageError, match="seed"):
        Plan("mine", params=SamplingParams())
