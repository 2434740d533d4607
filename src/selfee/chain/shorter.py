"""What a chain would have been under a policy that ends it earlier: read off the longer one, nothing is asked.

A chain grows at its end only, and nobody in it knows how many revisions are to come. So one that was made to revise
three times holds those of 0, 1 and 2 revisions, and the one that the model would have ended itself: until the policy
first decides otherwise, all are the same text.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from selfee.chain.draft import Draft, Ending
from selfee.chain.policy import RevisionPolicy
from selfee.chain.rounds import decide_ending, no_revisions, unless_silenced
from selfee.chain.types import Chain, ChainEnd, Step, Verdict
from selfee.chain.verdict import find_score
from selfee.errors import UsageError


def shorten(chain: Chain, policy: RevisionPolicy) -> Chain:
    """The chain that ``policy`` would have made of the same instruction, engine, seed and sampling.

    Its answer is the last finished one, whatever a selector chose in the longer chain; costs are those of the sections
    that it holds. A chain that was cut off before the policy ends it stays cut off. Raises UsageError if the chain
    ended where the policy would have gone on.
    """
    draft = Draft(
        chain.instruction,
        policy,
        seed=chain.seed or 0,
        mode=chain.mode,
        engine=chain.engine,
        settings=dict(chain.settings) | {"policy": asdict(policy)},
    )
    for number, step in enumerate(chain.steps):
        draft.steps.append(replace(step, feedback=None, verdict=None, feedback_finished=True, feedback_cost=None))
        if not step.answer_finished:
            break
        ending = _after_answer(draft, step, chain)
        if ending is None and (step.feedback is None or step.verdict is None):
            break
        if ending is None:
            assert step.verdict is not None, "or the chain is broken off here"
            draft.steps[-1] = _as_the_model_wrote_it(step, step.verdict)
            wants = _wants_revision(chain, number, step.verdict)
            if chain.mode != "single-pass":  # a trained model's own stream is read as it comes
                wants = wants or policy.doubts(find_score(draft.steps[-1].feedback or ""))
            ending = decide_ending(draft, wants)
            ending = ending and unless_silenced(draft, ending)
            if ending is not None and ending.cut is not None and chain.mode == "single-pass":
                draft.steps[-1] = replace(draft.steps[-1], verdict=None)  # as that mode leaves it
        if ending is not None:
            return replace(draft.finish(ending), seed=chain.seed)
        draft.steps[-1] = step
    if _went_on_too_long(chain, policy):
        raise UsageError(
            f"chain: ended after {chain.num_revisions} revisions ({chain.end.value}), and {policy} goes on; expected a "
            "policy that ends no later than the chain's own"
        )
    return replace(chain, selected=None, settings=dict(chain.settings) | {"policy": asdict(policy)})


def _after_answer(draft: Draft, step: Step, chain: Chain) -> Ending | None:
    """Whether the chain ends with the answer that it has just got, before any feedback."""
    if not draft.policy.criticises:
        return no_revisions()
    if (ending := draft.repeats()) is not None:
        return ending
    number = draft.num_revisions
    enough = number >= draft.policy.min_revisions
    if enough and chain.mode == "single-pass" and _was_asked_for(step) and not chain.settings.get("stop"):
        which = f"revision {number}" if number else "the first answer"
        return Ending(ChainEnd.ACCEPTED, f"the model ended after {which} without feedback")
    return None


def _was_asked_for(step: Step) -> bool:
    """Whether the model had ended its text, and its feedback was asked for by a request of its own."""
    return step.feedback_cost is not None and bool(step.feedback_cost.seeds)


def _wants_revision(chain: Chain, number: int, verdict: Verdict) -> bool:
    """What the model wanted after feedback: a model that says "not needed" and yet goes on to revise wants to."""
    is_last = number + 1 == len(chain.steps)
    went_on = chain.end is ChainEnd.CAPPED if is_last else not verdict.forced
    return verdict.needed or went_on


def _as_the_model_wrote_it(step: Step, verdict: Verdict) -> Step:
    """Feedback before a policy overruled it."""
    if step.overruled is None:
        return step
    return replace(step, feedback=step.overruled, overruled=None, verdict=replace(verdict, forced=False))


def _went_on_too_long(chain: Chain, policy: RevisionPolicy) -> bool:
    """Whether the chain ended by itself where the policy does not: what would have come is not known."""
    if chain.end in (ChainEnd.UNCHANGED, ChainEnd.REPEATED):
        return not policy.stop_repeats
    if not chain.steps or chain.end is ChainEnd.CAPPED:
        return True
    ended_itself = chain.end is ChainEnd.ACCEPTED and chain.steps[-1].feedback is None
    return chain.end is ChainEnd.ACCEPTED and not (ended_itself and chain.num_revisions >= policy.min_revisions)
