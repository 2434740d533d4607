"""The training set of our model: chains of answer, feedback and revision from sources that everybody may use.

python -m examples.model.make_chains --gsm8k train.jsonl --seeds seed_tasks.jsonl --answers answers.jsonl -o chains/

Writes train.jsonl, validation.jsonl and heldout.jsonl: 200 arithmetic problems in GSM8K's form, never trained on, for
``selfee revisions``. The same sources and seed give the same files, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from examples.model.arithmetic import (
    ASK_STEPS,
    Problem,
    ask,
    draw_problem,
    draw_wrong,
    judge,
    right_answer,
    work_out,
    write_answer,
)
from examples.model.formats import draw_task
from examples.model.general import accept, damage, repeats_itself, whole_part
from examples.model.sample_answers import ON_POLICY_SEED

from selfee.chain.checkers.number import NumberChecker, final_number
from selfee.chain.types import Instruction

Row = dict[str, Any]
Round = tuple[str, str]  # an answer and the feedback on it

MOST_CHARACTERS = 620
"""Of an ordinary answer; longer ones lose whole sentences at their end."""


def chain(source: str, question: str, rounds: Iterable[Round], text_input: str = "") -> Row:
    """A line in the schema of SelFee's training data, with its source."""
    outputs = [{"output": answer, "feedback": feedback} for answer, feedback in rounds]
    return {
        "dataset": source,
        "iteration_truncated": False,
        "instruction": question,
        "input": text_input,
        "iteration": len(outputs),
        "outputs": outputs,
    }


def arithmetic_chains(count: int, seed: int) -> Iterator[Row]:
    """Problems of ours: half answered right at once, half after one revision, some after two."""
    for number in range(count):
        draw = random.Random(f"arithmetic:{seed}:{number}")
        problem = draw_problem(draw)
        question, right = ask(problem, draw), right_answer(problem)
        rounds = [(right.answer, right.feedback)]
        if draw.random() < 0.5:
            wrongs = [draw_wrong(problem, draw) for _ in range(2 if draw.random() < 0.1 else 1)]
            wrongs = [
                wrong for place, wrong in enumerate(wrongs) if wrong.answer not in [w.answer for w in wrongs[:place]]
            ]
            rounds = [(wrong.answer, wrong.feedback) for wrong in wrongs] + rounds
        yield chain("arithmetic", question, rounds)


def format_chains(count: int, seed: int) -> Iterator[Row]:
    """Tasks with a form: half right at once."""
    for number in range(count):
        draw = random.Random(f"format:{seed}:{number}")
        task = draw_task(draw)
        rounds = [(task.right, task.praise)]
        if draw.random() < 0.5:
            rounds.insert(0, (task.wrong, task.blame))
        yield chain("format", task.question, rounds)


def general_chains(source: str, rows: list[tuple[str, str, str]], seed: int) -> Iterator[Row]:
    """(question, input, answer): two of three accepted at once, the others damaged first."""
    for number, (question, text_input, answer) in enumerate(rows):
        draw = random.Random(f"{source}:{seed}:{number}")
        asked = f"{question} {text_input}"
        rounds = [(answer, accept(asked, answer, draw))]
        hurt = damage(asked, answer, draw.choice(rows)[2], draw) if draw.random() < 0.4 else None
        if hurt is not None and hurt[0] != answer:
            rounds.insert(0, hurt)
        yield chain(source, question, rounds, text_input)


def seed_rows(path: Path) -> list[tuple[str, str, str]]:
    """Self-Instruct's seed tasks that are short."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        one = row["instances"][0]
        answer = one["output"].strip()
        if len(one["input"]) < 300 and 0 < len(answer) <= MOST_CHARACTERS:
            rows.append((row["instruction"].strip(), one["input"].strip(), answer))
    return rows


def answered_rows(path: Path) -> list[tuple[str, str, str]]:
    """The base model's own answers, shortened to whole sentences where they are long; none that repeats itself."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answer = whole_part(row["answer"], MOST_CHARACTERS)
        if answer and not repeats_itself(answer):
            rows.append((row["question"], "", answer))
    return rows


_NOTE = re.compile(r"<<([^=<>]+)=([^<>]+)>>")


def gsm8k_chains(path: Path, count: int, seed: int) -> Iterator[Row]:
    """Training rows of GSM8K with two or three notes of the calculator: right, or with one number of a note wrong."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    draw = random.Random(f"gsm8k:{seed}")
    draw.shuffle(rows)
    made = 0
    for row in rows:
        if made >= count:
            return
        body, _, result = row["answer"].partition("####")
        notes, result = _NOTE.findall(body), result.strip()
        if not 1 < len(notes) < 4 or len(row["question"]) > 260 or len(body) > 330:
            continue
        made += 1
        right = f"{_NOTE.sub('', body).strip()}\n{result}"
        sums = " ".join(f"{left} = {value}, right." for left, value in notes)
        rounds = [(right, f"{sums} The answer is {result}. Revision is not needed.")]
        if draw.random() < 0.5 and (wrong := _spoil(body, result, draw)) is not None:
            rounds.insert(0, wrong)
        yield chain("gsm8k", f"{row['question'].strip()}\n\n{ASK_STEPS}", rounds)


def _spoil(body: str, result: str, draw: random.Random) -> Round | None:
    """The answer with the last sum's value wrong, or with its last line missing."""
    notes = list(_NOTE.finditer(body))
    left, value = notes[-1].groups()
    if final_number(value) != final_number(result) or not value.isdigit():
        return None
    before = [f"{one.group(1)} = {one.group(2)}, right." for one in notes[:-1]]
    if draw.random() < 0.5:
        off = str(max(1, int(value) + draw.choice((-10, -2, -1, 1, 2, 10))))
        if off == value:
            return None
        told = body[: notes[-1].start()] + body[notes[-1].start() :].replace(value, off)
        said = [*before, f"{left} = {value}, and the answer says {off}."]
        return f"{_NOTE.sub('', told).strip()}\n{off}", f"{' '.join(said)} Revision is needed."
    lines = body[: notes[-1].start()].strip().splitlines()[:-1]
    if not lines:
        return None
    last = notes[-2].group(2)
    said = [*before, f"The last step is missing: {left} = {value}."]
    return f"{_NOTE.sub('', chr(10).join(lines)).strip()}\n{last}", f"{' '.join(said)} Revision is needed."


