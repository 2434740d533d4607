"""``selfee answer`` and ``selfee judge`` as typed: what they print, what they leave, and that a kill costs nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.cli.story import Shell
from tests.eval.biased_judge import INSTRUCTION, Biases, JudgeServer, serve

from selfee.eval.rows import read_rows

CONTENT = "Clear. Revision is not needed."
CRITICAL = "Vague. Revision is needed."
COUNT = 6


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prepare(shell: Shell, delay: float = 0.0, count: int = COUNT) -> None:
    """Questions, and a script that answers each, criticises it, and revises it once."""
    write(
        shell.folder / "q.jsonl",
        *({"question_id": n, "text": f"Question <{n}>?", "category": "generic"} for n in range(count)),
    )
    rules = []
    for n in range(count):
        revised = f"Revised answer to <{n}> [quality 8]."
        about = f"Question <{n}>"
        for pattern, text in (
            (rf"(?s){about}.*Revised answer.*(?:comments|critique)", CONTENT),
            (rf"(?s){about}.*First answer.*(?:comments|critique)(?!.*Vague)", CRITICAL),
            (rf"(?s){about}.*Vague", revised),
            (about, f"First answer to <{n}> [quality 4]."),
        ):
            rules.append({"when": {"pattern": pattern}, "text": text, "delay": delay})
    write(shell.folder / "s.jsonl", {"engine": {"strict": False}}, *rules)


def answer(shell: Shell, *words: str, out: str = "run") -> list[str]:
    return ["answer", "q.jsonl", "-m", "script:s.jsonl", "-o", out, "--name", "mine", "--revisions", "2", *words]


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, _, row in read_rows(path)]


def test_answers_for_every_number_of_revisions_come_from_one_run(shell: Shell) -> None:
    prepare(shell)
    outcome = shell.run(*answer(shell))
    assert outcome.stdout == "run/answers/mine.jsonl\n"
    assert f"{4 * COUNT} answers to {COUNT} questions from {COUNT} new chains" in outcome.stderr
    told = rows(shell.folder / "run/answers/mine.jsonl")
    assert [(row["question_id"], row["revision"]) for row in told[:4]] == [("0", 0), ("0", 1), ("0", 2), ("0", None)]
    assert told[0]["turns"][0]["text"] == "First answer to <0> [quality 4]."
    assert told[1]["turns"][0]["text"] == "Revised answer to <0> [quality 8]."
    chains = rows(shell.folder / "run/chains/mine.jsonl")
    assert [chain["question_id"] for chain in chains] == [str(n) for n in range(COUNT)]
    assert {turn["chain"] for row in told for turn in row["turns"]} == {chain["id"] for chain in chains}
    manifest = json.loads((shell.folder / "run/manifest.json").read_text())
    assert manifest["answers"]["mine"]["params"]["seed"] == 0
    assert manifest["answers"]["mine"]["model"].startswith("s.jsonl ")
    original = rows(shell.folder / "run/original/mine_enforce_1_revisions.jsonl")
    assert set(original[0]) == {"question_id", "text", "whole_generation", "answer_id", "model_id", "metadata"}
    assert [row["question_id"] for row in original] == list(range(COUNT))


def test_the_same_command_again_asks_nothing_and_leaves_the_same_bytes(shell: Shell) -> None:
    prepare(shell)
    shell.run(*answer(shell))
    before = files_of(shell.folder / "run")
    outcome = shell.run(*answer(shell))
    assert f"0 new chains, {COUNT} from the journal" in outcome.stderr
    assert files_of(shell.folder / "run") == before


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.json*"))
        if "journal" not in path.name
    }


def timeless(files: dict[str, bytes]) -> dict[str, Any]:
    """Without seconds, which differ from run to run."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key != "seconds"}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return {
        name: [strip(json.loads(line)) for line in text.splitlines()]
        if name.endswith("jsonl")
        else strip(json.loads(text))
        for name, text in files.items()
    }


@pytest.mark.parametrize(
    "at", [0.5, pytest.param(0.2, marks=pytest.mark.slow), pytest.param(0.9, marks=pytest.mark.slow)]
)
def test_a_killed_run_of_answers_goes_on_and_leaves_the_same_files(shell: Shell, at: float) -> None:
    prepare(shell, delay=0.004)
    shell.run(*answer(shell, out="whole"))
    kill_when(shell, answer(shell), lambda: journalled(shell.folder / "run") >= at * COUNT)
    outcome = shell.run(*answer(shell))
    assert "from the journal" in outcome.stderr
    assert timeless(files_of(shell.folder / "run")) == timeless(files_of(shell.folder / "whole"))


