"""The training set of our model says nothing that a program has not found."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from examples.model import arithmetic, formats, general, make_chains
from examples.model.make_chains import chain, on_policy_rounds
from examples.model.sample_answers import arithmetic_rows
from examples.model.well_formed import faults

from selfee.chain.checkers.number import NumberChecker
from selfee.chain.parser import read_chain
from selfee.chain.record import from_dataset
from selfee.chain.types import ChainEnd, Instruction
from selfee.chain.verdict import find_verdict
from selfee.train.lessons import Objective, lessons_of

SEEDS = range(300)
_SUM = re.compile(r"(\d+) ([-+×]) (\d+) = (\d+)")


def needs(feedback: str) -> bool:
    verdict = find_verdict(feedback)
    assert verdict is not None
    return verdict.needed


def sums_hold(text: str) -> bool:
    return all(arithmetic.Step("", int(a), sign, int(b)).value == int(c) for a, sign, b, c in _SUM.findall(text))


def is_right(problem: arithmetic.Problem, answer: str) -> bool:
    return NumberChecker(str(problem.result)).check(Instruction(problem.question), answer).passed is True


def test_feedback_works_out_every_step_of_a_right_answer_and_accepts_it() -> None:
    for seed in SEEDS:
        problem = arithmetic.draw_problem(random.Random(seed))
        right = arithmetic.right_answer(problem)
        assert is_right(problem, right.answer)
        assert sums_hold(right.answer)
        assert sums_hold(right.feedback)
        assert not needs(right.feedback)


def test_a_wrong_answer_is_wrong_and_what_is_said_about_it_is_true() -> None:
    for seed in SEEDS:
        draw = random.Random(seed)
        problem = arithmetic.draw_problem(draw)
        wrong = arithmetic.draw_wrong(problem, draw)
        assert not is_right(problem, wrong.answer), wrong
        assert needs(wrong.feedback)
        # What the critic works out itself stands before it quotes the answer.
        own = re.sub(r"the answer works out [^.]*\.", "", wrong.feedback)
        assert sums_hold(own), wrong
        assert str(problem.result) in wrong.feedback or len(problem.steps) > 1


def test_tasks_with_a_form_have_one_right_answer_and_one_wrong() -> None:
    for seed in SEEDS:
        task = formats.draw_task(random.Random(seed))
        assert task.right != task.wrong
        assert not needs(task.praise)
        assert needs(task.blame)


def test_ordinary_answers_are_damaged_in_ways_that_feedback_names() -> None:
    question, other = "Why do cats purr at night?", "Bread is made of flour."
    answer = "Cats purr when they are content. They also purr when they are ill. Nobody knows exactly how they do it."
    kinds = set()
    for seed in SEEDS:
        worse, said = general.damage(question, answer, other, random.Random(seed)) or ("", "")
        assert worse != answer
        assert needs(said)
        kinds.add(said.split()[3])
        if "breaks off" in said:
            assert answer.startswith(worse)
            assert not general.is_whole(worse)
    assert len(kinds) == 3
    for seed in SEEDS:
        assert not needs(general.accept(question, answer, random.Random(seed)))


def test_an_answer_that_repeats_itself_is_never_praised_for_not_doing_so() -> None:
    answer = "The leaves fall in the cold autumn wind. The leaves fall in the cold autumn wind."
    assert general.repeats_itself(answer)
    assert all("twice" not in general.accept("Why?", answer, random.Random(seed)) for seed in SEEDS)


def test_long_answers_lose_whole_sentences() -> None:
    text = "One is here. Two is there. Three is gone"
    assert general.whole_part(text, 1000) == "One is here. Two is there."
    assert general.whole_part("```python\nprint(1.)\nprint(2", 1000) == ""


@pytest.mark.parametrize("said", ["7 × 8 = 54\n54", "7 + 8 = 15\n15", "I do not know.", "7 × 8 = 56\n65"])
def test_a_models_own_wrong_answer_is_put_right(said: str) -> None:
    problem = arithmetic.Problem("What is 7 × 8?", (arithmetic.Step("", 7, "×", 8),))
    rounds = on_policy_rounds(problem, said)
    assert [needs(feedback) for _, feedback in rounds] == [True, False]
    assert rounds[0][0] == said
    assert is_right(problem, rounds[1][0])


def test_a_models_own_right_answer_is_accepted_as_it_stands() -> None:
    problem = arithmetic.Problem("What is 7 × 8?", (arithmetic.Step("", 7, "×", 8),))
    ((answer, feedback),) = on_policy_rounds(problem, "That makes 56.")
    assert answer == "That makes 56."
    assert not needs(feedback)


def write_sources(folder: Path) -> list[str]:
    seeds = folder / "seeds.jsonl"
    task = {"instruction": "Name a river.", "instances": [{"input": "", "output": "The Danube is a river in Europe."}]}
    seeds.write_text("".join(json.dumps(task | {"id": number}) + "\n" for number in range(5)))
    rows = folder / "gsm8k.jsonl"
    answer = "He has 2*3 = <<2*3=6>>6 pens.\nNow he has 6-1 = <<6-1=5>>5 pens.\n#### 5"
    rows.write_text("".join(json.dumps({"question": f"Has he {n} pens?", "answer": answer}) + "\n" for n in range(9)))
    attempts = folder / "attempts.jsonl"
    asked = [row | {"answer": "It is 3.", "finished": True} for row in arithmetic_rows(6)]
    attempts.write_text("".join(json.dumps(row) + "\n" for row in asked))
    return ["--seeds", str(seeds), "--gsm8k", str(rows), "--attempts", str(attempts), "--gsm8k-rows", "9"]


def test_the_set_is_the_same_each_time_and_every_chain_is_well_formed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = write_sources(tmp_path)
    for out in ("one", "two"):
        words = [*sources, "--arithmetic", "60", "--formats", "30", "-o", str(tmp_path / out)]
        monkeypatch.setattr("sys.argv", ["make_chains", *words])
        make_chains.main()
    files = [sorted((tmp_path / out).glob("*.jsonl")) for out in ("one", "two")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    rows = [json.loads(line) for line in (tmp_path / "one" / "train.jsonl").read_text().splitlines()]
    assert {row["dataset"] for row in rows} == {"arithmetic", "format", "self-instruct", "gsm8k", "on-policy"}
    for row in rows:
        made = from_dataset(row)
        assert made.end is ChainEnd.ACCEPTED
        assert faults(made) == []
        (lesson,) = lessons_of(made, Objective.FULL)
        assert lesson.has_end
        text = "".join(piece.text for piece in lesson.pieces)
        assert [step.answer for step in read_chain(text, made.instruction).steps] == [s.answer for s in made.steps]


def test_what_is_held_out_is_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["make_chains", "--arithmetic", "400", "-o", str(tmp_path)])
    make_chains.main()
    held = {json.loads(line)["question"] for line in (tmp_path / "heldout.jsonl").read_text().splitlines()}
    trained = {
        json.loads(line)["instruction"].split("\n\n")[0]
        for name in ("train", "validation")
        for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()
    }
    assert len(held) > 150
    assert not held & trained


def test_a_chain_without_a_verdict_is_not_well_formed() -> None:
    row = chain("x", "Why?", [("Because.", "That is fine.")])
    assert faults(from_dataset(row)) == ["feedback 1 has no verdict"]