def on_policy_chains(path: Path) -> Iterator[Row]:
    """Answers that the model itself gave to our arithmetic, checked: kept and accepted if right, else put right."""
    seen = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        draw = random.Random(f"{ON_POLICY_SEED}:{row['number']}")
        problem = draw_problem(draw)
        question = ask(problem, draw)
        if question != row["question"]:
            raise SystemExit(f"{path}: row {row['number']} is of another version of arithmetic.py; sample it again")
        if not row["finished"] or (question, row["answer"]) in seen:
            continue
        seen.add((question, row["answer"]))
        yield chain("on-policy", question, on_policy_rounds(problem, row["answer"]))


_SAID = re.compile(r"(\d+)(?: [a-z]+)? ?([-+×x*]) ?\$?(\d+)(?: [a-z]+)? ?= ?\$?(\d+)")
_SIGNS = {"x": "×", "*": "×"}


def on_policy_rounds(problem: Problem, answer: str) -> list[Round]:
    """A model's answer with the feedback it deserves and, if it is wrong, the right answer after it."""
    right = right_answer(problem)
    if NumberChecker(str(problem.result)).check(Instruction(problem.question), answer).passed:
        return [(answer, right.feedback)]
    said = [(f"{a} {_SIGNS.get(sign, sign)} {b}", value) for a, sign, b, value in _SAID.findall(answer)]
    steps = [str(step) for step in problem.steps]
    if [left for left, _ in said] == steps:  # the right sums: the slip is found where it is
        feedback, holds = judge(problem.steps, tuple(int(value) for _, value in said))
        if not holds:
            return [(answer, feedback), (right.answer, right.feedback)]
    for place, step in enumerate(problem.steps):  # else the first sum that is not there as it must be
        if place >= len(said) or said[place] != (str(step), str(step.value)):
            given = "no such sum is there"
            if place < len(said):
                given = f"the answer works out {said[place][0]} = {said[place][1]}"
            about = f"The question asks for {step}, and {given}. {work_out(step)} That is {step.value}."
            return [(answer, f"{about} Revision is needed."), (right.answer, right.feedback)]
    found = final_number(answer) or "no number"
    end = f"The sums are right, and the answer must end with {problem.result}, not {found}. Revision is needed."
    return [(answer, end), (right.answer, right.feedback)]


def heldout_rows(count: int, seed: int) -> Iterator[Row]:
    """Arithmetic problems in GSM8K's form, drawn apart from those of training."""
    for number in range(count):
        problem = draw_problem(random.Random(f"heldout:{seed}:{number}"))
        body = write_answer(problem.steps, tuple(step.value for step in problem.steps)).rsplit("\n", 1)[0]
        yield {"id": f"arithmetic-{number}", "question": problem.question, "answer": f"{body}\n#### {problem.result}"}


def main() -> None:
    """Read the command line, make, write, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--gsm8k", type=Path, help="training rows of GSM8K (MIT)")
    parser.add_argument("--seeds", type=Path, help="Self-Instruct's seed_tasks.jsonl (Apache-2.0)")
    parser.add_argument("--answers", type=Path, help="what sample_answers made")
    parser.add_argument("--attempts", type=Path, help="what sample_answers --arithmetic made: the on-policy round")
    parser.add_argument("--arithmetic", type=int, default=130)
    parser.add_argument("--formats", type=int, default=120)
    parser.add_argument("--gsm8k-rows", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    heldout = list(heldout_rows(200, given.seed))
    held = {row["question"] for row in heldout}
    rows = [*arithmetic_chains(given.arithmetic, given.seed), *format_chains(given.formats, given.seed)]
    if given.seeds:
        rows += general_chains("self-instruct", seed_rows(given.seeds), given.seed)
    if given.answers:
        rows += general_chains("own-answers", answered_rows(given.answers), given.seed)
    if given.gsm8k:
        rows += gsm8k_chains(given.gsm8k, given.gsm8k_rows, given.seed)
    if given.attempts:
        rows += on_policy_chains(given.attempts)
    rows = [row for row in rows if row["instruction"].split("\n\n")[0] not in held]
    random.Random(given.seed).shuffle(rows)
    given.out.mkdir(parents=True, exist_ok=True)
    kept = 8  # looking at them takes time too
    for name, some in (("validation", rows[:kept]), ("train", rows[kept:]), ("heldout", heldout)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
        (given.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
    for source, count in Counter(row["dataset"] for row in rows).most_common():
        print(f"{count:6,} {source}")


if __name__ == "__main__":
    main()
