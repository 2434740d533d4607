"""``selfee data``: published files in, a training set out, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.story import ROOT, Shell

QUESTION = (
    "How do I sort a list of words in Python by their length, the longest first, without changing my list, "
    "and what happens to words which are equally long?"
)
ANSWER = "Use the built-in function sorted with a key and in reverse order; it gives a new list."


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[Any], as_array: bool = False) -> None:
    text = json.dumps(rows) if as_array else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def published(folder: Path) -> None:
    """Small files in the formats that five data sets are published in."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def talk(name: str, *turns: str) -> dict[str, Any]:
        people = ("human", "gpt") * len(turns)
        return {"id": name, "conversations": [{"from": who, "value": text} for who, text in zip(people, turns)]}

    block = '<pre><code class="hljs language-python">sorted(a)\n</code></pre>'
    page = f'<div class="markdown prose"><p>{ANSWER}</p>{block}</div>'
    write(
        folder / "sg_part1.json",
        [
            talk("a", QUESTION, page, "Thanks", "Welcome"),
            talk("b", QUESTION.upper(), ANSWER),
            talk("c", QUESTION.replace("Python", "Ruby"), ANSWER),
            talk("d", "Wie sortiere ich eine Liste von Wörtern nach ihrer Länge?", ANSWER),
            talk("e", "Help me with it", "Of course. What is it about?"),
        ],
        as_array=True,
    )
    alpaca = [{"instruction": "Name three colours.", "input": "", "output": "Red."}, {"instruction": "", "output": ""}]
    write(folder / "alpaca_data.json", alpaca, as_array=True)
    write(
        folder / "conala-train.json",
        [{"intent": "sort?", "rewritten_intent": "sort list `a`", "snippet": "a.sort()"}],
        True,
    )
    (folder / "MATH" / "algebra").mkdir(parents=True)
    problem = {"problem": "Find $x$ if $2x=4$.", "level": "Level 1", "type": "Algebra", "solution": r"$x=\boxed{2}$"}
    (folder / "MATH" / "algebra" / "1.json").write_text(json.dumps(problem, indent=4))
    contest = {
        "name": "1_A",
        "description": "Read n, print n.",
        "solutions": {"language": [3], "solution": ["print(input())"]},
    }
    pq.write_table(pa.Table.from_pylist([contest]), folder / "contests.parquet")


def test_published_files_become_samples_with_counts_and_reasons(shell: Shell, tmp_path: Path) -> None:
    published(tmp_path)
    done = shell.run(
        *("data", "collect", "sharegpt:sg_part1.json", "alpaca:alpaca_data.json", "conala@train:conala-train.json"),
        *("math@train:MATH", "codecontests@train:contests.parquet", "-o", "samples.jsonl"),
    )
    assert done.stdout == (
        "source        rows  kept  rejected  reference\n"
        "sharegpt         5     1         4          0\n"
        "alpaca           2     1         1          0\n"
        "conala           1     1         0          1\n"
        "math             1     1         0          1\n"
        "codecontests     1     1         0          1\n"
        "total           10     5         5          3\n"
        "\n"
        "source    rejected because           rows\n"
        "sharegpt  duplicate                     1\n"
        "sharegpt  near-duplicate                1\n"
        "sharegpt  question not in English       1\n"
        "sharegpt  answer ends in a question     1\n"
        "alpaca    field empty                   1\n"
    )
    rows = {row["source"]: row for row in lines(tmp_path / "samples.jsonl")}
    assert list(rows) == ["sharegpt", "alpaca", "conala", "math", "codecontests"]
    assert rows["sharegpt"]["answer"] == f"{ANSWER}\n\n```python\nsorted(a)\n```"
    assert "reference" not in rows["sharegpt"]
    assert rows["math"]["extra"] == {"level": "Level 1", "type": "Algebra", "answer": "2"}
    assert rows["codecontests"]["reference"] == "print(input())"
    assert {(row["where"], row["reason"]) for row in lines(tmp_path / "samples.rejected.jsonl")} == {
        ("sg_part1.json:1", "duplicate"),
        ("sg_part1.json:1", "near-duplicate"),
        ("sg_part1.json:1", "question not in English"),
        ("sg_part1.json:1", "answer ends in a question"),
        ("alpaca_data.json:1", "field empty"),
    }
    assert "5 samples in samples.jsonl, 5 rejected rows in samples.rejected.jsonl" in done.stderr
    assert "split not told" not in done.stderr  # these two have none
    assert "split not told: math" in shell.run("data", "collect", "math:MATH", "-o", "math.jsonl").stderr


