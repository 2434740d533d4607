"""The verdict where the critic's own words hold none: the likelier of two sentences, with its probability."""

from __future__ import annotations

import math

from selfee.chain.types import Verdict, VerdictSource
from selfee.chain.verdict import NEEDED, NOT_NEEDED, joint
from selfee.engines.base import ScoringEngine, scoring_of
from selfee.errors import EngineError


class Judge:
    """Chooses between "Revision is needed." and "Revision is not needed." by what the model finds likelier."""

    def __init__(self, engine: object) -> None:
        self._engine = engine
        self._scorer: ScoringEngine | None = None
        self._probed = False

    def choose(self, prompt: str, words: str) -> Verdict | None:
        """The verdict that continues ``prompt`` + ``words`` best; None if the engine cannot say.

        ``probability`` is P(needed) / (P(needed) + P(not needed)), each the product over the sentence's tokens.
        """
        scorer = self._find_scorer()
        if scorer is None:
            return None
        between = joint(words)
        try:
            needed, not_needed = scorer.score(prompt + words.rstrip(), [between + NEEDED, between + NOT_NEEDED])
        except EngineError:
            return None  # the caller asks in words, which shows whether the engine still works
        difference = not_needed - needed
        if math.isnan(difference):
            return None
        probability = 1.0 / (1.0 + math.exp(min(difference, 700.0)))
        return Verdict(probability >= 0.5, VerdictSource.CHOICE, probability=probability)

    def _find_scorer(self) -> ScoringEngine | None:
        if not self._probed:
            self._probed = True
            try:
                self._scorer = scoring_of(self._engine)
            except EngineError:
                self._scorer = None
        return self._scorer


def sentence_of(verdict: Verdict) -> str:
    """The sentence that states a verdict."""
    return NEEDED if verdict.needed else NOT_NEEDED
