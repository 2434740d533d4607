"""Review files of 2023: every published figure again, and every score held against its text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfee.errors import BadFileError
from selfee.eval.reporting.folder import read_folder
from selfee.eval.reporting.report import Report, make_report
from selfee.eval.scoring.reviews import Finding, audit, names_of, read_reviews

PUBLISHED = {  # model, baseline: relative score, interval, win/tie/loss, orders that agree, win rate, at equal lengths
    ("selfee_13b_enforce_0_revisions", "chatgpt"): (98.19, (94.8, 101.3), (66, 26, 68), 52, 49.4, 40.6),
    ("selfee_13b_enforce_1_revisions", "chatgpt"): (101.70, (98.0, 105.1), (80, 25, 55), 56, 57.8, 35.7),
    ("selfee_13b_enforce_3_revisions", "chatgpt"): (102.92, (99.2, 106.3), (87, 26, 47), 53, 62.5, 30.3),
}


@pytest.fixture(scope="module")
def report(corpus: Path) -> Report:
    return make_report(read_folder(corpus / "selfee" / "review"))


@pytest.mark.corpus
@pytest.mark.parametrize("key", PUBLISHED)
def test_the_published_figures_come_out_to_the_digit(report: Report, key: tuple[str, str]) -> None:
    relative, within, outcomes, agree, raw, controlled = PUBLISHED[key]
    (pair,) = [each for each in report.figures.pairs if (each.model, each.baseline) == key]
    assert pair.scores is not None
    assert pair.length is not None
    assert round(pair.scores.relative.value or 0.0, 2) == relative
    assert (pair.scores.relative.low, pair.scores.relative.high) == pytest.approx(within, abs=0.25)
    assert (pair.scores.wins, pair.scores.ties, pair.scores.losses) == outcomes
    assert (pair.agreement.hits, pair.agreement.count) == (agree, 80)
    assert 100 * (pair.scores.win_rate.value or 0.0) == pytest.approx(raw, abs=0.1)
    assert 100 * (pair.length.win_rate.value or 0.0) == pytest.approx(controlled, abs=1.0)


@pytest.mark.corpus
def test_the_comparison_with_vicuna_comes_out_too(report: Report) -> None:
    (pair,) = [each for each in report.figures.pairs if each.baseline == "vicuna_13b"]
    assert pair.scores is not None
    assert round(pair.scores.relative.value or 0.0, 2) == 109.07
    assert (pair.scores.wins, pair.scores.ties, pair.scores.losses) == (102, 21, 37)


@pytest.mark.corpus
def test_the_judge_of_2023_prefers_the_first_place_and_changes_its_mind(report: Report) -> None:
    (judge,) = report.figures.judges
    assert judge.position is not None
    assert judge.position.gap.low is not None
    assert judge.position.gap.low > 0.05
    assert judge.noise is not None
    assert 0.10 <= (judge.noise.changed.value or 0.0) <= 0.15


@pytest.mark.corpus
def test_every_stored_score_is_what_its_text_says_but_for_those_listed(corpus: Path) -> None:
    folders = ("selfee/review", "public/qlora_ratings", "public/vicuna_reviews")
    reviews = [each for name in folders for path in sorted((corpus / name).iterdir()) for each in read_reviews(path)]
    found = audit(reviews)
    assert len(reviews) >= 1280
    listed = {(each.finding, each.question_id, each.stored, each.read) for each in found}
    assert {each for each in listed if each[0] is not Finding.REPAIRED} == {
        (Finding.DIFFERS, "70", (10.0, 2.0), (10.0, 4.0)),  # repaired by hand, and wrongly
        (Finding.UNREADABLE, "74", (0.0, 9.0), None),  # 0 on a scale from 1
    }
    repaired = [each for each in found if each.finding is Finding.REPAIRED]
    assert {each.question_id for each in repaired} == {"68", "69", "70"}  # the three questions of mathematics
    typed = {each.review_id for each in reviews if each.has_whole_numbers}
    assert typed == {each.review_id for each in found if each.finding in (Finding.REPAIRED, Finding.DIFFERS)}


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("chatgpt_vs_selfee_13b_enforce_1_revisions.jsonl", ("chatgpt", "selfee_13b_enforce_1_revisions")),
        ("bard-vs-gpt-3.5-gpt4-reviewer.jsonl", ("bard", "gpt-3.5")),
        ("vicuna-13b_20230322-clean-lang_review_bard_vicuna-13b.jsonl", ("bard", "vicuna-13b")),
        ("others_review_llama_alpaca-13b.jsonl", ("llama", "alpaca-13b")),
        ("reviews.jsonl", None),
    ],
)
def test_names_are_read_in_the_names_of_files(file: str, names: tuple[str, str] | None) -> None:
    assert names_of(file) == names


@pytest.mark.parametrize("score", [[1], ["8", 9], [True, 9]])
def test_a_damaged_score_is_refused_with_its_line(tmp_path: Path, score: list[object]) -> None:
    path = tmp_path / "a_vs_b.jsonl"
    path.write_text(json.dumps({"question_id": 1, "text": "8 9", "score": score}), encoding="utf-8")
    with pytest.raises(BadFileError, match=r"a_vs_b\.jsonl:1: score"):
        read_reviews(path)


def test_a_score_stored_as_minus_one_is_a_gap_and_not_a_number(tmp_path: Path) -> None:
    for name in ("a_vs_b", "b_vs_a"):
        rows = [{"question_id": n, "text": "8 9\nFine.", "score": [8.0, 9.0]} for n in range(3)]
        rows[1] |= {"text": "error", "score": [-1, -1]}
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    report = make_report(read_folder(tmp_path))
    (pair,) = report.figures.pairs
    assert pair.scores is None
    assert {gap.question_id for gap in pair.gaps} == {"1"}
    assert [each.finding for each in report.suspects] == [Finding.FAILED] * 2
