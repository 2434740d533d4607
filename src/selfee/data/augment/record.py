"""A chain as a training record: SelFee's own fields first and unchanged, then where it comes from and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfee.chain.prompts import PromptSet
from selfee.chain.record import to_dataset
from selfee.chain.types import Chain, Step, Verdict, VerdictSource
from selfee.chain.verdict import find_score
from selfee.data.augment.cleaning import clean
from selfee.data.augment.leaks import find_leaks, mask
from selfee.data.augment.settings import AugmentSettings, OnLeak
from selfee.data.augment.wording import prompt_digest
from selfee.data.sample import Sample
from selfee.engines.base import ChatRequest, Usage
from selfee.engines.paid.journalled import Call, JournalledEngine
from selfee.engines.paid.reply import params_to_json

VERSION = 1
_LOW_SCORE = 9.0  # SelFee's critic was told that less should be revised


@dataclass(frozen=True)
class Made:
    """A chain and what it was made with."""

    sample: Sample
    chain: Chain
    prompts: PromptSet
    seed: int
    tries: int
    reference: str  # as shown to the critic; "" = none was
    left_out: str | None  # why the chain ends before its last revision


@dataclass(frozen=True)
class Judged:
    """A verdict and the score that stands beside it, as one thing."""

    needed: bool
    source: VerdictSource
    score: float | None

    @property
    def conflicts(self) -> bool:
        """Whether verdict and score contradict each other."""
        if self.score is None or self.source is VerdictSource.SILENCE:
            return False
        return (not self.needed and self.score < _LOW_SCORE) or (self.needed and self.score >= 10)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"needed": self.needed, "source": self.source.value, "score": self.score, "conflict": self.conflicts}


def judge_of(step: Step) -> Judged | None:
    """What the feedback on a step decides; None if there is none."""
    verdict: Verdict | None = step.verdict
    if verdict is None or step.feedback is None:
        return None
    return Judged(verdict.needed, verdict.source, find_score(step.overruled or step.feedback))


def make_record(
    made: Made, settings: AugmentSettings, engine: JournalledEngine, calls: Sequence[Call]
) -> dict[str, Any]:
    """The record. It holds nothing that differs between two runs with the same replies: times are told elsewhere."""
    sample, chain = made.sample, made.chain
    row = to_dataset(chain)
    edits: list[dict[str, Any]] = []
    flags: list[str] = []
    for number, (step, output) in enumerate(zip(chain.steps, row["outputs"])):
        if settings.clean and number:  # a first answer has nothing to apologise for: there it is meant
            output["output"], found = clean(step.answer)
            edits += [{"output": number, "field": "output"} | asdict(edit) for edit in found]
        leaks = find_leaks(output["feedback"], made.reference, step.answer, sample.question.question)
        flags += [f"leak:{leak.kind}:{number}" for leak in leaks]
        if settings.on_leak is OnLeak.MASK and any(leak.reveals for leak in leaks):
            edits.append({"output": number, "field": "feedback", "kind": "mask", "original": output["feedback"]})
            output["feedback"] = mask(output["feedback"], leaks)
        if not step.feedback_finished:
            flags.append(f"feedback-cut:{number}")
        if not step.answer_finished:
            flags.append(f"answer-cut:{number}")
    verdicts = [judge_of(step) for step in chain.steps]
    flags += [f"conflict:{number}" for number, judged in enumerate(verdicts) if judged and judged.conflicts]
    if verdicts and (last := verdicts[-1]) is not None and last.source is VerdictSource.SILENCE:
        row["iteration_truncated"] = True
        flags.append("silence")
    first = {"iteration_truncated": row["iteration_truncated"]}
    if sample.reference is not None:
        first["output"] = sample.reference
    return (
        first
        | row
        | {
            "id": sample.id,
            "source": sample.source,
            "split": sample.split,
            "end": chain.end.value,
            "status": chain.status,
            "verdicts": [None if judged is None else judged.to_json() for judged in verdicts],
            "edits": edits,
            "flags": flags,
            "provenance": _provenance(made, settings, engine, calls),
        }
    )


def _provenance(
    made: Made, settings: AugmentSettings, engine: JournalledEngine, calls: Sequence[Call]
) -> dict[str, Any]:
    params = params_to_json(settings.params(made.seed))
    told = {name: params[name] for name in ("temperature", "top_p")}
    return {
        "version": VERSION,
        "model": engine.model,
        "prompts": made.prompts.name,
        "prompts_sha256": prompt_digest(made.prompts),
        "params": told | {"answer_tokens": settings.answer_tokens, "feedback_tokens": settings.feedback_tokens},
        "seed": made.seed,
        "tries": made.tries,
        "first_answer": "source" if made.sample.answer is not None else "teacher",
        "reference_shown": bool(made.reference) and any(turn.with_reference for turn in made.prompts.critique),
        "cost": _total([call.reply.cost for call in calls]),
        "calls": [_call(call) for call in calls],
    }


def _call(call: Call) -> dict[str, Any]:
    usage: Usage | None = call.reply.usage
    row: dict[str, Any] = {
        "key": call.key[:16],
        "kind": "chat" if isinstance(call.request, ChatRequest) else "completion",
        "model": call.reply.model,
        "seed": call.request.params.seed,
        "max_tokens": call.request.max_tokens,
        "finish_reason": call.reply.finish_reason.value,
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "cost": call.reply.cost,
    }
    return row | ({"estimated": True} if call.reply.is_estimated else {})


def _total(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 10) if known else None


def call_times(record: dict[str, Any], calls: Sequence[Call]) -> list[dict[str, Any]]:
    """When and how long: what differs between runs, for the file beside the records."""
    return [
        {
            "id": record["id"],
            "key": call.key,
            "seconds": call.reply.seconds,
            "attempts": call.reply.attempts,
            "cached_tokens": call.reply.usage.cached_tokens if call.reply.usage else None,
        }
        for call in calls
    ]
