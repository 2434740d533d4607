"""The released chains and training records of SelFee: read whole, and the published figures again."""

from __future__ import annotations

import collections
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.chain.strategies import merge_deltas

from selfee.chain.budgets import Budgets
from selfee.chain.format import header, read_prompt, render_prompt, render_steps, render_target, split_prompt
from selfee.chain.parser import ChainParser, read_chain
from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import from_answer, from_dataset, from_json, to_answer, to_dataset, to_json
from selfee.chain.run import run_chain
from selfee.chain.types import Chain, ChainEnd, CutReason, Section, SectionEnd
from selfee.chain.verdict import find_verdict, overrule
from selfee.engines.base import FinishReason
from selfee.engines.scripted import Reply, ScriptedEngine
from selfee.jsonl import read_jsonl

pytestmark = pytest.mark.corpus

ENFORCED = (0, 1, 3)


def released(corpus: Path, enforced: int) -> list[dict[str, Any]]:
    path = corpus / "selfee" / "answer" / f"selfee_13b_enforce_{enforced}_revisions.jsonl"
    return [row for _, row in read_jsonl(path)]


def read(row: dict[str, Any]) -> Chain:
    return from_answer(row)


@pytest.fixture(scope="module")
def rows(corpus: Path) -> list[dict[str, Any]]:
    rows = [row for enforced in ENFORCED for row in released(corpus, enforced)]
    assert len(rows) == 240
    return rows


