"""How many chains are well formed: whole, with a verdict of the model's own after every answer.

python -m examples.model.well_formed run/chains/NAME.jsonl

Told for what the model would have done itself and for the revisions enforced, which are read from the same chains.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import from_json
from selfee.chain.shorter import shorten
from selfee.chain.types import Chain, ChainEnd, VerdictSource
from selfee.eval.scoring.estimates import Estimate, share
from selfee.jsonl import read_jsonl

TOLD = (VerdictSource.PHRASE, VerdictSource.CHOICE, VerdictSource.ASKED)


def faults(chain: Chain) -> list[str]:
    """What is wrong with the form of a chain; nothing = it is well formed."""
    found = []
    if chain.end is ChainEnd.CUT_OFF:
        found.append(f"cut off: {chain.status}")
    for number, step in enumerate(chain.steps):
        is_last = number + 1 == len(chain.steps)
        if not step.is_deliverable:
            found.append(f"answer {number} is not finished")
        if step.feedback is None:
            if not is_last or chain.end is ChainEnd.ACCEPTED:
                found.append(f"answer {number} has no feedback")
        elif step.verdict is None or step.verdict.source not in TOLD:
            found.append(f"feedback {number + 1} has no verdict")
    return found


def tell(name: str, chains: list[Chain]) -> None:
    """Print a group of chains in two lines."""
    wrong = [found[0] for chain in chains if (found := faults(chain))]
    print(f"{name}: well formed {shown(share(len(chains) - len(wrong), len(chains)))}")
    verdicts = Counter(
        f"{'needed' if step.verdict.needed else 'not needed'} ({step.verdict.source.value})"
        for chain in chains
        for step in chain.steps
        if step.verdict is not None
    )
    print(f"  revisions {dict(sorted(Counter(chain.num_revisions for chain in chains).items()))}; {dict(verdicts)}")
    for fault, count in Counter(wrong).most_common(6):
        print(f"  {count} {fault}")


def shown(found: Estimate | None) -> str:
    """A share in per cent with its interval."""
    if found is None or found.value is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{100 * found.value:.1f}"
    counted = "" if found.hits is None else f"{found.hits}/{found.count} = "
    return f"{counted}{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def left_to_itself(chain: Chain) -> Chain:
    """What the model would have done: it decides, within the number of revisions that were enforced."""
    policy = chain.settings.get("policy", {})
    most, stops = policy.get("max_revisions", 3), policy.get("stop_repeats", True)
    return shorten(chain, RevisionPolicy(0, most, stop_repeats=stops))


def main() -> None:
    """Read the files, tell."""
    for path in map(Path, sys.argv[1:]):
        chains = [from_json(row.get("chain", row), f"{path}:{number}") for number, row in read_jsonl(path)]
        tell(f"{path.stem}, enforced", chains)
        tell(f"{path.stem}, left to itself", [left_to_itself(chain) for chain in chains])


if __name__ == "__main__":
    main()
