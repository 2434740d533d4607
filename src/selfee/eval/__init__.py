"""How good a model file is: perplexity, divergence from the model it was made of, what flows into its matrices.

``measure`` says everything about one file on one text (``read_text``, ``prepare``), ``read_results`` reads what
``selfee perplexity`` wrote. Never changes a model file, never knows a chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.eval.chunks import read_text as read_text
    from selfee.eval.measuring import Settings as Settings
    from selfee.eval.measuring import measure as measure
    from selfee.eval.measuring import prepare as prepare
    from selfee.eval.results import Quality as Quality
    from selfee.eval.results import read_results as read_results

__all__ = ["Quality", "Settings", "measure", "prepare", "read_results", "read_text"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Quality": "selfee.eval.results",
        "Settings": "selfee.eval.measuring",
        "measure": "selfee.eval.measuring",
        "prepare": "selfee.eval.measuring",
        "read_results": "selfee.eval.results",
        "read_text": "selfee.eval.chunks",
    },
)