def test_every_released_chain_is_rendered_byte_for_byte_from_what_was_read(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        chain = read(row)
        assert render_prompt(chain.instruction) + render_target(chain) == row["whole_generation"]
        assert read_chain(render_target(chain), chain.instruction) == chain


def test_the_final_answer_equals_every_released_text(rows: list[dict[str, Any]]) -> None:
    assert [read(row).final for row in rows] == [row["text"] for row in rows]


def test_released_chains_give_the_same_events_character_by_character(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        _, target = split_prompt(row["whole_generation"])
        whole, pieces = ChainParser(), ChainParser()
        expected = [*whole.feed(target), *whole.finish()]
        events = [event for char in target for event in pieces.feed(char)] + list(pieces.finish())
        assert merge_deltas(events) == merge_deltas(expected)


def test_released_chains_give_the_same_events_in_pieces_of_any_size(rows: list[dict[str, Any]]) -> None:
    for number, row in enumerate(rows):
        _, target = split_prompt(row["whole_generation"])
        size = 1 + number % 29
        whole, pieces = ChainParser(), ChainParser()
        expected = [*whole.feed(target), *whole.finish()]
        cut = [target[start : start + size] for start in range(0, len(target), size)]
        events = [event for piece in cut for event in pieces.feed(piece)] + list(pieces.finish())
        assert merge_deltas(events) == merge_deltas(expected)


@pytest.mark.parametrize(
    ("enforced", "revisions", "delivered", "well_formed"),
    [
        (0, {0: 49, 1: 6, 2: 9, 3: 13, 4: 3}, {0: 49, 1: 7, 2: 19, 3: 4, 4: 1}, 66),
        (1, {1: 22, 2: 33, 3: 18, 4: 7}, {1: 24, 2: 46, 3: 8, 4: 2}, 58),
        (3, {2: 7, 3: 52, 4: 21}, {1: 3, 2: 36, 3: 33, 4: 8}, 32),
    ],
)
def test_the_published_figures_come_out_again(
    corpus: Path, enforced: int, revisions: dict[int, int], delivered: dict[int, int], well_formed: int
) -> None:
    chains = [read(row) for row in released(corpus, enforced)]
    assert collections.Counter(chain.num_revisions for chain in chains) == revisions
    assert collections.Counter(chain.delivered for chain in chains) == delivered
    assert sum(not chain.steps[-1].answer_finished for chain in chains) == 80 - well_formed
    assert sum(chain.steps[-1].feedback is not None for chain in chains) == well_formed


def test_the_13b_models_autonomous_verdicts_are_counted_as_published(corpus: Path) -> None:
    steps = [step for row in released(corpus, 0) for step in read(row).steps if step.feedback is not None]
    verdicts = collections.Counter(step.verdict.needed if step.verdict else None for step in steps)
    assert verdicts == {True: 76, False: 64, None: 1}  # None: the feedback that was cut off at the token limit


def test_every_released_novision_is_followed_by_a_revision(rows: list[dict[str, Any]]) -> None:
    found = 0
    for row in rows:
        chain = read(row)
        for step, following in zip(chain.steps, [*chain.steps[1:], None], strict=True):
            if step.feedback and "novision is needed" in step.feedback.lower():
                found += 1
                assert step.verdict is not None
                assert step.verdict.needed
                assert following is not None
    assert found == 5


def test_released_prompts_are_ours(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        prompt, _ = split_prompt(row["whole_generation"])
        assert render_prompt(read_prompt(prompt)) == prompt


def test_thirteen_of_77_second_revisions_repeat_the_first_word_for_word(corpus: Path) -> None:
    pairs = []
    for row in released(corpus, 3):
        finished = [step.answer for step in read(row).steps if step.answer_finished]
        if len(finished) > 2:
            pairs.append((finished[1], finished[2]))
    assert (len(pairs), sum(first == second for first, second in pairs)) == (77, 13)


def test_released_chains_survive_our_own_lines_and_the_answer_schema(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        chain = read(row)
        assert from_json(to_json(chain)) == chain
        written = to_answer(chain, row["question_id"], row["answer_id"], row["model_id"])
        assert written | {"metadata": {}} == row


@pytest.mark.parametrize("name", ["conala", "mbpp"])
def test_training_records_survive_reading_and_writing(corpus: Path, name: str) -> None:
    path = corpus / "selfee" / "augmented" / f"feedback_gpt_3.5_turbo_{name}.jsonl"
    for number, row in read_jsonl(path):
        chain = from_dataset(row, f"{path}:{number}")
        expected = {key: value for key, value in row.items() if key != "output"}
        assert to_dataset(chain) | {"iteration_truncated": row["iteration_truncated"]} == expected
        assert from_json(to_json(chain)) == chain


@pytest.mark.parametrize(("name", "share"), [("conala", 0.94), ("mbpp", 0.97)])
def test_nearly_every_training_critique_has_a_verdict_and_it_agrees_with_what_followed(
    corpus: Path, name: str, share: float
) -> None:
    path = corpus / "selfee" / "augmented" / f"feedback_gpt_3.5_turbo_{name}.jsonl"
    agree = disagree = silent = 0
    for _, row in read_jsonl(path):
        for index, output in enumerate(row["outputs"]):
            verdict = find_verdict(output["feedback"])
            if verdict is None:
                silent += 1
            elif verdict.needed == (index + 1 < len(row["outputs"])):
                agree += 1
            else:
                disagree += 1
    assert (agree + disagree) / (agree + disagree + silent) > share
    assert agree / (agree + disagree) > 0.98


def test_every_training_critique_can_be_overruled(corpus: Path) -> None:
    for name in ("conala", "mbpp"):
        for _, row in read_jsonl(corpus / "selfee" / "augmented" / f"feedback_gpt_3.5_turbo_{name}.jsonl"):
            for output in row["outputs"]:
                overruled = overrule(output["feedback"])
                verdict = find_verdict(overruled)
                assert verdict is not None
                assert verdict.needed
                assert "ovision" not in overruled


def test_a_released_chain_taken_up_at_its_last_feedback_gives_the_same_sections(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        _, target = split_prompt(row["whole_generation"])
        chain = read(row)
        number = len(chain.steps) - (chain.steps[-1].feedback is None)
        rest = target.rpartition(header(Section.FEEDBACK, number))[2]
        parser = ChainParser(Section.FEEDBACK, number)
        texts = [event.text for event in (*parser.feed(rest), *parser.finish()) if isinstance(event, SectionEnd)]
        assert texts[0] == chain.steps[number - 1].feedback


def test_a_model_that_says_a_released_chain_gets_that_chain_and_its_text_delivered(rows: list[dict[str, Any]]) -> None:
    policy = RevisionPolicy(0, None, stop_repeats=False)
    for row in rows:
        _, target = split_prompt(row["whole_generation"])
        expected = read(row)
        ending = FinishReason.END if expected.steps[-1].answer_finished else FinishReason.CONTEXT
        engine = ScriptedEngine([Reply(target, finish_reason=ending)])
        chain = run_chain(engine, expected.instruction, policy, mode="single-pass", budgets=Budgets(2048, 2048, 2048))
        texts = [(step.answer, step.feedback) for step in expected.steps]
        assert [(step.answer, step.feedback) for step in chain.steps][: len(texts)] == texts
        assert chain.final == row["text"]
        asks_on = expected.steps[-1].verdict is not None and expected.steps[-1].verdict.needed
        assert len(chain.steps) == len(texts) + asks_on, "a text that ends by asking for a revision is asked for it"
        if ending is FinishReason.CONTEXT:
            assert (chain.end, chain.cut) == (ChainEnd.CUT_OFF, CutReason.CONTEXT)


@pytest.mark.parametrize(("fewer", "more", "counts"), [(0, 1, (38, 8, 3)), (1, 3, (42, 6, 1))])
def test_our_overruled_text_is_what_the_original_went_on_from(
    corpus: Path, fewer: int, more: int, counts: tuple[int, int, int]
) -> None:
    """The released files are greedy, so a chain enforced further begins with the one enforced less, overruled.

    Equal to the byte, except where the original lost the full stop or wrote "Novision", and where its answers differ.
    """
    broken = ("Revision is needed", "Novision is needed", "Novision is needed.")
    same = botched = other = 0
    for row, further in zip(released(corpus, fewer), released(corpus, more), strict=True):
        chain = read(row)
        step = chain.steps[-1]
        if chain.num_revisions >= more or step.feedback is None or step.verdict is None or step.verdict.needed:
            continue
        steps = (*chain.steps[:-1], replace(step, feedback=overrule(step.feedback)))
        resumed = render_prompt(chain.instruction) + render_steps(steps) + header(Section.REVISION, len(steps))
        before, _, after = resumed.rpartition("Revision is needed.")
        whole = further["whole_generation"]
        if whole.startswith(resumed):
            same += 1
        elif whole.startswith(tuple(before + said + after for said in broken)):
            botched += 1
        else:
            other += 1
    assert (same, botched, other) == counts
