"""The workshop that makes training data: sources in, chains of answer, feedback and revision out.

``Sample`` is a question with what its source says about it; ``read_samples`` and ``write_samples`` keep them as JSON
lines. Knows nothing of training and of judging.
"""

from selfee.data.sample import Sample, read_samples, write_samples

__all__ = ["Sample", "read_samples", "write_samples"]