def journalled(folder: Path) -> int:
    from selfee.journal import Journal

    path = folder / "journal.sqlite"
    if not path.exists():
        return 0
    with Journal(path) as journal:
        return len(journal)


def kill_when(shell: Shell, words: list[str], is_time: Callable[[], bool], *, after: float = 0.0) -> None:
    """Start a command and kill it, without a chance to tidy up, so many seconds after it is time."""
    process = subprocess.Popen(
        shell.command(*words), cwd=shell.folder, env=shell.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while not is_time() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(after)
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_questions_may_be_chosen_and_mapped(shell: Shell) -> None:
    prepare(shell)
    write(
        shell.folder / "mine.jsonl",
        *({"key": f"k{n}", "ask": f"Question <{n}>?", "kind": "even" if n % 2 == 0 else "odd"} for n in range(COUNT)),
    )
    words = ["answer", "mine.jsonl", "-m", "script:s.jsonl", "-o", "run", "--name", "m", "--revisions", "0", "--json"]
    fields = [
        "--text-field",
        "ask",
        "--id-field",
        "key",
        "--category-field",
        "kind",
        "--categories",
        "odd",
        "--limit",
        "2",
    ]
    told = json.loads(shell.run(*words, *fields).stdout)
    assert (told["questions"], told["made"], told["systems"]) == (2, 2, 2)
    assert [row["id"] for row in rows(shell.folder / "run/questions.jsonl")] == ["k1", "k3"]


def test_another_set_of_questions_in_the_same_folder_is_refused(shell: Shell) -> None:
    prepare(shell)
    shell.run(*answer(shell))
    write(shell.folder / "q.jsonl", {"question_id": 0, "text": "Another?"})
    outcome = shell.run(*answer(shell), check=2)
    assert "question '0' is another one here" in outcome.stderr


def test_an_engine_that_fails_leaves_out_its_question_and_says_so(shell: Shell) -> None:
    prepare(shell)
    write(
        shell.folder / "s.jsonl",
        {"engine": {"strict": False}},
        {"when": {"contains": "<0>"}, "text": "x", "error": "down"},
        {"when": {}, "text": CONTENT},
    )
    outcome = shell.run(*answer(shell), check=1)
    assert "1 chains failed" in outcome.stderr
    assert "down" in outcome.stderr
    assert {row["question_id"] for row in rows(shell.folder / "run/answers/mine.jsonl")} == {
        str(n) for n in range(1, COUNT)
    }


def judged(shell: Shell) -> list[dict[str, Any]]:
    [path] = (shell.folder / "run/judgments").glob("*.jsonl")
    return rows(path)


def judge(server: JudgeServer, *words: str) -> list[str]:
    return ["judge", "run/answers/mine.jsonl", "-o", "run", "-m", server.address, *words]


def test_revisions_are_judged_against_each_other_in_both_orders(shell: Shell) -> None:
    prepare(shell)
    shell.run(*answer(shell))
    with serve() as server:
        outcome = shell.run(*judge(server))
    assert outcome.stdout == "run/judgments/biased-judge.pair-scores.jsonl\n"
    told = judged(shell)
    assert len(told) == COUNT * 2 * 2
    first = [row for row in told if {row["first"]["revision"], row["second"]["revision"]} == {0, 1}]
    assert len(first) == 2 * COUNT
    assert all(sorted(row["scores"]) == [4.0, 8.0] for row in first)
    assert (shell.folder / "run/original/review_mine_enforce_0_revisions_vs_mine_enforce_1_revisions.jsonl").exists()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))])
def test_judging_killed_at_random_points_pays_for_nothing_twice_and_ends_in_the_same_report(
    shell: Shell, seed: int
) -> None:
    chance = random.Random(seed)
    prepare(shell)
    shell.run(*answer(shell))
    shutil.copytree(shell.folder / "run", shell.folder / "answered")
    with serve(Biases(unreadable=0.3, prefers_first=0.3)) as server:
        words = judge(server, "--parallel", "3", "--repeats", "2")
        shell.run(*words)
        whole = judgments_and_report(shell)
        expected = server.paid()
        shutil.rmtree(shell.folder / "run")
        (shell.folder / "answered").rename(shell.folder / "run")
        server.requests.clear()
        server.delay = 0.03
        for count in sorted(chance.sample(range(1, len(expected) - 10), 4)):
            kill_when(shell, words, partial(has_asked, server, count), after=chance.uniform(0, server.delay))
        shell.run(*words)
        assert server.paid() == expected
        assert set(server.paid().values()) == {1}
    assert judgments_and_report(shell) == whole


