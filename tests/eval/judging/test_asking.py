"""Asking a judge: again where it cannot be read, weighed where it tells probabilities, recorded in any case."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.eval.biased_judge import Biases, serve

from selfee.engines.base import ChatRequest, TokenLogprob
from selfee.engines.paid.journalled import journal_local
from selfee.engines.paid.opening import PaidServer, open_paid
from selfee.engines.paid.prices import Price
from selfee.engines.scripted import Reply, Rule, ScriptedEngine
from selfee.errors import StoppedError
from selfee.eval.answers import Answer, Turn
from selfee.eval.folder import Folder
from selfee.eval.judging.asking import AskRules, ask
from selfee.eval.judging.files import merge_judgments, review_row, write_reviews
from selfee.eval.judging.items import Item, Scope, plan_pairs, plan_singles
from selfee.eval.judging.run import assign, estimate, judge_items
from selfee.eval.judging.templates import OwnTemplates
from selfee.eval.judging.weighing import weigh_label, weigh_rating
from selfee.eval.questions import Question
from selfee.eval.rows import read_rows
from selfee.eval.scoring.judgment import Form, Judgment, Label, Unreadable
from selfee.journal import Journal

QUESTIONS = [Question(str(number), (f"Question {number}?",), "generic") for number in range(6)]
SYSTEMS = {
    name: [
        Answer(q.id, name, (Turn(f"{name} says {q.id} [quality {quality}]"),), answer_id=f"{name}{q.id}")
        for q in QUESTIONS
    ]
    for name, quality in (("good", 8), ("bad", 4))
}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as journal:
        yield journal


def items_of(form: Form) -> list[Item]:
    if form is Form.SINGLE_SCORE:
        return plan_singles(QUESTIONS, SYSTEMS, Scope())
    return plan_pairs(QUESTIONS, SYSTEMS, [("good", "bad")], Scope())


def asked(
    journal: Journal, replies: Sequence[str | Reply], form: Form = Form.PAIR_SCORES, **rules: object
) -> tuple[Judgment, ScriptedEngine]:
    script = ScriptedEngine(replies, strict=False)
    item = items_of(form)[0]
    template = OwnTemplates(form).choose(item.question, 0, with_reference=False)
    judgment = ask(journal_local(script, journal), item, template, replace(AskRules(), **rules))  # type: ignore[arg-type]
    return judgment, script


def test_a_readable_reply_is_recorded_with_all_that_was_asked(journal: Journal) -> None:
    judgment, _ = asked(journal, ['The first is better.\n{"scores": [8, 4]}'], temperature=0.2, seed=5)
    assert judgment.scores == (8.0, 4.0)
    assert judgment.winner is Label.FIRST
    assert (judgment.first.name, judgment.second.name if judgment.second else "") == ("good", "bad")
    assert judgment.parameters == {"temperature": 0.2, "seed": 5, "max_tokens": 1024, "asks": 3, "fences": True}
    assert judgment.usage is not None
    assert judgment.usage.requests == 1
    assert judgment.earlier_replies == ()
    assert Judgment.from_row(json.loads(json.dumps(judgment.as_row())), "x") == judgment


def test_a_reply_that_cannot_be_read_is_asked_for_again_with_the_reason(journal: Journal) -> None:
    judgment, script = asked(journal, ["Both are fine.", '{"scores": [6, 7]}'])
    assert judgment.scores == (6.0, 7.0)
    assert judgment.earlier_replies == ("Both are fine.",)
    again = script.requests[1]
    assert isinstance(again, ChatRequest)
    assert [message.role for message in again.messages] == ["system", "user", "assistant", "user"]
    assert "it holds no verdict" in again.messages[-1].content
    assert '{"scores": [6, 7.5]}' in again.messages[-1].content


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", Unreadable.EMPTY),
        ("Both are fine.", Unreadable.NO_VERDICT),
        ('{"scores": [60, 70]}', Unreadable.OUT_OF_RANGE),
        ('{"scores": [6, 7]}\n{"scores": [7, 6]}', Unreadable.CONTRADICTION),
    ],
)
def test_a_judge_that_never_says_anything_readable_has_no_score_but_a_reason(
    reply: str, reason: Unreadable, journal: Journal
) -> None:
    judgment, script = asked(journal, [reply] * 3)
    assert (judgment.scores, judgment.label, judgment.unreadable) == (None, None, reason)
    assert judgment.earlier_replies == (reply, reply)
    assert len(script.requests) == 3


def test_a_reply_cut_off_by_its_limit_says_so_and_the_judge_is_asked_to_be_brief(journal: Journal) -> None:
    judgment, script = asked(journal, ["one two three four five"] * 2, max_tokens=3, asks=2)
    assert "the reply was cut off by its token limit" in judgment.notes
    again = script.requests[1]
    assert isinstance(again, ChatRequest)
    assert "be brief" in again.messages[-1].content


def test_a_judge_that_fails_is_recorded_as_failed_and_asked_again_the_next_time(journal: Journal) -> None:
    judgment, _ = asked(journal, [Reply("", error="down")])
    assert judgment.unreadable is Unreadable.FAILED
    assert "down" in judgment.notes[-1]
    again, _ = asked(journal, ['{"scores": [6, 7]}'])
    assert again.scores == (6.0, 7.0)
    assert again.id == judgment.id


def test_judgments_of_one_run_have_equal_parameters_whatever_they_are_about(journal: Journal) -> None:
    work = assign(items_of(Form.PAIR_SCORES), OwnTemplates(Form.PAIR_SCORES))
    engine = journal_local(ScriptedEngine(rules=[Rule('{"scores": [6, 7]}')]), journal)
    judged = judge_items(engine, work, AskRules(seed=3)).judgments
    assert {json.dumps(each.parameters) for each in judged} == {json.dumps(judged[0].parameters)}
    assert len({each.id for each in judged}) == len(judged) == 12


def test_what_could_change_a_reply_changes_the_name_of_the_judgment(journal: Journal) -> None:
    reply = '{"scores": [6, 7]}'
    told: list[dict[str, Any]] = [
        {},
        {"temperature": 0.3},
        {"seed": 1},
        {"max_tokens": 5},
        {"fences": False},
        {"asks": 2},
    ]
    assert len({asked(journal, [reply], **rules)[0].id for rules in told}) == len(told)


def test_a_judge_that_cannot_chat_is_sent_one_text(journal: Journal) -> None:
    class Completes(ScriptedEngine):
        supports_chat = False

    item = items_of(Form.PAIR_LABEL)[0]
    template = OwnTemplates(Form.PAIR_LABEL).choose(item.question, 0, with_reference=False)
    engine = Completes([" [[A]]"])
    assert ask(journal_local(engine, journal), item, template, AskRules()).label is Label.FIRST
    assert not isinstance(engine.requests[0], ChatRequest)


def tokens(*parts: tuple[str, dict[str, float]]) -> list[TokenLogprob]:
    return [
        TokenLogprob(
            -1, text, math.log(top.get(text, 1.0)), tuple((-1, other, math.log(p)) for other, p in top.items())
        )
        for text, top in parts
    ]


def test_a_label_is_weighed_by_its_rivals_at_the_same_place() -> None:
    told = tokens(("Good. ", {}), ("[[", {}), ("A", {"A": 0.6, "B": 0.2, "C": 0.2, "x": 0.1}), ("]]", {}))
    assert weigh_label("Good. [[A]]", told, Label.FIRST) == pytest.approx(0.7)
    joined = tokens(("Good. ", {}), ("[[A]]", {"[[A]]": 0.5, "[[B]]": 0.25, "I": 0.2}))
    assert weigh_label("Good. [[A]]", joined, Label.FIRST) == pytest.approx(2 / 3)
    assert weigh_label("Good.", told, None) is None
    assert weigh_label("Good. [[A]]", [], Label.FIRST) is None


def test_a_rating_is_what_the_probabilities_expect() -> None:
    told = tokens(("Rating: [[", {}), ("7", {"7": 0.5, "8": 0.25, "10": 0.25, "0": 0.1}), ("]]", {}))
    assert weigh_rating("Rating: [[7]]", told) == pytest.approx(8.0)
    cut = tokens(("Rating: [[", {}), ("1", {"1": 1.0}), ("0", {"0": 1.0}), ("]]", {}))
    assert weigh_rating("Rating: [[10]]", cut) is None


@pytest.mark.parametrize("form", list(Form))
def test_a_server_judges_in_every_form_and_is_weighed_where_it_tells_probabilities(
    form: Form, journal: Journal
) -> None:
    with serve(Biases(confidence=0.8)) as server:
        paid = PaidServer(server.url, "biased-judge", price=Price(1.0, 1.0))
        with open_paid(paid, journal) as engine:
            work = assign(items_of(form), OwnTemplates(form))
            judged = judge_items(engine, work, AskRules(weighs=True), parallel=3).judgments
    assert [each.question_id for each in judged] == [item.question_id for item in items_of(form)]
    if form is Form.SINGLE_SCORE:
        assert [each.scores for each in judged] == [(8.0,)] * 6 + [(4.0,)] * 6
        assert all("weighed" in each.notes[-1] for each in judged)
    else:
        assert [each.winner for each in judged] == [Label.FIRST, Label.SECOND] * 6
    if form is Form.PAIR_LABEL:
        assert [each.preference for each in judged] == [pytest.approx(0.85), pytest.approx(0.15)] * 6
    assert all(each.usage is not None and each.usage.cost for each in judged)
    known = {"model", "messages", "stream", "stream_options", "max_tokens", "temperature", "top_p", "seed"}
    sent = {field for body in server.requests for field in body}
    assert {"logprobs", "top_logprobs"} <= sent <= known | {"logprobs", "top_logprobs"}


def test_a_budget_that_is_spent_ends_the_run_and_keeps_what_there_is(journal: Journal) -> None:
    class Broke:
        name = model = "broke"
        supports_chat = True

        def __init__(self) -> None:
            self.left = 4
            self.inner = journal_local(ScriptedEngine(rules=[Rule('{"scores": [6, 7]}')]), journal)

        def obtain(self, request: ChatRequest) -> object:
            self.left -= 1
            if self.left < 0:
                raise StoppedError("stopped: --max-cost")
            return self.inner.obtain(request)

    work = assign(items_of(Form.PAIR_SCORES), OwnTemplates(Form.PAIR_SCORES))
    judged = judge_items(Broke(), work, AskRules())  # type: ignore[arg-type]
    assert judged.stopped == "stopped: --max-cost"
    assert len(judged.judgments) == 4


def test_an_estimate_counts_what_the_journal_does_not_have(journal: Journal) -> None:
    work = assign(items_of(Form.PAIR_SCORES), OwnTemplates(Form.PAIR_SCORES))
    engine = journal_local(ScriptedEngine(rules=[Rule('{"scores": [6, 7]}')]), journal)
    before = estimate(engine, work, AskRules(), journal, Price(1.0, 2.0))
    assert (before.judgments, before.known, before.completion_tokens) == (12, 0, 12 * 250)
    assert before.cost == pytest.approx((before.prompt_tokens + 2 * before.completion_tokens) / 1e6)
    judge_items(engine, work[:5], AskRules())
    after = estimate(engine, work, AskRules(), journal, None)
    assert (after.known, after.completion_tokens, after.cost) == (5, 7 * 250, None)


def test_judgments_of_several_commands_come_together_in_one_order(tmp_path: Path, journal: Journal) -> None:
    work = assign(items_of(Form.PAIR_SCORES), OwnTemplates(Form.PAIR_SCORES))
    engine = journal_local(ScriptedEngine(rules=[Rule('{"scores": [6, 7]}')]), journal)
    judged = judge_items(engine, work, AskRules()).judgments
    ids = [question.id for question in QUESTIONS]
    merge_judgments(tmp_path / "whole.jsonl", judged, ids)
    for part in (judged[7:], judged[:7], judged[3:9]):
        merge_judgments(tmp_path / "parts.jsonl", part, ids)
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_reviews_are_written_as_the_original_has_them_and_never_hide_an_unreadable_one(
    tmp_path: Path, journal: Journal
) -> None:
    judgment, _ = asked(journal, ['{"scores": [6, 7.5]}'])
    assert review_row(judgment, 3) == {
        "review_id": judgment.id[:22],
        "question_id": 0,
        "answer1_id": "good0",
        "answer2_id": "bad0",
        "reviewer_id": 3,
        "metadata": {"judge": "script", "template": "selfee-pair-scores"},
        "text": '{"scores": [6, 7.5]}',
        "score": [6.0, 7.5],
    }
    silent, _ = asked(journal, ["Hm."] * 3, seed=1)
    assert review_row(silent, 1)["score"] == [-1, -1]
    assert review_row(silent, 1)["metadata"]["unreadable"] == "no-verdict"
    folder = Folder(tmp_path)
    folder.make()
    [path] = write_reviews(folder, [judgment, silent], {})
    assert path.name == "review_good_vs_bad.jsonl"
    assert len(list(read_rows(path))) == 2
