"""The verdict where the critic's own words hold none: the likelier of two sentences, with its probability."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

from selfee.chain.format import header, render_prompt, render_steps
from selfee.chain.types import Chain, Instruction, Section, Step, Verdict, VerdictSource
from selfee.chain.verdict import NEEDED, NOT_NEEDED, STEM, joint, without_verdict
from selfee.engines.base import ScoringEngine, scoring_of
from selfee.errors import ContextOverflowError, EngineError

_CHOICES = (NEEDED.removeprefix(STEM), NOT_NEEDED.removeprefix(STEM))
"""Both sentences begin alike; scored is what sets them apart, where a server's likeliest tokens show it."""


class Judge:
    """Chooses between "Revision is needed." and "Revision is not needed." by what the model finds likelier."""

    def __init__(self, engine: object) -> None:
        self._engine = engine
        self._scorer: ScoringEngine | None = None
        self._probed = False

    def choose(self, prompt: str, words: str) -> Verdict | None:
        """The verdict that continues ``prompt`` + ``words`` best; None if the engine cannot say.

        ``probability`` is P(needed) / (P(needed) + P(not needed)) after "Revision is", each the product over tokens.
        """
        scorer = self._find_scorer()
        if scorer is None:
            return None
        try:
            needed, not_needed = scorer.score(prompt + words.rstrip() + joint(words) + STEM, _CHOICES)
        except EngineError:
            return None  # the caller asks in words, which shows whether the engine still works
        difference = not_needed - needed
        if math.isnan(difference) or difference == 0.0:  # a server that shows neither choice among its likeliest
            return None
        probability = 1.0 / (1.0 + math.exp(min(difference, 700.0)))
        return Verdict(difference < 0.0, VerdictSource.CHOICE, probability=probability)

    def _find_scorer(self) -> ScoringEngine | None:
        if not self._probed:
            self._probed = True
            try:
                self._scorer = scoring_of(self._engine)
            except EngineError:
                self._scorer = None
        return self._scorer


def score_verdicts(chain: Chain, engine: object) -> Chain:
    """The chain with the probabilities of verdicts that the critic stated in words, where the engine can score.

    A verdict in words is a yes or no; two answers that both want a revision differ in how much. Scored is what would
    follow the critic's words up to that sentence, question and answer in the text format before them.
    """
    judge = Judge(engine)
    steps = list(chain.steps)
    for number, step in enumerate(steps):
        said, verdict = step.overruled or step.feedback, step.verdict
        if said is None or verdict is None or verdict.probability is not None or not step.answer_finished:
            continue
        with contextlib.suppress(ContextOverflowError):
            scored = judge.choose(critique_prompt(chain.instruction, step.answer), without_verdict(said))
            if scored is not None:
                steps[number] = replace(step, verdict=replace(verdict, probability=scored.probability))
    return replace(chain, steps=tuple(steps))


def critique_prompt(instruction: Instruction, answer: str) -> str:
    """What feedback on an answer is scored after: question and answer in the text format, without earlier rounds."""
    answered = render_steps([Step(answer)], check=False)
    return render_prompt(instruction) + answered + header(Section.FEEDBACK, 1)


def sentence_of(verdict: Verdict) -> str:
    """The sentence that states a verdict."""
    return NEEDED if verdict.needed else NOT_NEEDED
