"""Have a model answer questions: the ordinary ones of ``general.py``, or our arithmetic, several times each.

python -m examples.model.sample_answers -o answers.jsonl
python -m examples.model.sample_answers --arithmetic 200 --model run.gguf --times 2 -o attempts.jsonl
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from examples.model.arithmetic import ask, draw_problem
from examples.model.general import questions

from selfee.chain.budgets import Budgets
from selfee.chain.many import run_chains
from selfee.chain.policy import RevisionPolicy
from selfee.chain.types import Instruction
from selfee.engines.base import SamplingParams
from selfee.engines.open import open_engine

ON_POLICY_SEED = "on-policy"


def arithmetic_rows(count: int, seed: str = ON_POLICY_SEED) -> list[dict[str, Any]]:
    """Questions that ``make_chains`` can make again by their number."""
    rows = []
    for number in range(count):
        draw = random.Random(f"{seed}:{number}")
        problem = draw_problem(draw)
        rows.append({"number": number, "question": ask(problem, draw)})
    return rows


def main() -> None:
    """Read the command line, ask, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--arithmetic", type=int, default=0, metavar="N", help="N problems instead of the questions")
    parser.add_argument("--times", type=int, default=1, help="attempts at each")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--max-tokens", type=int, default=180)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = arithmetic_rows(given.arithmetic) or [{"question": question} for question in questions()]
    rows = [row for row in rows for _ in range(given.times)]
    with open_engine(given.model, parallel=given.parallel, threads=given.threads) as engine:
        chains = run_chains(
            engine,
            [Instruction(row["question"]) for row in rows],
            RevisionPolicy(0, 0),
            SamplingParams(temperature=given.temperature, seed=given.seed),
            mode=given.mode,
            budgets=Budgets(answer=given.max_tokens),
        )
        for index, chain in chains:
            rows[index] |= {"answer": chain.steps[0].answer, "finished": chain.steps[0].answer_finished}
    given.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
