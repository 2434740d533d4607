"""How good a model file is: perplexity, and divergence from the model it was made of. Never changes a file.

``perplexity`` measures one model on a text, ``compare`` a model against its base, ``read_results`` reads what
``selfee perplexity`` wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.eval.results import Quality as Quality
    from selfee.eval.results import read_results as read_results

__all__ = ["Quality", "read_results"]

__getattr__, __dir__ = lazy_names(__name__, {"Quality": "selfee.eval.results", "read_results": "selfee.eval.results"})
