"""What a run would take, before anything is asked: its chains are made with a teacher that says nothing but "word"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from selfee.chain.verdict import NEEDED, NOT_NEEDED
from selfee.data.augment.making import row_seed
from selfee.data.augment.settings import AugmentSettings
from selfee.data.augment.wording import Wording
from selfee.data.sample import Sample
from selfee.engines.base import ChatRequest, Chunk, FinishReason, Usage
from selfee.engines.paid.prices import Price, estimate_prompt

_MOST_ROWS = 400  # that are gone through; more are extrapolated from them
_ANSWER = 180  # tokens, about what SelFee's teacher wrote
_FEEDBACK = 70


@dataclass(frozen=True)
class Scenario:
    """How a teacher might behave."""

    name: str
    revisions: float  # made for each row, on average


@dataclass(frozen=True)
class Estimate:
    """What a run would take in one scenario."""

    scenario: str
    rows: int
    calls: float
    prompt_tokens: float
    completion_tokens: float
    cost: float | None

    def minutes(self, rpm: float | None, tpm: float | None) -> float | None:
        """The least time that the rate limits allow; None without limits."""
        tokens = self.prompt_tokens + self.completion_tokens
        waits = [self.calls / rpm] if rpm else []
        waits += [tokens / tpm] if tpm else []
        return max(waits, default=None)


def scenarios(settings: AugmentSettings) -> tuple[Scenario, ...]:
    """Content at once; as SelFee's data (about 1.4 revisions a chain); never content."""
    usual = min(max(1.4, settings.min_revisions), settings.max_revisions)
    return (
        Scenario("least", settings.min_revisions),
        Scenario("usual", usual),
        Scenario("most", settings.max_revisions),
    )


def estimate(
    samples: Iterable[Sample], total: int, settings: AugmentSettings, price: Price | None
) -> tuple[Estimate, ...]:
    """An estimate for each scenario, for ``total`` rows of which some are gone through."""
    step = max(1, total // _MOST_ROWS)
    looked_at = [sample for number, sample in enumerate(samples) if number % step == 0][:_MOST_ROWS]
    wording = Wording(settings.prompts)
    return tuple(_estimate(scenario, looked_at, total, settings, wording, price) for scenario in scenarios(settings))


def _estimate(
    scenario: Scenario,
    samples: Sequence[Sample],
    total: int,
    settings: AugmentSettings,
    wording: Wording,
    price: Price | None,
) -> Estimate:
    calls = prompt = completion = 0
    for number, sample in enumerate(samples):
        # Fractions become whole revisions of some of the rows: 1.4 is two in two rows of five, one in the others.
        revisions = int(scenario.revisions * (number + 1)) - int(scenario.revisions * number)
        answer, feedback = min(_ANSWER, settings.answer_tokens), min(_FEEDBACK, settings.feedback_tokens)
        teacher = _Dummy(answer, feedback, revisions, starts=sample.answer is None)
        _make(teacher, sample, settings, wording)
        calls, prompt, completion = calls + teacher.calls, prompt + teacher.prompt, completion + teacher.completion
    factor = total / len(samples) if samples else 0.0
    usage = Usage(int(prompt * factor), 0, int(completion * factor), 0.0, 0.0)
    cost = None if price is None else price.of(usage)
    return Estimate(scenario.name, total, calls * factor, prompt * factor, completion * factor, cost)


def _make(teacher: _Dummy, sample: Sample, settings: AugmentSettings, wording: Wording) -> None:
    from selfee.chain.run import stream_chain
    from selfee.chain.types import Step

    policy = replace(settings.policy, min_revisions=0, stop_repeats=False)
    start = () if sample.answer is None else (Step(sample.answer),)
    stream = stream_chain(
        teacher,
        sample.question,
        policy,
        settings.params(row_seed(settings.seed, sample, 0)),
        mode="turns",
        budgets=settings.budgets,
        prompts=wording.of(sample),
        reference=(sample.reference or "") if settings.with_reference else "",
        start=start,
    )
    for _ in stream:
        pass


class _Dummy:
    """Answers with so many words, is content after so many revisions, and counts: answers and feedback in turn."""

    name = "estimate"
    context_length: int | None = None

    def __init__(self, answer: int, feedback: int, revisions: int, *, starts: bool) -> None:
        self._answer, self._feedback, self._revisions = answer, feedback, revisions
        self._answers_next = starts
        self._criticised = 0
        self.calls = self.prompt = self.completion = 0

    def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
        """See ``ChatEngine.stream_chat``."""
        self.calls += 1
        self.prompt += estimate_prompt(request)
        is_answer, self._answers_next = self._answers_next, not self._answers_next
        if is_answer:
            self.completion += self._answer
            yield Chunk("word" * self._answer, FinishReason.END)
            return
        self.completion += self._feedback
        self._criticised += 1
        verdict = NEEDED if self._criticised <= self._revisions else NOT_NEEDED
        yield Chunk(f"{'word' * self._feedback}. {verdict}", FinishReason.END)
