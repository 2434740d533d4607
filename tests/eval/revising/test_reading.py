"""Chains that others made: the published figures of SelFee's release come out again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.eval.revising.made import chain, step

from selfee.chain.record import to_json
from selfee.errors import BadFileError
from selfee.eval.revising.cases import Case
from selfee.eval.revising.critics import critic_of
from selfee.eval.revising.grading import checker_of
from selfee.eval.revising.problems import read_problems
from selfee.eval.revising.reading import (
    checked_cases,
    grades_from,
    judged_cases,
    ladder,
    plain,
    read_recorded,
    ungraded_cases,
)
from selfee.eval.revising.rounds import attempts_of, delivery_of, rounds_of
from selfee.eval.scoring.estimates import Resampling
from selfee.llama.tokenizer import load_tokenizer
from selfee.weights.open import open_checkpoint

DRAWS = Resampling(draws=200)


def released(corpus: Path, enforced: int) -> Path:
    return corpus / "selfee" / "answer" / f"selfee_13b_enforce_{enforced}_revisions.jsonl"


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("enforced", "revisions", "delivered", "well_formed", "cut"),
    [
        (0, {"0": 49, "1": 6, "2": 9, "3": 13, "4": 3}, [49, 7, 19, 4, 1], 66, 14),
        (1, {"1": 22, "2": 33, "3": 18, "4": 7}, [0, 24, 46, 8, 2], 58, 22),
        (3, {"2": 7, "3": 52, "4": 21}, [0, 3, 36, 33, 8], 32, 48),
    ],
)
def test_released_chains_look_as_the_specification_says(
    corpus: Path, enforced: int, revisions: dict[str, int], delivered: list[int], well_formed: int, cut: int
) -> None:
    found = delivery_of(ungraded_cases(read_recorded(released(corpus, enforced))))
    assert found.chains == 80
    assert found.revisions == revisions
    assert [found.delivered.get(str(number), 0) for number in range(5)] == delivered
    assert (found.well_formed, found.cut, found.fell_back) == (well_formed, cut, cut)
    assert found.tokens is None


@pytest.mark.corpus
def test_most_of_a_released_revision_is_a_copy(corpus: Path) -> None:
    first, second, third = rounds_of(ungraded_cases(read_recorded(released(corpus, 3))), DRAWS)[:3]
    assert [round(100 * (each.copied.value or 0)) for each in (first, second, third)] == pytest.approx(
        [64, 85, 87], abs=3
    )
    assert (second.chains, second.identical) == (77, 13)


@pytest.mark.corpus
@pytest.mark.parametrize(("enforced", "published"), [(0, 2.39), (1, 3.31), (3, 3.98)])
def test_tokens_generated_for_one_delivered(corpus: Path, enforced: int, published: float) -> None:
    """Sections with their headers, tokenised one by one; how the specification counted is not known to the token."""
    with open_checkpoint(corpus / "vocab" / "ggml-vocab-llama-spm.gguf") as checkpoint:
        tokenizer = load_tokenizer(checkpoint.vocab)
    recorded = read_recorded(released(corpus, enforced), lambda text: len(tokenizer.encode(text, add_bos=False)))
    found = delivery_of(ungraded_cases(recorded))
    assert found.tokens_per_delivered == pytest.approx(published, rel=0.01)


@pytest.mark.corpus
def test_points_of_reviews_go_to_the_texts_that_judges_saw(corpus: Path) -> None:
    recorded = [read_recorded(released(corpus, enforced)) for enforced in (0, 1, 3)]
    reviews = sorted((corpus / "selfee" / "review").glob("*chatgpt*"))
    grades = grades_from(reviews, recorded)
    for each in recorded:
        for case in judged_cases(each, grades):
            assert case.grade_at(case.chain, case.chain.delivered) is not None
    steps = ladder(recorded, grades)
    assert len(steps) == 80
    sums = [sum(case.grade(case.chain.steps[number]) or 0.0 for case in steps) for number in range(3)]
    assert sums[0] < sums[1]  # enforcing one revision raised the points, as published
    assert [each.graded for each in rounds_of(steps, DRAWS)] == [80, 80]


@pytest.mark.corpus
@pytest.mark.slow
def test_training_chains_of_mbpp_pass_as_often_as_the_specification_says(corpus: Path) -> None:
    """Its figures (35.7 and 39.9 % pass, some 60 % of accepted answers fail) are about all 969 chains."""
    recorded = read_recorded(corpus / "selfee" / "augmented" / "feedback_gpt_3.5_turbo_mbpp.jsonl")
    problems = read_problems(corpus / "public" / "mbpp.jsonl")
    checkers = {plain(each.question): checker_of(each, any_name=True) for each in problems}
    cases = checked_cases(recorded, checkers)
    attempts = attempts_of(cases, DRAWS)
    critic = critic_of(cases)
    assert len(cases) == 600
    assert attempts[0].delivered_score.value == pytest.approx(0.357, abs=0.02)
    assert attempts[-1].delivered_score.value == pytest.approx(0.399, abs=0.02)
    assert critic is not None
    assert critic.wrong_if_accepted.value == pytest.approx(0.60, abs=0.02)


def test_our_own_lines_and_training_records_are_read(tmp_path: Path) -> None:
    record = {
        "iteration_truncated": False,
        "instruction": "Add.",
        "input": "",
        "iteration": 2,
        "outputs": [
            {"output": "2", "feedback": "Wrong. Revision is needed."},
            {"output": "4", "feedback": "Good. Revision is not needed."},
        ],
    }
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(record))
    (case,) = ungraded_cases(read_recorded(path, len))
    assert [step.answer for step in case.chain.steps] == ["2", "4"]
    assert isinstance(case, Case)
    found = delivery_of([case])
    assert found.delivered_tokens == len("\n\n### Revision 1:\n4")


def test_of_several_chains_of_a_question_the_one_with_most_revisions_enforced_counts(tmp_path: Path) -> None:
    def row(systems: list[object], turn: int = 0) -> dict[str, object]:
        answers = [step(f"answer {number}", None) for number in range(2 if 3 in systems else 1)]
        return {"id": "x", "question_id": "7", "turn": turn, "systems": systems} | to_json(chain(*answers))

    path = tmp_path / "chains.jsonl"
    rows = [row(["auto"]), row([1, 3]), row([0]), row([1, 3], turn=1)]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    recorded = read_recorded(path)
    assert list(recorded.chains) == ["7"]
    assert recorded.chains["7"].num_revisions == 1
    path.write_text("".join(json.dumps(each) + "\n" for each in (rows[1], rows[1])))
    with pytest.raises(BadFileError, match="comes twice"):
        read_recorded(path)


def test_a_file_without_chains_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question_id": 1, "text": "only text"}')
    with pytest.raises(BadFileError, match="expected a chain"):
        read_recorded(path)
    path.write_text("")
    with pytest.raises(BadFileError, match="no chains"):
        read_recorded(path)
