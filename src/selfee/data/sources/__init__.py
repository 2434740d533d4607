"""The data sets that questions come from, each read in the format it is published in."""

from selfee.data.sources.alpaca import ALPACA
from selfee.data.sources.base import Question, RefusedError, Source, SourceSettings
from selfee.data.sources.code import CODECONTESTS, CONALA, DRREPAIR, MBPP
from selfee.data.sources.flan import FLAN
from selfee.data.sources.math import AQUA, GSM8K, MATH
from selfee.data.sources.sharegpt import SHAREGPT

SOURCES = {
    source.name: source for source in (ALPACA, AQUA, GSM8K, MATH, CONALA, CODECONTESTS, DRREPAIR, MBPP, FLAN, SHAREGPT)
}
"""Name -> source."""

NAMES_2023 = {
    "dmcc": "codecontests",
    "repair": "drrepair",
    "hendrycks": "math",
    "processed": "sharegpt",
}
"""What SelFee's merged file calls four of them: the last pieces of its files' names (D21)."""

__all__ = ["NAMES_2023", "SOURCES", "Question", "RefusedError", "Source", "SourceSettings"]