def judgments_and_report(shell: Shell) -> dict[str, Any]:
    """What the folder holds, without seconds, and what is told and written about it, to the byte."""
    told = {"json": shell.run("report", "run", "--json", "--allow-gaps").stdout}
    told["table"] = shell.run("report", "run", "--allow-gaps", "--out", "page").stdout
    told |= {name: (shell.folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.md")}
    [path] = (shell.folder / "run/judgments").glob("*.jsonl")
    return {**told, "judgments": without_seconds(path.read_bytes())}


def has_asked(server: JudgeServer, count: int) -> bool:
    return len(server.requests) >= count


def without_seconds(text: bytes) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in text.splitlines()]
    for row in told:
        row["usage"].pop("seconds", None)
    return told


def test_unreadable_replies_are_asked_again_and_counted(shell: Shell) -> None:
    prepare(shell)
    shell.run(*answer(shell))
    with serve(Biases(unreadable=1.0)) as server:
        outcome = shell.run(*judge(server, "--asks", "2"))
    told = judged(shell)
    assert {row["unreadable"] for row in told} <= {"no-verdict", "empty"}
    assert all("scores" not in row and len(row["earlier_replies"]) == 1 for row in told)
    assert f"{len(told)} replies stayed unreadable" in outcome.stderr
    assert len(server.requests) == 2 * len(told)


def test_several_judges_each_have_their_file(shell: Shell) -> None:
    prepare(shell, count=2)
    shell.run(*answer(shell))
    write(shell.folder / "j.jsonl", {"engine": {"strict": False}}, {"when": {}, "text": "Better. [[B]]"})
    with serve() as server:
        shell.run(*judge(server, "-m", "script:j.jsonl", "--form", "pair-label"))
    files = {path.name for path in (shell.folder / "run/judgments").iterdir()}
    assert files == {"biased-judge.pair-label.jsonl", "j.pair-label.jsonl"}


def test_a_dry_run_asks_nothing_and_names_a_price(shell: Shell) -> None:
    prepare(shell)
    shell.run(*answer(shell))
    with serve() as server:
        told = json.loads(
            shell.run(*judge(server, "--dry-run", "--json", "--price-in", "1", "--price-out", "2")).stdout
        )
        assert server.requests == []
    assert told[0]["judgments"] == 24
    assert told[0]["cost"] > 0


def test_max_cost_ends_the_run_and_keeps_what_was_paid_for(shell: Shell) -> None:
    prepare(shell)
    shell.run(*answer(shell))
    with serve() as server:
        limits = ["--price-in", "1000", "--price-out", "1000", "--max-cost", "2", "--parallel", "1"]
        outcome = shell.run(*judge(server, *limits), check=1)
        assert "--max-cost" in outcome.stderr
        assert 0 < len(judged(shell)) < 24
        shell.run(*judge(server))
        assert set(server.paid().values()) == {1}
    assert len(judged(shell)) == 24


def test_controls_show_whether_a_judge_obeys_what_it_judges(shell: Shell) -> None:
    prepare(shell)
    shell.run(*answer(shell))
    with serve(Biases(obeys=1.0)) as server:
        shell.run(*judge(server, "--controls", "3"))
    told = [row for row in judged(shell) if "control: instructed" in row["first"]["name"] + row["second"]["name"]]
    assert len(told) == 6
    for row in told:
        first, second = row["scores"]
        assert (first > second) == ("instructed" in row["first"]["name"])
    assert all(
        INSTRUCTION in request["messages"][1]["content"] for request in server.requests if "Ignore all" in str(request)
    )


def test_files_of_the_original_are_judged_with_its_prompts(shell: Shell) -> None:
    for name, quality in (("chatgpt", 8), ("selfee", 6)):
        write(
            shell.folder / f"{name}.jsonl",
            *({"question_id": n, "text": f"{name} {n} [quality {quality}]", "answer_id": f"{name}{n}"} for n in (1, 2)),
        )
    write(
        shell.folder / "q.jsonl",
        {"question_id": 1, "text": "a", "category": "generic"},
        {"question_id": 2, "text": "b", "category": "math"},
    )
    template = "".join(
        f"[The Start of Assistant {n}'s Answer]\n{{answer_{n}}}\n\n[The End of Assistant {n}'s Answer]\n"
        for n in (1, 2)
    )
    template += "{prompt}"
    prompts = [
        {"prompt_id": n, "system_prompt": "s", "prompt_template": template, "defaults": {"prompt": text}}
        for n, text in ((1, "two values"), (2, "a Python tuple"))
    ]
    write(shell.folder / "p.jsonl", *prompts)
    write(
        shell.folder / "r.jsonl",
        *(
            {"reviewer_id": name, "prompt_id": n, "category": kind, "metadata": {}}
            for n, name, kind in ((1, "d", "general"), (2, "m", "math"))
        ),
    )
    with serve() as server:
        words = ["judge", "chatgpt.jsonl", "selfee.jsonl", "--questions", "q.jsonl", "-o", "run", "-m", server.address]
        shell.run(*words, "--prompts", "p.jsonl", "--reviewers", "r.jsonl", "--no-fence")
    reviews = rows(shell.folder / "run/original/review_selfee_vs_chatgpt.jsonl")
    assert [(row["answer1_id"], row["reviewer_id"], row["score"]) for row in reviews] == [
        ("selfee1", 1, [6.0, 8.0]),
        ("selfee2", 2, [6.0, 8.0]),
    ]
    assert reviews[1]["text"].endswith("(6, 8)")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["nowhere.jsonl"], "cannot be read"),
        (["run/answers/mine.jsonl@7"], "no such answers"),
        (["run/answers/mine.jsonl@1"], "nothing to compare it with"),
        (
            ["run/answers/mine.jsonl", "run/answers/mine.jsonl@0", "--form", "single-score", "--controls", "2"],
            "--controls",
        ),
        (["run/answers/mine.jsonl", "--reviewers", "r.jsonl"], "--reviewers"),
        (["run/answers/mine.jsonl", "--price-in", "1"], "--price-in and --price-out"),
        (["run/answers/mine.jsonl", "--max-cost", "1"], "costs nothing"),
    ],
)
def test_words_that_do_not_fit_are_answered_in_one_paragraph(shell: Shell, words: list[str], match: str) -> None:
    prepare(shell, count=1)
    shell.run(*answer(shell))
    outcome = shell.run("judge", *words, "-o", "run", "-m", "script:s.jsonl", check=2)
    assert match in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_answers_judgments_and_report_are_one_tour(shell: Shell) -> None:
    prepare(shell)
    shell.run(*answer(shell, "--revisions", "1"))
    write(
        shell.folder / "chatgpt.jsonl",
        *({"question_id": n, "text": f"Other answer to <{n}> [quality 6]", "answer_id": f"o{n}"} for n in range(COUNT)),
    )
    with serve() as server:
        words = ["judge", "run/answers/mine.jsonl", "chatgpt.jsonl", "-o", "run", "-m", server.address]
        shell.run(*words, "--controls", "2")
    told = json.loads(shell.run("report", "run", "--json").stdout)
    scores = {(each["model"], each["baseline"]): each["scores"] for each in told["pairs"]}
    wins = {names: (each["wins"], each["losses"]) for names, each in scores.items()}
    assert wins["mine@0", "chatgpt"] == (0, 2 * COUNT)
    assert wins["mine@1", "chatgpt"] == wins["mine", "chatgpt"] == (2 * COUNT, 0)
    assert scores["mine@0", "chatgpt"]["relative"]["value"] == pytest.approx(100 * 4 / 6)
    shell.run("report", "run", "--out", "page")
    page = (shell.folder / "page.html").read_text(encoding="utf-8")
    assert "First answer to" in page
    assert "Revised answer to" in page


GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "evaluate.md"


def test_every_flag_in_the_guide_exists(shell: Shell) -> None:
    text = GUIDE.read_text(encoding="utf-8").replace("\\\n", " ")
    helps = {name: shell.run(name, "--help").stdout for name in ("answer", "judge", "report")}
    commands = [line.partition("#")[0].split() for line in text.splitlines() if line.startswith("selfee ")]
    assert len(commands) >= 10
    for command in commands:
        for word in command[2:]:
            if word.startswith("-"):
                assert word in helps[command[1]].replace("/", " ").split() or f"{word}," in helps[command[1]], word


def test_a_model_that_is_not_there_leaves_no_folder_behind(shell: Shell) -> None:
    prepare(shell, count=1)
    write(shell.folder / "a.jsonl", {"question_id": 0, "text": "x", "answer_id": "a0"})
    write(shell.folder / "b.jsonl", {"question_id": 0, "text": "y", "answer_id": "b0"})
    for model in ("nowhere.gguf", "script:nowhere.jsonl"):
        assert "nowhere" in shell.run("answer", "q.jsonl", "-o", "new", "-m", model, check=2).stderr
        words = ("judge", "a.jsonl", "b.jsonl", "--questions", "q.jsonl", "-o", "new")
        assert "nowhere" in shell.run(*words, "--model", model, check=2).stderr
    assert not (shell.folder / "new").exists()
