"""``selfee revisions`` from the first word to the tables, with a model that always says the same."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.cli.story import Shell

from selfee.eval.revising import read_analysis

RULES = [
    {"when": {"pattern": r"### Feedback \d+:\n\Z"}, "text": "Count again. Revision is needed."},
    {"when": {"pattern": r"Revision is\Z"}, "text": " needed."},
    {"when": {"pattern": r"### Revision 1:\n\Z"}, "text": "I counted again, and it is 4."},
    {"when": {"pattern": r"### Revision 2:\n\Z"}, "text": "I counted once more, and it is 5 after all."},
    {
        "when": {"pattern": r"add\(1, 2\)(?s:.*)### Answer:\n\Z"},
        "text": "```python\ndef add(a, b):\n    return a + b\n```",
    },
    {"when": {"ends_with": "### Answer:\n"}, "text": "It is 3."},
]
MODEL = ("--mode", "guided", "--prompts", "plain", "-m", "script:script.jsonl")


def write_script(folder: Path, delay: float = 0.0) -> None:
    rows: list[dict[str, Any]] = [{"engine": {"strict": False}}, *(rule | {"delay": delay} for rule in RULES)]
    (folder / "script.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    write_script(tmp_path)
    numbers = [{"question": f"What is {n} + {4 - n}?", "answer": "#### 4"} for n in range(3)]
    numbers.append({"question": "What is 1 + 2?", "answer": "#### 3"})
    (tmp_path / "numbers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbers))
    program = {"text": "Add two numbers.", "task_id": 7, "test_list": ["assert add(1, 2) == 3"]}
    (tmp_path / "programs.jsonl").write_text(json.dumps(program))
    return Shell(tmp_path, {"COLUMNS": "140"})


def test_a_run_says_what_revising_did_beside_the_same_tokens(shell: Shell) -> None:
    out = shell.run("revisions", "numbers.jsonl", "programs.jsonl", "-r", "2", "-o", "out", *MODEL)
    assert out.stderr == ""
    lines = out.stdout.splitlines()
    assert lines[0].startswith("gsm8k: 4 questions, graded by number, script:script.jsonl")
    rows = {line.split("  ")[0]: line.split() for line in reversed(lines)}  # those of the first group
    assert rows["single answer"][3] == "25.0"
    assert rows["revise 1"][3] == "75.0"
    assert rows["revise 2"][3] == "0.0"
    assert "any of N = revise 2 [oracle]" in rows
    assert "mbpp: 1 questions, graded by tests" in out.stdout
    analysis = read_analysis(shell.folder / "out" / "analysis.json")
    numbers, programs = analysis.groups
    first, second = numbers.rounds
    assert [each and each.hits for each in (first.wrong_to_right, first.right_to_wrong)] == [3, 1]
    assert [each and each.hits for each in (second.wrong_to_right, second.right_to_wrong)] == [0, 3]
    assert programs.attempts[0].score.value == 1.0
    assert programs.attempts[1].delivered_score.value == 0.0  # "it is 4" is no program
    assert analysis.settings["seed"] == 0
    assert str(shell.folder) not in (shell.folder / "out" / "analysis.json").read_text()
    chains = [json.loads(line) for line in (shell.folder / "out" / "chains.jsonl").read_text().splitlines()]
    assert [row["id"] for row in chains] == ["1", "2", "3", "4", "7"]


def test_json_is_the_file(shell: Shell) -> None:
    out = shell.run("revisions", "numbers.jsonl", "-r", "2", "--limit", "2", "-o", "out", "--json", *MODEL)
    assert json.loads(out.stdout) == json.loads((shell.folder / "out" / "analysis.json").read_text())
    assert json.loads(out.stdout)["groups"][0]["questions"] == 2


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_figures(shell: Shell) -> None:
    words = ("revisions", "numbers.jsonl", "-r", "2", *MODEL, "--parallel", "2")
    assert shell.run(*words, "-o", "undisturbed").returncode == 0
    write_script(shell.folder, delay=0.02)
    journal = shell.folder / "killed" / "journal.db"
    for more in (2, 1, 4, 3):
        _kill_after(shell, journal, more, *words, "-o", "killed")
    write_script(shell.folder)
    assert 0 < _count(journal) < _count(shell.folder / "undisturbed" / "journal.db")
    assert shell.run(*words, "-o", "killed").returncode == 0
    assert _count(journal) == _count(shell.folder / "undisturbed" / "journal.db")
    assert _timeless(shell.folder / "killed") == _timeless(shell.folder / "undisturbed")


def _kill_after(shell: Shell, journal: Path, more: int, *words: str) -> None:
    """Start, and kill as soon as so many more chains are kept."""
    before = _count(journal)
    with shell.start(*words) as child:
        while _count(journal) < before + more and child.poll() is None:
            time.sleep(0.01)
        assert child.poll() is None, "it was to be killed before its end"
        child.send_signal(signal.SIGKILL)


def _count(journal: Path) -> int:
    """Chains that are kept."""
    if not journal.exists():
        return 0
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM calls WHERE reply IS NOT NULL").fetchone()[0])
        except sqlite3.OperationalError:  # it is being made
            return 0


def _timeless(folder: Path) -> Any:
    row = json.loads((folder / "analysis.json").read_text())
    for group in row["groups"]:
        group["delivery"]["seconds"] = None
    return row | {"command": ""}


def test_recorded_chains_are_checked_and_counted_without_a_model(shell: Shell) -> None:
    record = {
        "iteration_truncated": False,
        "instruction": "Add two  numbers.",
        "input": "",
        "outputs": [
            {"output": "def add(a, b): return a - b", "feedback": "Wrong. Revision is needed."},
            {"output": "def add(a, b): return a + b", "feedback": "Good. Revision is not needed."},
        ],
    }
    other = record | {"instruction": "Something else."}
    (shell.folder / "records.jsonl").write_text(json.dumps(record) + "\n" + json.dumps(other) + "\n")
    out = shell.run("revisions", "programs.jsonl", "--answers", "records.jsonl", "-o", "out", "-q")
    assert out.stderr == ""
    assert "1 of 2 chains ask a question of programs.jsonl" in out.stdout
    (group,) = read_analysis(shell.folder / "out" / "analysis.json").groups
    assert group.rounds[0].helped.hits == 1
    assert group.critic is not None
    assert (group.critic.rejected_wrong, group.critic.accepted_right) == (1, 1)
    bare = shell.run("revisions", "--answers", "records.jsonl", "-o", "out", "-q")
    assert "nobody graded the answers" in bare.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("revisions", "-o", "out"), "none to answer; expected a FILE of problems"),
        (("revisions", "none.jsonl", "-o", "out", *MODEL), "none.jsonl: cannot be read"),
        (("revisions", "numbers.jsonl", "-o", "out", "--limit", "x", *MODEL), "expected a number such as 40"),
        (("revisions", "numbers.jsonl", "-o", "out", "--temperature", "0", *MODEL), "makes every attempt the same"),
        (("revisions", "numbers.jsonl", "-o", "numbers.jsonl", *MODEL), "cannot be made"),
        (("revisions", "--answers", "numbers.jsonl", "-o", "out"), "expected a chain"),
    ],
)
def test_wrong_words_are_told(shell: Shell, words: tuple[str, ...], message: str) -> None:
    out = shell.run(*words, check=2)
    assert message in " ".join(out.stderr.split())
