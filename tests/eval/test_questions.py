"""Questions of every set in use, and of sets that only the user knows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.errors import BadFileError, UsageError
from selfee.eval.question_formats import FieldNames
from selfee.eval.questions import Question, Selection, read_questions, with_references, write_questions


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


SETS: dict[str, tuple[dict[str, Any], Question]] = {
    "the original's": (
        {"question_id": 7, "text": "Why?", "category": "generic"},
        Question("7", ("Why?",), "generic"),
    ),
    "MT-bench's": (
        {"question_id": 101, "category": "math", "turns": ["2+2?", "Why?"], "reference": ["4", ""]},
        Question("101", ("2+2?", "Why?"), "math", ("4", "")),
    ),
    "Arena-Hard's": (
        {"uid": "3f", "category": "c", "cluster": "x", "prompt": "Write."},
        Question("3f", ("Write.",), "c"),
    ),
    "MBPP's": (
        {"task_id": 11, "text": "Add.", "code": "def f(): 0", "test_list": ["assert f(1) == 1", "assert f(2) == 2"]},
        Question(
            "11",
            ("Add.\n\nYour code should pass these tests:\n\nassert f(1) == 1\nassert f(2) == 2",),
            "coding",
            ("def f(): 0",),
        ),
    ),
    "GSM8K's": (
        {"question": "How many?", "answer": "Three.\n#### 3"},
        Question("1", ("How many?",), "math", ("Three.\n#### 3",)),
    ),
    "AQuA's": (
        {"question": "How fast?", "options": ["A)1", "B)2"], "rationale": "r", "correct": "B"},
        Question("1", ("How fast?\n\nA)1\nB)2",), "math", ("B",)),
    ),
    "Alpaca's": (
        {"instruction": "Sort.", "input": "b a", "output": "a b"},
        Question("1", ("Sort.\n\nb a",), "", ("a b",)),
    ),
    "Self-Instruct's": (
        {"id": "seed_0", "name": "n", "instruction": "Eat?", "instances": [{"input": "", "output": "Bread."}]},
        Question("seed_0", ("Eat?",), "", ("Bread.",)),
    ),
    "HumanEval's": (
        {"task_id": "HumanEval/0", "prompt": "def f():\n", "canonical_solution": "    return {1}\n", "test": "t"},
        Question(
            "HumanEval/0",
            ("Complete this Python function. Write the whole function.\n\n```python\ndef f():\n```",),
            "coding",
            ("def f():\n    return {1}\n",),
        ),
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_rows_of_every_known_set_become_questions_and_keep_their_source(name: str, tmp_path: Path) -> None:
    row, question = SETS[name]
    [found] = read_questions(written(tmp_path / "set.jsonl", row))
    assert found == question
    assert found.source == row


def test_one_array_and_a_packed_file_are_read_too(tmp_path: Path) -> None:
    row, question = SETS["the original's"]
    (tmp_path / "array.json").write_text(json.dumps([row]))
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    assert read_questions(tmp_path / "array.json") == [question]
    assert read_questions(tmp_path / "packed.jsonl.gz") == [question]


def test_fields_that_only_the_user_knows_are_read_by_their_names(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.jsonl", {"key": "a", "q": "Why?", "kind": "k", "good": "So.", "n": [1, 2]})
    names = FieldNames(text="q", id="key", category="kind", reference="good")
    assert read_questions(path, names) == [Question("a", ("Why?",), "k", ("So.",))]
    assert read_questions(path, FieldNames(template="{q} {{or}} {n}"))[0].turns == ("Why? {or} 1\n2",)


def test_text_of_a_row_that_holds_braces_is_taken_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.jsonl", {"q": "a {b} {0} {{c}}"})
    assert read_questions(path, FieldNames(template="{q}"))[0].turns == ("a {b} {0} {{c}}",)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"foo": 1}], r"set.jsonl:1: fields foo; expected those of a known"),
        ([{"question_id": 1, "text": "a"}, {"question_id": 1, "text": "b"}], r"set.jsonl:2: question '1' stands at"),
        ([{"question_id": 1, "text": " "}], r"field 'text' is ' '"),
        ([{"question_id": 1, "turns": []}], "field 'turns'"),
        ([{"question_id": True, "text": "a"}], "field 'question_id' is True"),
        ([], "no questions"),
    ],
)
def test_what_is_no_question_is_refused_by_line_and_field(
    rows: list[dict[str, Any]], match: str, tmp_path: Path
) -> None:
    with pytest.raises(BadFileError, match=match):
        read_questions(written(tmp_path / "set.jsonl", *rows))


def test_a_template_that_names_no_field_or_one_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no field"):
        FieldNames(template="plain")
    with pytest.raises(UsageError, match="braces"):
        FieldNames(template="{a")
    with pytest.raises(BadFileError, match="no field 'b', which the template names"):
        read_questions(written(tmp_path / "set.jsonl", {"a": "x"}), FieldNames(template="{a}{b}"))


texts = st.text(min_size=1).filter(lambda text: bool(text.strip()))


@given(
    st.lists(
        st.tuples(st.lists(texts, min_size=1, max_size=3), st.text(), st.lists(st.text(), max_size=2)),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = tmp_path_factory.mktemp("law") / "questions.jsonl"
    questions = [
        Question(str(number), tuple(turns), category, tuple(references) if any(references) else ())
        for number, (turns, category, references) in enumerate(rows)
    ]
    write_questions(path, questions)
    assert read_questions(path) == questions


def test_reference_answers_of_mt_bench_come_to_their_questions(tmp_path: Path) -> None:
    questions = [Question("1", ("a", "b")), Question("2", ("c",))]
    path = written(tmp_path / "gpt-4.jsonl", {"question_id": 1, "choices": [{"index": 0, "turns": ["x", "y"]}]})
    assert [each.references for each in with_references(questions, path)] == [("x", "y"), ()]
    with pytest.raises(BadFileError, match="answers none"):
        with_references(questions[1:], path)


def test_a_selection_keeps_the_order_and_refuses_what_does_not_exist() -> None:
    questions = [Question(str(n), (str(n),), "even" if n % 2 == 0 else "odd") for n in range(6)]
    assert [each.id for each in Selection(2, (), ("odd",)).of(questions)] == ["1", "3"]
    assert [each.id for each in Selection(None, ("4", "1")).of(questions)] == ["1", "4"]
    with pytest.raises(UsageError, match="no question has '9'"):
        Selection(ids=("9",)).of(questions)
    with pytest.raises(UsageError, match="together"):
        Selection(ids=("1",), categories=("even",)).of(questions)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "count", "turns"),
    [
        ("selfee/template/question.jsonl", 80, 80),
        ("public/vicuna_bench_question.jsonl", 80, 80),
        ("public/mt_bench_question.jsonl", 80, 160),
        ("public/arena_hard_v0.1_question.jsonl", 500, 500),
        ("public/mbpp.jsonl", 974, 974),
        ("public/gsm8k_test_first660.jsonl", 660, 660),
        ("public/aqua_dev.jsonl", 254, 254),
        ("public/self_instruct_seed_tasks.jsonl", 175, 175),
        ("public/HumanEval.jsonl.gz", 164, 164),
    ],
)
def test_the_public_sets_are_read_whole(corpus: Path, name: str, count: int, turns: int) -> None:
    questions = read_questions(corpus / name)
    assert len(questions) == count
    assert sum(len(question.turns) for question in questions) == turns


@pytest.mark.corpus
def test_both_files_of_the_vicuna_questions_ask_the_same(corpus: Path) -> None:
    one = read_questions(corpus / "selfee/template/question.jsonl")
    other = read_questions(corpus / "public/vicuna_bench_question.jsonl")
    assert [(each.id, each.sha256, each.category) for each in one] == [(e.id, e.sha256, e.category) for e in other]
