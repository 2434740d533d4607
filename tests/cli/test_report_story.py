"""``selfee report`` as typed: what it prints and writes, and that it finds every bias that was planted in a judge."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.cli.story import Shell
from tests.eval.biased_judge import INSTRUCTION, Biases, serve
from tests.eval.reporting.runs import make_run

COUNT = 150


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_run_becomes_a_page_a_markdown_file_and_a_table(shell: Shell) -> None:
    make_run(shell.folder / "run")
    outcome = shell.run("report", "run")
    head, *lines = outcome.stdout.splitlines()
    assert head.split()[:4] == ["MODEL", "BASELINE", "SCORE", "%"]
    assert [line.split()[:3] for line in lines] == [["m@0", "base", "87.50"], ["m@1", "base", "100.00"]]
    assert "written: report.html, report.md" in outcome.stderr
    assert (shell.folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "| m@1 | base | 100.00" in (shell.folder / "report.md").read_text(encoding="utf-8")
    shell.run("report", "run")  # written over: it is a report


def test_json_holds_the_same_figures_and_leaves_no_files(shell: Shell) -> None:
    make_run(shell.folder / "run")
    told = json.loads(shell.run("report", "run", "--json", "--baseline", "m@0").stdout)
    assert {(pair["model"], pair["baseline"]) for pair in told["pairs"]} == {("base", "m@0"), ("base", "m@1")}
    assert [(each["title"], each["mean_tokens"], each["mean_revisions"]) for each in told["efforts"]][:2] == [
        ("m@0", 100.0, 0.0),
        ("base", None, None),
    ]
    assert sorted(path.name for path in shell.folder.iterdir() if path.is_file()) == []


def test_a_file_that_is_no_report_is_never_written_over(shell: Shell) -> None:
    make_run(shell.folder / "run")
    (shell.folder / "thesis.md").write_text("years of work", encoding="utf-8")
    outcome = shell.run("report", "run", "--out", "thesis", check=2)
    assert "thesis.md: is there and not a report" in outcome.stderr
    assert (shell.folder / "thesis.md").read_text(encoding="utf-8") == "years of work"


def test_a_folder_without_judgments_says_what_to_do(shell: Shell) -> None:
    (shell.folder / "empty").mkdir()
    assert "holds no judgments" in shell.run("report", "empty", check=2).stderr
    (shell.folder / "asked.jsonl").write_text('{"question_id": 1, "text": "Why?"}\n', encoding="utf-8")
    assert "asked.jsonl: holds no judgments" in shell.run("report", "asked.jsonl", check=2).stderr
    assert "does not exist" in shell.run("report", "nowhere", check=2).stderr


def test_a_half_written_last_line_is_passed_over_and_the_gap_is_told(shell: Shell) -> None:
    path = make_run(shell.folder / "run") / "judgments" / "judge.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    outcome = shell.run("report", "run", check=1)
    assert "m@1 against base (judge) is not summed up: 1 judgment missing" in outcome.stderr
    assert [line.split()[0] for line in outcome.stdout.splitlines()[1:]] == ["m@0"]
    allowed = shell.run("report", "run", "--allow-gaps")
    assert [line.split()[0] for line in allowed.stdout.splitlines()[1:]] == ["m@0", "m@1"]
    assert "1 question with missing or unreadable judgments left out" in allowed.stderr


def test_labels_by_people_are_held_against_the_judge(shell: Shell) -> None:
    make_run(shell.folder / "run")
    rows = [
        {"question_id": f"q{n}", "first": "m@1", "second": "base", "winner": ("first", "tie", "second")[n % 3]}
        for n in range(6)
    ]
    (shell.folder / "people.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    told = json.loads(shell.run("report", "run", "--json", "--people", "people.jsonl").stdout)
    (agreement,) = told["agreements"]
    assert (agreement["rater"], agreement["cases"], agreement["kappa"]["value"]) == ("people", 6, 1.0)


@pytest.mark.corpus
def test_the_reviews_of_2023_alone_give_the_published_figures(shell: Shell, corpus: Path) -> None:
    out = shell.run("report", str(corpus / "selfee" / "review")).stdout
    for figures in (
        ("98.19", "66/26/68", "52 of 80"),
        ("101.70", "80/25/55", "56 of 80"),
        ("102.92", "87/26/47", "53 of 80"),
        ("109.07", "102/21/37"),
    ):
        assert any(all(figure in line for figure in figures) for line in out.splitlines())


def judge_of(shell: Shell, biases: Biases, *words: str, instructed: bool = False) -> tuple[dict[str, Any], int]:
    """The report on a biased judge of two models whose lengths have nothing to do with their quality."""
    rng = random.Random(7)
    for name in ("one", "two"):
        rows = []
        for number in range(COUNT):
            words_of = " ".join(rng.choice(("sky", "blue", "light", "air")) for _ in range(rng.randrange(5, 60)))
            told = f"\n{INSTRUCTION}" if instructed and name == "one" and number % 2 else ""
            text = f"{words_of} [quality {rng.randrange(30, 90) / 10}]{told}"
            rows.append({"question_id": number, "text": text, "answer_id": f"{name}{number}"})
        (shell.folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    asked = [{"question_id": number, "text": f"Question {number}?", "category": "generic"} for number in range(COUNT)]
    (shell.folder / "q.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    with serve(biases) as server:
        shell.run(
            "judge", "one.jsonl", "two.jsonl", "--questions", "q.jsonl", "-o", "run", "-m", server.address, "-q", *words
        )
    outcome = shell.run("report", "run", "--json", "-q", "--draws", "2000", "--answers", "one.jsonl", check=None)
    told = json.loads(outcome.stdout)
    (judge,) = told["judges"]
    return judge | {"pairs": told["pairs"]}, outcome.returncode


def holds(estimate: dict[str, Any], size: float) -> bool:
    return bool(estimate["low"] <= size <= estimate["high"])


@pytest.mark.minutes
def test_a_planted_preference_for_the_first_place_is_exposed(shell: Shell) -> None:
    biases = Biases(prefers_first=0.3, noise=0.1)
    judge, _ = judge_of(shell, biases)
    assert holds(judge["position"]["gap"], biases.position_gap)
    assert judge["position"]["gap"]["low"] > 0.0


@pytest.mark.minutes
def test_a_planted_preference_for_the_longer_answer_is_exposed(shell: Shell) -> None:
    biases = Biases(prefers_longer=0.5)
    judge, _ = judge_of(shell, biases)
    assert holds(judge["length"]["gap"], biases.length_gap)
    assert judge["length"]["gap"]["low"] > 0.0
    assert holds(judge["position"]["gap"], 0.0)


@pytest.mark.minutes
def test_planted_noise_is_exposed(shell: Shell) -> None:
    biases = Biases(noise=0.15)
    judge, _ = judge_of(shell, biases, "--repeats", "2")
    assert holds(judge["noise"]["changed"], biases.repeat_change)
    assert holds(judge["noise"]["turned"], 0.15)


@pytest.mark.minutes
def test_a_planted_share_of_unreadable_replies_is_exposed_and_withholds_the_score(shell: Shell) -> None:
    judge, code = judge_of(shell, Biases(unreadable=0.25, seed=1), "--asks", "2")
    assert holds(judge["readability"]["unreadable_at_first"], 0.25)
    assert judge["readability"]["unreadable"]["hits"] > 0
    assert code == 1
    assert [pair["scores"] for pair in judge["pairs"]] == [None]


@pytest.mark.minutes
def test_planted_obedience_to_the_judged_answer_is_exposed(shell: Shell) -> None:
    judge, _ = judge_of(shell, Biases(obeys=0.6), instructed=True)
    assert judge["obedience"]["instructed"] == COUNT
    assert holds(judge["obedience"]["obeyed"], 0.6)
    assert judge["obedience"]["obeyed"]["low"] > 0.3


@pytest.mark.minutes
def test_a_fair_judge_is_found_to_be_fair(shell: Shell) -> None:
    judge, code = judge_of(shell, Biases(), "--controls", "20")
    assert code == 0
    assert judge["position"]["agree"]["value"] == 1.0
    assert judge["position"]["gap"]["value"] == 0.0
    gains = {each["kind"]: each["gain"]["value"] for each in judge["controls"]}
    assert (gains["same"], gains["instructed"]) == (0.0, 0.0)
