"""Each source reads the format it is published in, and says why a row gives no question."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from selfee.data.files import Row
from selfee.data.sources import SOURCES, Question, RefusedError, SourceSettings
from selfee.data.sources.flan import OVERLAPS


def parse(source: str, fields: dict[str, Any], **settings: Any) -> Question:
    return SOURCES[source].parse(Row("file.jsonl:1", fields), SourceSettings(**settings))


def refusal(source: str, fields: dict[str, Any]) -> str:
    with pytest.raises(RefusedError) as caught:
        parse(source, fields)
    return caught.value.reason


def test_alpaca_keeps_the_question_and_not_the_answer_of_davinci() -> None:
    row = {"instruction": "Name three. ", "input": "", "output": "Red, blue, green."}
    assert parse("alpaca", row) == Question("Name three.")
    assert parse("alpaca", row | {"input": "colours"}).input == "colours"
    assert parse("alpaca", row | {"input": "<noinput>"}).input == ""
    assert parse("alpaca", {"instruction": "No input field at all"}).input == ""
    assert refusal("alpaca", {"instruction": "  "}) == "field empty"
    assert refusal("alpaca", {"prompt": "x"}) == "field missing"
    assert refusal("alpaca", {"instruction": ["x"]}) == "field of another kind"


def test_gsm8k_loses_its_calculator_notes_and_gives_the_number() -> None:
    found = parse("gsm8k", {"question": "How many?", "answer": "48/2 = <<48/2=24>>24 clips.\n#### 1,072"})
    assert found.reference == "48/2 = 24 clips.\n#### 1,072"
    assert found.extra == {"answer": "1,072"}
    assert refusal("gsm8k", {"question": "How many?", "answer": "24"}) == "no final answer"


def test_aqua_lists_its_options_as_flan_does() -> None:
    row = {"question": "Speed?", "options": ["A)324", "B) 6"], "rationale": "It is 324.", "correct": "A"}
    found = parse("aqua", row)
    assert found.instruction == "Speed?\nOptions:\n(A) 324\n(B) 6"
    assert found.reference == "It is 324.\nThe answer is (A)."
    assert refusal("aqua", row | {"correct": "E"}) == "no final answer"
    assert refusal("aqua", row | {"options": ["324", "6"]}) == "unreadable options"


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"So $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"First \boxed{1}, then $\boxed{2}$.", "2"),
        (r"It is $\boxed 7$.", "7"),
        (r"It is $\fbox{B}$.", "B"),
    ],
)
def test_math_finds_the_boxed_answer(solution: str, answer: str) -> None:
    found = parse("math", {"problem": "Solve.", "level": "Level 5", "type": "Algebra", "solution": solution})
    assert found.extra == {"level": "Level 5", "type": "Algebra", "answer": answer}
    assert found.reference == solution


def test_a_math_solution_without_an_answer_is_refused() -> None:
    assert refusal("math", {"problem": "Prove.", "solution": "QED"}) == "no final answer"
    assert refusal("math", {"problem": "Prove.", "solution": r"\boxed{1"}) == "no final answer"


def test_conala_takes_the_rewritten_wish_where_there_is_one() -> None:
    row = {"intent": "how to sort?", "rewritten_intent": "sort list `a`", "snippet": "a.sort()", "question_id": 1}
    prefix = "generate the python code snippet from the following natural language:\n"
    assert parse("conala", row).instruction == prefix + "sort list `a`"
    assert parse("conala", row | {"rewritten_intent": None}).instruction == prefix + "how to sort?"
    assert parse("conala", row).reference == "a.sort()"


@pytest.mark.parametrize(
    ("number", "split"), [(1, "prompt"), (11, "test"), (510, "test"), (511, "validation"), (974, "train")]
)
def test_mbpp_knows_its_splits_by_the_task_number(number: int, split: str) -> None:
    row = {"text": "Add.", "code": "def f():\r\n  pass", "task_id": number, "test_list": ["assert f() is None"]}
    found = parse("mbpp", row)
    assert (found.split, found.reference, found.instruction) == (split, "def f():\n  pass", "Add.")
    shown = parse("mbpp", row, with_tests=True).instruction
    assert shown == "Add.\nYour code should pass these tests:\nassert f() is None"


def line(code: str, indent: int = 0) -> dict[str, Any]:
    return {"text": "", "code": code, "indent": indent}


def test_drrepair_gives_the_programs_with_braces_and_what_the_compiler_said() -> None:
    fixed = [
        line("int main() {"),
        line("for ( ; ; )", 1),
        line("f ( ) ;", 2),
        line("}", 1),
        line("if ( x )", 1),
        line("g ( ) ;", 2),
        line("}"),
    ]
    broken = [*fixed[:2], line("f ( ;", 2), *fixed[3:]]
    row = {"code_lines": broken, "gold_code_lines": fixed, "err_line": {"lineno": 2, "msg": "expected ‘ ) ’"}}
    found = parse("drrepair", row | {"info": {"probid": "813A"}})
    program = "int main() {\n    for ( ; ; ) {\n        f ( ;\n    }\n    if ( x )\n        g ( ) ;\n}"
    assert found.input == f"{program}\n\nCompiler messages:\nline 3: error: expected ‘ ) ’"
    assert found.reference == program.replace("f ( ;", "f ( ) ;")
    assert found.extra == {"probid": "813A"}
    assert refusal("drrepair", row | {"code_lines": fixed}) == "nothing to repair"
    assert refusal("drrepair", row | {"code_lines": []}) == "field missing"
    assert refusal("drrepair", row | {"gold_code_lines": [{"indent": 0}]}) == "field of another kind"


@pytest.mark.parametrize(
    "solutions",
    [
        {"language": [2, 3, 3], "solution": ["cpp", "first", "second"]},
        [{"language": "CPP", "solution": "cpp"}, {"language": "PYTHON3", "solution": "first"}],
    ],
)
def test_codecontests_prefers_a_solution_in_python_3(solutions: Any) -> None:
    found = parse("codecontests", {"name": "1_A", "description": "Read n.", "solutions": solutions})
    assert (found.reference, found.extra) == ("first", {"name": "1_A", "language": "Python 3"})


def test_a_contest_without_solutions_is_a_question_without_reference() -> None:
    assert (
        parse("codecontests", {"description": "Read n.", "solutions": {"language": [], "solution": []}}).reference
        is None
    )
    assert refusal("codecontests", {"solutions": []}) == "field missing"


def test_flan_reads_collections_and_tables() -> None:
    found = parse("flan", {"inputs": "Is it?", "targets": "yes", "task": "cb"})
    assert (found.instruction, found.reference, found.extra) == ("Is it?", "yes", {"task": "cb"})
    table = {"question": "Q?\\nOptions:\\n(A) 1", "answer": "(A)", "rationale": "So.\\nThen."}
    found = SOURCES["flan"].parse(Row("/data/flan/aqua_train.tsv:7", table), SourceSettings())
    assert found.instruction == "Q?\nOptions:\n(A) 1"
    assert found.reference == "So.\nThen.\nThe answer is (A)."
    assert found.extra == {"task": "aqua_train"}
    assert refusal("flan", {"inputs": "Is it?", "targets": "yes"}) == "field missing"
    assert refusal("flan", {"inputs": "x", "targets": "y", "task": OVERLAPS[0]}) == "task is a source of its own"


@pytest.mark.corpus
def test_flans_inventory_has_exactly_these_tasks_of_our_other_code_sources(corpus: Path) -> None:
    with (corpus / "public" / "flan_collection_info.csv").open(encoding="utf-8", newline="") as file:
        tasks = {row["Dataset"] for row in csv.DictReader(file) if row["Source"] == "Program Synthesis"}
    assert tasks == set(OVERLAPS)
