"""Problems are read from the published files; a row that is none is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfee.chain.types import Instruction
from selfee.errors import BadFileError
from selfee.eval.revising.grading import checker_of, extractor_of
from selfee.eval.revising.problems import read_problems


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "", "answer": "#### 1"}, "field 'question' is \"\"; expected a text"),
        ({"prompt": "only"}, "expected those of GSM8K"),
        ({"text": "Add.", "test_list": []}, "field 'test_list' is \\[\\]; expected a list of texts"),
    ],
)
def test_a_row_that_is_no_problem_is_refused(tmp_path: Path, row: dict[str, object], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(BadFileError, match=f"rows.jsonl:1: .*{message}"):
        read_problems(path)
    path.write_text("")
    with pytest.raises(BadFileError, match="no problems"):
        read_problems(path)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("file", "task", "right", "wrong"),
    [
        ("gsm8k_test_first660.jsonl", "gsm8k", "The answer is 18.", "The answer is 17."),
        ("aqua_dev.jsonl", "aqua", "The answer is A.", "The answer is B."),
        ("mbpp.jsonl", "mbpp", None, "def other(): pass"),
    ],
)
def test_published_files_are_read_and_their_references_pass(
    corpus: Path, file: str, task: str, right: str | None, wrong: str
) -> None:
    problems = read_problems(corpus / "public" / file, 3)
    assert len(problems) == 3
    assert {problem.task for problem in problems} == {task}
    checker = checker_of(problems[0])
    assert checker.check(Instruction("q"), right or f"```python\n{problems[0].reference}\n```").passed is True
    assert checker.check(Instruction("q"), wrong).passed is False
    assert extractor_of(problems[0])(right or problems[0].reference) is not None


@pytest.mark.corpus
def test_solutions_of_humaneval_pass(corpus: Path, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "humaneval.jsonl"
    path.write_bytes(gzip.decompress((corpus / "public" / "HumanEval.jsonl.gz").read_bytes()))
    for problem in read_problems(path, 4):
        check = checker_of(problem).check(Instruction("q"), f"```python\n{problem.reference}\n```")
        assert check.passed, check.reason