def test_counts_come_as_json_for_programs(shell: Shell, tmp_path: Path) -> None:
    published(tmp_path)
    words = ("data", "collect", "sharegpt:sg_part1.json", "-o", "samples.jsonl", "--json", "--threshold", "1")
    done = shell.run(*words, "--question-rule", "none")
    told = json.loads(done.stdout)
    assert told["sharegpt"]["kept"] == 3
    assert told["samples"] == "samples.jsonl"
    assert done.stderr == ""
    assert json.loads((tmp_path / "samples.report.json").read_text())["settings"]["threshold"] == 1.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gsm8k:missing.jsonl", "-o", "out.jsonl"), "missing.jsonl: no such file or folder"),
        (("nothing:sg_part1.json", "-o", "out.jsonl"), "expected SOURCE:PATH"),
        (("sharegpt:sg_part1.json", "-o", "sg_part1.json"), "would be written over what is read"),
        (("sharegpt:sg_part1.json", "-o", "no/out.jsonl"), "folder no does not exist"),
        (("sharegpt:sg_part1.json", "-o", "out.jsonl", "--threshold", "0.2"), "expected 0.5 to 1"),
    ],
)
def test_wrong_words_are_told_before_anything_is_written(
    shell: Shell, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    published(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = shell.run("data", "collect", *words, check=2)
    assert message in " ".join(done.stderr.split())
    assert sorted(tmp_path.iterdir()) == before


def record(question: str, *turns: tuple[str, str], **fields: Any) -> dict[str, Any]:
    outputs = [{"output": answer, "feedback": feedback} for answer, feedback in turns]
    row = {
        "iteration_truncated": False,
        "instruction": question,
        "input": "",
        "iteration": len(turns),
        "outputs": outputs,
    }
    return row | fields


GOOD = ("It scatters.", "Score: 9/10. Revision is not needed.")
ASKED = "Explain to a child why the sky is blue at noon and red in the evening."


def test_chains_are_merged_checked_and_looked_at(shell: Shell, tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", [record(f"Why {n}?", GOOD) for n in range(4)] + [record(ASKED, GOOD)])
    write(
        tmp_path / "two.json",
        [record("Why 1?", GOOD, dataset="hendrycks"), record("How?", GOOD, dataset="hendrycks")],
        True,
    )
    write(tmp_path / "question.jsonl", [{"question_id": 1, "text": ASKED}])
    words = (
        "data",
        "merge",
        "mine:one.jsonl",
        "two.json",
        "-o",
        "training",
        "--validation",
        "0",
        "--against",
        "question.jsonl",
    )
    done = shell.run(*words)
    assert sorted(path.name for path in (tmp_path / "training").iterdir()) == [
        *("contaminated.jsonl", "manifest.json", "rejected.jsonl"),
        *("train.json", "train.jsonl", "validation.json", "validation.jsonl"),
    ]
    assert [row["dataset"] for row in lines(tmp_path / "training" / "train.jsonl")] == ["mine"] * 4 + ["math"]
    assert "question.jsonl                1              1       0" in done.stdout
    assert "5 of 7 records are in training" in done.stderr
    manifest = (tmp_path / "training" / "manifest.json").read_bytes()
    assert "add --force" in shell.run(*words, check=2).stderr
    shell.run(*words, "--force")
    assert (tmp_path / "training" / "manifest.json").read_bytes() == manifest
    told = json.loads(shell.run("data", "stats", "training/train.json", "--json").stdout)
    assert told["sources"]["mine"]["lengths"] == {"1": 4}


def test_who_does_not_check_for_evaluation_questions_is_told(shell: Shell, tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", [record("Why?", GOOD)])
    assert "not checked for evaluation questions" in shell.run("data", "merge", "mine:one.jsonl", "-o", "t").stderr


def test_force_replaces_a_training_set_and_nothing_else(shell: Shell, tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", [record("Why?", GOOD)])
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("Dear")
    done = shell.run("data", "merge", "mine:one.jsonl", "-o", "home", "--force", check=2)
    assert "holds something else than a training set" in " ".join(done.stderr.split())
    assert (tmp_path / "home" / "letter.txt").read_text() == "Dear"
    assert not (tmp_path / ".home.part").exists()


def test_statistics_are_shown_drawn_and_listed(shell: Shell, tmp_path: Path) -> None:
    silent = ("No idea.", "Hm, I would sort it.")
    write(tmp_path / "chains.jsonl", [record(f"Why {n}?", silent, GOOD) for n in range(8)] + [{"x": 1}])
    done = shell.run("data", "stats", "mine:chains.jsonl", "-o", "stats.html")
    assert "mine         8          8           1       0         0          8" in done.stdout
    assert done.stdout.count("silent, and went on") == 6  # the heading and five of eight
    assert "3 more disagreements" in done.stdout
    assert "pictures: stats.html" in done.stderr
    assert (tmp_path / "stats.html").read_text().startswith("<!doctype html>")
    assert shell.run("data", "stats", "mine:chains.jsonl", "--all").stdout.count("silent, and went on") == 9
    told = json.loads(shell.run("data", "stats", "mine:chains.jsonl", "--json").stdout)
    assert len(told["disagreements"]) == 8
    assert told["sources"]["mine"]["unreadable"] == {"not a chain": 1}


def test_a_file_without_chains_is_an_error(shell: Shell, tmp_path: Path) -> None:
    write(tmp_path / "samples.jsonl", [{"instruction": "Why?", "source": "x"}])
    assert "holds no chain" in shell.run("data", "stats", "samples.jsonl", check=2).stderr


@pytest.mark.parametrize("command", ["collect", "merge", "stats"])
def test_help_shows_examples(shell: Shell, command: str) -> None:
    assert f"selfee data {command} " in shell.run("data", command, "--help").stdout


def test_a_training_sets_folder_is_read_once(shell: Shell, tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", [record(f"Why {n}?", GOOD) for n in range(30)])
    shell.run("data", "merge", "mine:one.jsonl", "-o", "training", "--validation", "0.3")
    told = json.loads(shell.run("data", "stats", "training", "--json").stdout)
    assert told["sources"]["mine"]["records"] == 30
    assert told["sources"]["mine"]["unreadable"] == {}


def test_the_commands_of_the_guides_work_one_after_another(shell: Shell, tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "sg_part1.json").rename(tmp_path / "sg_90k_part1.json")
    write(tmp_path / "train.jsonl", [{"question": "How many?", "answer": "Two.\n#### 2"}])
    write(tmp_path / "mbpp.jsonl", [{"text": ASKED, "code": "x", "task_id": n, "test_list": []} for n in (100, 700)])
    write(tmp_path / "chains.jsonl", [record(f"Why {n}?", GOOD, source="gsm8k") for n in range(4)])
    write(tmp_path / "question.jsonl", [{"question_id": 1, "turns": [ASKED]}])
    guides = [(ROOT / "docs" / "guides" / name).read_text(encoding="utf-8") for name in ("collect.md", "merge.md")]
    commands = [line for guide in guides for line in guide.splitlines() if line.startswith("selfee data ")]
    assert len(commands) == 3
    for command in commands:
        shell.run(*command.split()[1:])
    assert (tmp_path / "stats.html").exists()
    assert len(lines(tmp_path / "samples.jsonl")) == 3
