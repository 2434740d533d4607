"""Evaluation questions are found in training texts, word for word and nearly; others are left alone."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.data.contamination import Evaluation, EvaluationIndex, label_of, read_evaluation, words_of
from selfee.errors import BadFileError, UsageError

QUESTIONS = (
    "How can I improve my time management skills when I work from home?",
    "Write a function to find the longest palindromic subsequence in the given string.",
    "Write a function to find the number of ways to fill a board with dominoes.",
    "What is AI?",
)
NEAR = "Write a function to find the longest palindromic subsequence in a given string."


def index(*texts: str, threshold: float = 0.6) -> EvaluationIndex:
    return EvaluationIndex(
        (Evaluation("eval.jsonl", str(n), text) for n, text in enumerate(texts or QUESTIONS)), threshold
    )


@given(st.sampled_from(QUESTIONS[:3]), st.text(max_size=30), st.text(max_size=30))
def test_a_whole_question_is_found_whatever_stands_around_it(question: str, before: str, after: str) -> None:
    found = index().find(f"{before}\n{question.upper()} {after}")
    assert found is not None
    assert found.is_exact
    assert found.evaluation.text == question


@given(
    st.lists(
        st.sampled_from(["the", "of", "in", "a", "function", "find", "string", "work", "home", "zebra"]), max_size=30
    )
)
def test_what_is_found_exactly_holds_the_words_in_a_row(words: list[str]) -> None:
    text = " ".join(words)
    found = index().find(text)
    if found is not None and found.is_exact:
        assert " ".join(words_of(found.evaluation.text)) in text
    elif found is not None:
        assert found.share >= 0.6


def test_a_short_question_must_be_the_whole_text() -> None:
    found = index().find("what is AI")
    assert found is not None
    assert found.is_exact
    assert index().find("Explain to a child what is AI and what is not.") is None


def test_a_changed_word_is_found_nearly_and_another_question_of_the_same_kind_is_not() -> None:
    near = index().find(NEAR)
    assert near is not None
    assert not near.is_exact
    assert near.evaluation.id == "1"
    assert index().find("Write a function to find the shortest common supersequence of two strings.") is None
    assert index().find("Write a function to find the number of ways to climb a stair.") is None


def test_a_few_rare_words_do_not_make_a_question() -> None:
    boilerplate = [
        f"Write a function to find the {word} of a triangle." for word in ("area", "height", "median", "centre", "base")
    ]
    found = index(*boilerplate, "Write a function to find the perimeter of a square.").find(
        "The perimeter of a square of paper is 20 cm shorter than the height of a screen. How high is the screen?"
    )
    assert found is None


def test_the_result_does_not_depend_on_the_seed_of_hashes() -> None:
    """Sums of weights are taken in the text's order: equal inputs give equal bytes."""
    code = (
        "from selfee.data.contamination import *\n"
        f"index = EvaluationIndex([Evaluation('f', str(n), t) for n, t in enumerate({QUESTIONS!r})])\n"
        f"print(index.find({NEAR!r}).to_json())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_files_of_questions_are_read_in_their_formats(tmp_path: Path) -> None:
    path = tmp_path / "question.jsonl"
    rows = [
        {"question_id": 81, "turns": ["Write a blog.", "Start with A."]},
        {"question_id": 1, "text": "Why?", "category": "generic"},
        {"task_id": "HumanEval/0", "prompt": "def f():"},
        {"instruction": "Sum.", "input": "1, 2"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [(one.id, one.text) for one in read_evaluation(str(path))]
    assert found == [
        ("81 turn 1", "Write a blog."),
        ("81 turn 2", "Start with A."),
        ("1", "Why?"),
        ("HumanEval/0", "def f():"),
        ("4", "Sum.\n\n1, 2"),
    ]
    path.write_text('{"answer": "x"}\n')
    with pytest.raises(BadFileError, match=r"question\.jsonl:1: no question"):
        list(read_evaluation(str(path)))


def test_a_source_can_be_an_evaluation_set_and_reports_do_not_name_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mbpp.jsonl"
    rows: list[dict[str, object]] = [
        {"text": f"Task {n}.", "code": "x", "task_id": n, "test_list": []} for n in (5, 100, 101, 700)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(read_evaluation(f"mbpp@test:{path}"))
    assert [(one.file, one.id) for one in found] == [("mbpp@test:mbpp.jsonl", "100"), ("mbpp@test:mbpp.jsonl", "101")]
    assert label_of("/a/b/question.jsonl") == "question.jsonl"
    monkeypatch.chdir(tmp_path)
    assert list(read_evaluation("mbpp@test:mbpp.jsonl")) == found
    with pytest.raises(BadFileError, match="field missing"):
        list(read_evaluation(f"gsm8k:{path}"))


def test_a_threshold_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match=r"expected 0\.3 to 1"):
        index(threshold=0.1)


CHANGES: dict[str, Callable[[list[str], random.Random], list[str]]] = {
    "capitals": lambda words, rng: [word.upper() for word in words],
    "wrapped": lambda words, rng: ["Hello!", "I", "have", "homework.", *words, "Please", "explain."],
    "inserted": lambda words, rng: [*words[:4], "really", *words[4:]],
    "first three left away": lambda words, rng: words[3:],
}


@pytest.fixture(scope="module")
def real(corpus: Path) -> EvaluationIndex:
    """MBPP's test problems and the questions of Vicuna, MT-bench and Arena-Hard."""
    public = corpus / "public"
    questions = list(read_evaluation(f"mbpp@test:{public / 'mbpp.jsonl'}"))
    for name in ("vicuna_bench_question.jsonl", "mt_bench_question.jsonl", "arena_hard_v0.1_question.jsonl"):
        questions += read_evaluation(str(public / name))
    return EvaluationIndex(questions)


@pytest.mark.corpus
@pytest.mark.parametrize("change", CHANGES)
def test_planted_test_problems_of_mbpp_are_found(real: EvaluationIndex, change: str) -> None:
    rng = random.Random(1)
    planted = [question for question in real.questions if question.file.startswith("mbpp")]
    assert len(planted) == 499  # of 500: two have the same words
    found = [real.find(" ".join(CHANGES[change](question.text.split(), rng))) for question in planted]
    assert sum(one is not None for one in found) >= 0.94 * len(planted)


@pytest.mark.corpus
def test_hardly_any_training_question_of_gsm8k_is_taken_for_an_evaluation_question(
    real: EvaluationIndex, corpus: Path
) -> None:
    lines = (corpus / "public" / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(real.find(json.loads(line)["question"]) is not None for line in lines[:3000]) == 0
