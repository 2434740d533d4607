"""`selfee data augment` and `retry` as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.story import Outcome, Shell
from tests.data.augment.test_kill_story import write_rows
from tests.engines.paid.batch_server import BatchServer
from tests.engines.paid.faulty_teacher import FaultyTeacher, Plan

from selfee.chain.record import from_dataset
from selfee.journal import Journal


def run(*words: str | Path, code: int = 0) -> Outcome:
    """Run ``selfee data …`` within this process (its courier is one of its own); its exit code must be ``code``."""
    return Shell(Path.cwd()).run("data", *map(str, words), check=code)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def script(path: Path, *lines: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in ({"engine": {"strict": False}}, *lines)))
    return f"script:{path}"


CRITIC = {"contains": "Are there any comments"}


def test_a_record_has_selfees_fields_first_and_tells_where_it_comes_from(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "chains.jsonl"
    write_rows(samples, 2)
    content = "Good. Score: 8/10. Revision is not needed."
    teacher = script(
        tmp_path / "teacher.jsonl",
        {"when": {"pattern": "Revision:\\Z"}, "text": "I apologize for that. It is 8."},
        {"when": {"pattern": "revised proposed answer|proposed answer:\nI apol"}, "text": content},
        {"when": CRITIC, "text": "Add both. Score: 4/10. Revision is needed."},
        {"when": {"contains": ""}, "text": "It is 7."},
    )  # fmt: skip
    told = run("augment", samples, "-o", out, "-m", teacher, "--accept-score", "5").stderr
    assert "2 chains in" in told
    plain, with_gold = read(out)
    assert list(plain)[:5] == ["iteration_truncated", "instruction", "input", "iteration", "outputs"]
    assert list(with_gold)[:6] == ["iteration_truncated", "output", "instruction", "input", "iteration", "outputs"]
    assert with_gold["output"] == "It is 8, of course."
    assert [step["output"] for step in with_gold["outputs"]] == ["It is 7.", "It is 8."]
    assert with_gold["edits"] == [
        {"output": 1, "field": "output", "kind": "apology", "at": 0, "removed": "I apologize for that. "}
    ]
    assert with_gold["verdicts"][1] == {"needed": False, "source": "phrase", "score": 8.0, "conflict": True}
    assert with_gold["flags"] == ["conflict:1"]
    source = with_gold["provenance"]
    assert (source["prompts"], source["reference_shown"]) == ("selfee-code", True)
    assert plain["provenance"]["prompts"] == "selfee-alpaca"
    assert [call["max_tokens"] for call in source["calls"]] == [512, 256, 512, 256]
    assert len({call["seed"] for call in source["calls"]}) == 4
    assert from_dataset(with_gold).num_revisions == 1
    times = read(tmp_path / "chains.calls.jsonl")
    assert len(times) == len(plain["provenance"]["calls"]) + 4
    assert times[0]["seconds"] >= 0


@pytest.mark.slow
def test_two_shards_and_a_merge_of_their_journals_give_the_file_of_one_run(tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    write_rows(samples, 24)
    with FaultyTeacher(Plan(latency=0.01)) as teacher:
        run("augment", samples, "-o", tmp_path / "whole.jsonl", "-m", teacher.url)
        distinct = len(teacher.paid)
    with FaultyTeacher(Plan(latency=0.01)) as teacher:
        words = [sys.executable, "-m", "selfee.cli", "data", "augment", str(samples), "-m", teacher.url, "-q"]
        shards = [subprocess.Popen([*words, "-o", str(tmp_path / f"{n}.jsonl"), "--shard", f"{n}/2"]) for n in (1, 2)]
        assert [shard.wait(100) for shard in shards] == [0, 0]
        parts = [read(tmp_path / f"{n}.jsonl") for n in (1, 2)]
        assert min(map(len, parts)) > 4
        assert sum(map(len, parts)) == 24
        merged = tmp_path / "merged.journal"
        told = run("journal", "merge", merged, tmp_path / "1.journal", tmp_path / "2.journal").stdout
        assert f"{distinct}" in told
        asked = teacher.requests
        run("augment", samples, "-o", tmp_path / "merged.jsonl", "-m", teacher.url, "--journal", merged)
        assert teacher.requests == asked, "the merged journal holds every reply"
    assert (tmp_path / "merged.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_failed_rows_stop_no_other_and_are_tried_again_by_a_command(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "chains.jsonl"
    write_rows(samples, 8)
    plan = Plan(faults=("server",), share=0.25, most=10**6, latency=0.0)
    with FaultyTeacher(plan) as teacher:
        told = run("augment", samples, "-o", out, "-m", teacher.url, "--attempts", "1", "--concurrency", "4")
        failed = read(tmp_path / "chains.failed.jsonl")
        assert 0 < len(failed) < 8
        assert len(read(out)) == 8 - len(failed)
        assert {row["failure"]["kind"] for row in failed} == {"server"}
        assert "selfee data retry" in told.stderr
        paid = sum(teacher.paid.values())
        plan.share = 0.0
        run("retry", out, "--kind", "timeout")
        assert len(read(tmp_path / "chains.failed.jsonl")) == len(failed)
        run("retry", out)
        assert not (tmp_path / "chains.failed.jsonl").exists()
        assert [row["instruction"] for row in read(out)] == [row["instruction"] for row in read(samples)]
        assert max(teacher.paid.values()) == 1
        assert sum(teacher.paid.values()) > paid


def test_words_that_are_no_good_fail_the_row_and_get_another_seed_when_tried_again(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "chains.jsonl"
    write_rows(samples, 3)
    refusing = {"text": "As an AI language model, I cannot do sums."}
    fine = {"text": "Fine. Revision is not needed."}
    teacher = script(tmp_path / "t.jsonl", refusing, {"text": "It is 7."}, fine, {"text": "It is 7."}, fine)
    run("augment", samples, "-o", out, "-m", teacher)
    (failed,) = read(tmp_path / "chains.failed.jsonl")
    assert failed["failure"]["kind"] == "refusal"
    before = {row["id"]: row for row in read(out)}
    script(tmp_path / "t.jsonl", refusing, {"text": "It is 7."}, fine, {"text": "It is 7."}, fine)
    with Journal(tmp_path / "chains.journal") as journal:
        seeds = {entry.asked["params"]["seed"] for entry in journal.entries()}
    run("augment", samples, "-o", out, "-m", teacher)  # a failed row is not tried again by itself
    assert len(read(tmp_path / "chains.failed.jsonl")) == 1
    run("retry", out)  # the script begins anew: it refuses again, but another question was asked
    with Journal(tmp_path / "chains.journal") as journal:
        assert len({entry.asked["params"]["seed"] for entry in journal.entries()} - seeds) >= 1
    assert {row["id"]: row for row in read(out)} == before


def test_feedback_that_tells_the_answer_is_asked_for_anew(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "chains.jsonl"
    rows = [{"instruction": "How many?", "source": "s", "split": "train", "reference": "24 + 48\n#### 72"}]
    samples.write_text(json.dumps(rows[0]) + "\n")
    teacher = script(
        tmp_path / "t.jsonl",
        {"text": "It is 96."},
        {"text": "The answer should be 72. Revision is needed."},
        {"text": "So it is 72."},
        {"text": "Fine. Revision is not needed."},
        {"text": "Add them anew. Revision is needed."},
        {"text": "Then it is 72."},
        {"text": "Right. Revision is not needed."},
    )
    run("augment", samples, "-o", out, "-m", teacher)
    (row,) = read(out)
    assert [step["feedback"] for step in row["outputs"]] == [
        "Add them anew. Revision is needed.",
        "Right. Revision is not needed.",
    ]
    assert row["outputs"][1]["output"] == "Then it is 72."
    assert len(row["provenance"]["calls"]) == 7, "what was thrown away was paid for, and is told"


def test_the_shared_first_answer_is_kept_and_only_criticised(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "chains.jsonl"
    samples.write_text(json.dumps({"instruction": "Hi?", "source": "sharegpt", "split": "", "answer": "Hello."}) + "\n")
    teacher = script(tmp_path / "t.jsonl", {"text": "Good. Score: 9/10. Revision is not needed."})
    run("augment", samples, "-o", out, "-m", teacher)
    (row,) = read(out)
    assert row["outputs"] == [{"output": "Hello.", "feedback": "Good. Score: 9/10. Revision is not needed."}]
    assert row["provenance"]["first_answer"] == "source"


def test_own_prompts_come_from_a_file_and_are_named_by_their_hash(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "chains.jsonl"
    write_rows(samples, 1)
    prompts = tmp_path / "mine.toml"
    prompts.write_text(
        'answer = "Solve: {question}"\ncritique = "Judge {answer}"\nrevise = "Better than {answer} by {feedback}"\n'
    )
    teacher = script(
        tmp_path / "t.jsonl",
        {"when": {"contains": "Solve: "}, "text": "7"},
        {"when": {"contains": "Judge 7"}, "text": "Fine. Revision is not needed."},
    )
    run("augment", samples, "-o", out, "-m", teacher, "--prompts", prompts)
    (row,) = read(out)
    assert row["provenance"]["prompts"] == "mine"
    assert len(row["provenance"]["prompts_sha256"]) == 64
    bad = tmp_path / "bad.toml"
    bad.write_text('answer = "x"\n')
    told = run("augment", samples, "-o", out, "-m", teacher, "--prompts", bad, code=2).stderr
    assert "no field 'critique'" in told


def test_teachers_share_the_rows_by_weight(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "chains.jsonl"
    write_rows(samples, 60)
    reply = {"when": {"contains": ""}, "text": "Fine. Revision is not needed."}
    one, two = script(tmp_path / "one.jsonl", reply), script(tmp_path / "two.jsonl", reply, reply)
    run("augment", samples, "-o", out, "-m", f"3*{one}", "-m", two, "-q")
    models = [row["provenance"]["model"] for row in read(out)]
    counts = sorted(models.count(model) for model in set(models))
    assert len(counts) == 2
    assert 5 <= counts[0] <= 25


def test_a_dry_run_asks_nobody_and_tells_calls_and_money(tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    write_rows(samples, 50)
    words = ("augment", samples, "-o", tmp_path / "c.jsonl", "-m", "https://api.openai.com/v1#gpt-4o-mini", "--dry-run")
    told = json.loads(run(*words, "--json", "--rpm", "100").stdout)
    least, usual, most = told["estimates"]
    assert least["calls"] == 100
    assert most["calls"] == 500
    assert least["cost"] < usual["cost"] < most["cost"]
    assert usual["minutes"] == pytest.approx(usual["calls"] / 100)
    assert "usual" in run(*words).stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.jsonl"]


def test_a_limit_of_cost_stops_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "chains.jsonl"
    write_rows(samples, 10)
    words = ("augment", samples, "-o", out, "--price-in", "100", "--price-out", "200", "--concurrency", "2")
    with FaultyTeacher(Plan(latency=0.0)) as teacher:
        told = run(*words, "-m", teacher.url, "--max-cost", "0.2", code=1).stderr
        assert "--max-cost" in told
        assert "rows are left" in told
        with Journal(tmp_path / "chains.journal") as journal:
            assert 0 < journal.spent() <= 0.2
        run("retry", out, "--max-cost", "1000")
        assert max(teacher.paid.values()) == 1
    assert len(read(out)) == 10
    told = run(*words[:4], "-m", "http://127.0.0.1:1/v1#unheard-of", "--max-cost", "1", code=2).stderr
    assert "--price-in" in told


def test_ctrl_c_waits_for_what_is_under_way_and_writes_what_there_is(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "chains.jsonl"
    write_rows(samples, 300)
    with FaultyTeacher(Plan(latency=0.1)) as teacher:
        command = [sys.executable, "-m", "selfee.cli", "data", "augment", str(samples), "-o", str(out)]
        process = subprocess.Popen([*command, "-m", teacher.url], stderr=subprocess.PIPE, text=True, env=os.environ)
        while teacher.requests < 40:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
        assert process.returncode == 1
        assert "rows are left" in told
        with Journal(tmp_path / "chains.journal") as journal:
            assert len(journal) == sum(teacher.paid.values())
            assert journal.num_orphaned() == 0
    assert len(read(out)) < 300


def test_batches_make_the_same_chains_a_file_a_round(tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    write_rows(samples, 8)
    with FaultyTeacher(Plan(latency=0.0)) as teacher:
        run("augment", samples, "-o", tmp_path / "calls.jsonl", "-m", teacher.url, "-q")
    with BatchServer(fail_once=5) as server:
        out = tmp_path / "batches.jsonl"
        words = ("augment", samples, "-o", out, "-m", server.url, "--batch", "--poll", "0.05")
        told = run(*words).stderr
        assert "round 1: 8 requests in 1 batch" in told
        assert max(server.paid.values()) == 1
        rounds = len(server.batches)
        assert 3 <= rounds <= 24
        run(*words)
        assert len(server.batches) == rounds, "nothing is sent twice"

    def texts(path: Path) -> list[Any]:
        return [(row["id"], row["outputs"], row["end"]) for row in read(path)]

    # Seeds and questions are the same, so are the replies, whichever way they came.
    assert texts(out) == texts(tmp_path / "calls.jsonl")
    assert not list((tmp_path / "batches.batches").iterdir())


def test_a_run_killed_while_a_batch_is_under_way_takes_it_up(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "chains.jsonl"
    write_rows(samples, 8)
    with BatchServer(looks=4) as server:
        words = ["augment", str(samples), "-o", str(out), "-m", server.url, "--batch", "--poll", "0.1"]
        for _ in range(2):
            server.touched.clear()
            process = subprocess.Popen([sys.executable, "-m", "selfee.cli", "data", *words, "-q"])
            server.touched.wait(60)
            process.kill()
            process.wait()
        told = run(*words).stderr
        assert "of an earlier run" in told
        assert max(server.paid.values()) == 1
        with Journal(tmp_path / "chains.journal") as journal:
            assert len(journal) == len(server.paid)
    assert len(read(out)) == 8, told
