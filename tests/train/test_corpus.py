"""SelFee's own published chains as lessons: counted, and none of them taught to stop where a revision is asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.train.chains import tiny_tokenizer

from selfee.chain.verdict import find_verdict
from selfee.train.dataset import Dataset, Weights
from selfee.train.lessons import Objective


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "chains", "without_end"), [("conala", 2000, 30), ("mbpp", 600, 8)])
def test_published_chains_end_only_where_their_words_say_so(
    corpus: Path, name: str, chains: int, without_end: int
) -> None:
    file = corpus / "selfee" / "augmented" / f"feedback_gpt_3.5_turbo_{name}.jsonl"
    dataset = Dataset.of_file(file, tiny_tokenizer("bpe"), Objective.FULL, Weights(), 2048)
    assert (dataset.counts.chains, dataset.counts.without_end) == (chains, without_end)
    assert dataset.counts.refused == Counter()
    for lesson in dataset.lessons:
        verdict = find_verdict(lesson.steps[-1].feedback or "")
        assert lesson.has_end == (verdict is not None and not verdict.needed)
