"""Is a text English? Reads the prose of it; code, addresses and numbers are nobody's language."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from selfee.errors import MissingExtraError

_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\$\$.*?\$\$", re.DOTALL)
_LETTER = re.compile(r"[^\W\d_]")
_READ = 600  # characters: enough to tell, and reading takes as long as there are characters

# How far another language must be ahead, in natural logarithms of likelihood. Measured (decision 19): 45 short foreign
# sentences are ahead by 20 to 358, 27 short English ones, some of them with foreign words or code, behind or by 14.
_MARGIN = 15.0


def find_foreign(text: str) -> str | None:
    """The code of the language a text is in where that is not English ("de", "zh"); None for English or no prose."""
    prose = _NOT_PROSE.sub(" ", text)[:_READ]
    if not _LETTER.search(prose):
        return None
    classify, rank = _identifier()
    language = classify(prose)[0]
    if language == "en":
        return None
    scores = dict(rank(prose))
    return language if float(scores[language]) - float(scores["en"]) > _MARGIN else None


@functools.cache
def _identifier() -> tuple[Callable[[str], tuple[str, float]], Callable[[str], list[tuple[str, float]]]]:
    try:
        import py3langid
    except ImportError as error:
        raise MissingExtraError(
            "language: telling it needs the package 'py3langid'; install it with: pip install 'selfee[data]'"
        ) from error
    return py3langid.classify, py3langid.rank
