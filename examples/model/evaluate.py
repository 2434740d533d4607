"""Does revising help a model as it is shipped: greedy chains of checkable problems, beside a vote at equal tokens.

python -m examples.model.evaluate heldout.jsonl --model run.gguf -o evaluation/run-heldout

Chains are kept in the folder; the same command goes on where it stood. ``selfee revisions`` does more, and draws every
token; here the chains are the ones that `selfee ask` gives, and only the attempts that vote are drawn.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from examples.model.well_formed import faults, left_to_itself, shown

from selfee.chain.budgets import Budgets
from selfee.chain.many import run_chains
from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import from_json, to_json
from selfee.chain.types import Chain, Instruction
from selfee.engines.base import SamplingParams
from selfee.engines.open import AnyEngine, open_engine
from selfee.eval.revising.analysing import analyse
from selfee.eval.revising.cases import Case, graded
from selfee.eval.revising.grading import checker_of, extractor_of, grader_of
from selfee.eval.revising.problems import Problem, read_problems
from selfee.eval.scoring.estimates import share
from selfee.jsonl import read_jsonl
from selfee.weights.fetch.builtin import BUILTIN_MODELS

BUDGETS = Budgets(answer=384, feedback=192, revision=384)


def kept(path: Path) -> dict[str, Chain]:
    """The chains of an earlier run."""
    if not path.exists():
        return {}
    return {row["key"]: from_json(row["chain"], f"{path}:{number}") for number, row in read_jsonl(path)}


def made(
    engine: AnyEngine,
    path: Path,
    problems: Sequence[tuple[str, Problem]],
    policy: RevisionPolicy,
    params: SamplingParams,
    **options: Any,
) -> dict[str, Chain]:
    """A chain for each key, those that were kept first; each is on disk as soon as it is made."""
    found = kept(path)
    missing = [(key, problem) for key, problem in problems if key not in found]
    with path.open("a", encoding="utf-8") as file:
        asked = [Instruction(problem.prompt) for _, problem in missing]
        seeds = list(range(len(missing))) if params.temperature else [0] * len(missing)
        for index, chain in run_chains(engine, asked, policy, params, seeds=seeds, **options):
            key = missing[index][0]
            found[key] = chain
            file.write(json.dumps({"key": key, "chain": to_json(chain)}, ensure_ascii=False) + "\n")
            file.flush()
    return found


def cases_of(problems: Sequence[Problem], chains: dict[str, Chain], attempts: dict[str, Chain]) -> Iterator[Case]:
    """Graded chains and attempts, problem by problem."""
    for problem in problems:
        checker = checker_of(problem)
        plain = tuple(graded(one, checker) for key, one in attempts.items() if key.split("#")[0] == problem.id)
        yield Case(problem.id, graded(chains[problem.id], checker), plain=plain, extractor=extractor_of(problem))


def main() -> None:
    """Read the command line, make, grade, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--revisions", type=int, default=1)
    parser.add_argument("--attempts", type=int, default=0, help="drawn at 0.7, for the vote")
    parser.add_argument("--repeat-penalty", type=float, help="default: as it suits a built-in model, else 1")
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    problems = read_problems(given.problems, given.limit)
    suited = BUILTIN_MODELS.get(given.model)
    options: dict[str, Any] = {"budgets": BUDGETS}
    if suited is not None:
        options |= {"mode": suited.mode, "prompts": suited.prompts or None}
    policy = RevisionPolicy(given.revisions, given.revisions)
    with open_engine(given.model, parallel=given.parallel, threads=given.threads) as engine:
        penalty = given.repeat_penalty or (1.0 if suited is None else suited.repeat_penalty)
        greedy, drawn = (SamplingParams(temperature=heat, repeat_penalty=penalty) for heat in (0.0, 0.7))
        keyed = [(problem.id, problem) for problem in problems]
        chains = made(engine, given.out / "chains.jsonl", keyed, policy, greedy, **options)
        many = [(f"{key}#{number}", one) for number in range(given.attempts) for key, one in keyed]
        attempts = made(engine, given.out / "attempts.jsonl", many, RevisionPolicy(0, 0), drawn, **options)
    tell(list(cases_of(problems, chains, attempts)), problems[0].task, given.revisions)


def tell(cases: Sequence[Case], task: str, revisions: int) -> None:
    """Print the figures."""
    own = [left_to_itself(case.chain) for case in cases]
    whole = [not faults(case.chain) for case in cases]
    print(f"well formed, enforced: {shown(share(sum(whole), len(whole)))}")
    print(f"well formed, left to itself: {shown(share(sum(not faults(chain) for chain in own), len(own)))}")
    group = analyse(task, cases, grader=grader_of(task), revisions=revisions)
    for attempt in group.attempts:
        print(f"answer {attempt.number}: right {shown(attempt.score)}; delivered {shown(attempt.delivered_score)}")
    right = [case.grade_at(chain, chain.delivered) == 1 for case, chain in zip(cases, own, strict=True)]
    print(f"delivered, left to itself: right {shown(share(sum(right), len(right)))}")
    for one in group.rounds:
        print(
            f"revision {one.number}: wrong to right {shown(one.wrong_to_right)}; right to wrong "
            f"{shown(one.right_to_wrong)}; change {shown(one.change)}; identical {one.identical} of {one.chains}"
        )
    if (critic := group.critic) is not None:
        print(
            f"critic: accepted right {critic.accepted_right}, accepted wrong {critic.accepted_wrong}, rejected right "
            f"{critic.rejected_right}, rejected wrong {critic.rejected_wrong}"
        )
        print(
            f"critic: wrong found {shown(critic.wrong_found)}; right if rejected {shown(critic.right_if_rejected)}; "
            f"balanced accuracy {critic.balanced_accuracy}"
        )
    for way in group.strategies:
        print(
            f"{way.name}: {shown(way.score)}; {way.tokens or 0:.0f} tokens, {way.attempts:.1f} attempts; difference "
            f"{shown(way.difference)}, p {way.p_value}{', short of attempts ' + str(way.short) if way.short else ''}"
        )
    for rule in group.stop_rules:
        print(f"stop rule {rule.name}: {shown(rule.score)}; {rule.tokens or 0:.0f} tokens; p {rule.p_value}")


if __name__ == "__main__":
    main()
