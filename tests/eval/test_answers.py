"""Answers of every file format in use, and the systems that a user names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfee.errors import BadFileError, UsageError
from selfee.eval.answers import Answer, Turn, choose_systems, read_answers
from selfee.jsonl import write_jsonl


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ours(*revisions: int | None) -> list[Answer]:
    return [
        Answer("1", "mine", (Turn(f"text {revision}", 1, "complete", "c", 3, 9, 0.5),), revision, "generic", "m", "id")
        for revision in revisions
    ]


def test_our_lines_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    answers = [*ours(0, 1, None), Answer("2", "mine", (Turn(""), Turn("b", 0)), 0)]
    write_jsonl(tmp_path / "mine.jsonl", (answer.as_row() for answer in answers))
    assert read_answers(tmp_path / "mine.jsonl") == answers


@pytest.mark.parametrize(
    ("row", "texts", "model"),
    [
        ({"question_id": 1, "text": "a", "answer_id": "x", "model_id": "m", "metadata": {}}, ("a",), "m"),
        ({"question_id": 1, "question": "q", "prompt": "p", "generation": "g", "text": "a"}, ("a",), ""),
        ({"question_id": 1, "model_id": "m", "choices": [{"index": 0, "turns": ["a", "b"]}]}, ("a", "b"), "m"),
    ],
)
def test_files_of_others_are_named_by_their_file(
    row: dict[str, Any], texts: tuple[str, ...], model: str, tmp_path: Path
) -> None:
    [answer] = read_answers(written(tmp_path / "guanaco.jsonl", row))
    assert (answer.question_id, answer.system, answer.texts, answer.model) == ("1", "guanaco", texts, model)
    assert answer.answer_id == row.get("answer_id", answer.answer_id)
    assert answer.answer_id


def test_answers_of_alpaca_eval_find_their_question_by_its_text(tmp_path: Path) -> None:
    rows = [{"instruction": "Why?", "output": "So.", "generator": "gpt"}]
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps(rows))
    [answer] = read_answers(path, {"Why?": "q7"})
    assert (answer.question_id, answer.system, answer.texts) == ("q7", "gpt", ("So.",))
    with pytest.raises(BadFileError, match="none of the questions reads 'Why"):
        read_answers(path)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"text": "a"}], "field 'question_id' is None"),
        ([{"question_id": 1}], "field 'text' is 'None'"),
        ([{"question_id": 1, "text": "a"}, {"question_id": 1, "text": "b"}], "answers question '1' at"),
        ([{"question_id": 1, "system": "s", "turns": [{"text": "a", "foo": 1}]}], "unknown field 'foo'"),
        ([{"question_id": 1, "system": "s", "turns": [{"text": 3}]}], "field 'text' is a int"),
        ([{"question_id": 1, "system": "s", "turns": [], "revision": 0}], "field 'turns' is no list"),
        ([{"question_id": 1, "system": "s", "turns": [{"text": "a"}], "revision": "2"}], "field 'revision'"),
    ],
)
def test_what_is_no_answer_is_refused(rows: list[dict[str, Any]], match: str, tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=match):
        read_answers(written(tmp_path / "a.jsonl", *rows))


def test_a_revision_behind_an_at_sign_chooses_one_system(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    write_jsonl(path, (answer.as_row() for answer in ours(2, None, 0, 10)))
    assert list(choose_systems(str(path))) == ["mine@0", "mine@2", "mine@10", "mine"]
    assert list(choose_systems(f"{path}@2")) == ["mine@2"]
    assert list(choose_systems(f"{path}@auto")) == ["mine"]
    with pytest.raises(UsageError, match=r"no such answers; .* holds @0, @2, @10, @auto"):
        choose_systems(f"{path}@3")


def test_a_file_whose_name_holds_an_at_sign_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "mine@2"
    write_jsonl(path, (answer.as_row() for answer in ours(0)))
    assert list(choose_systems(str(path))) == ["mine@0"]


@pytest.mark.corpus
def test_all_answer_files_of_the_release_are_read(corpus: Path) -> None:
    for path in (corpus / "selfee" / "answer").glob("*.jsonl"):
        answers = read_answers(path)
        assert len(answers) == 80
        assert {answer.system for answer in answers} == {path.stem}
        assert all(answer.answer_id for answer in answers)
