"""The workshop that trains: chains in, a model that revises itself out.

``TrainConfig`` says how, ``Dataset`` turns chains into tokens with the text format of inference, ``plan`` looks whether
it can be done here, ``train`` does it.
Knows nothing of collecting and of judging; needs torch only where a model is loaded.
"""

from selfee.lazy import lazy_names

__all__ = ["Dataset", "TrainConfig", "plan", "preset", "train"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Dataset": "selfee.train.dataset",
        "TrainConfig": "selfee.train.config",
        "plan": "selfee.train.run",
        "preset": "selfee.train.config",
        "train": "selfee.train.run",
    },
)
