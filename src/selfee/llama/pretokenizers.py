"""How each family of byte-level BPE cuts a text into words before anything is merged.

A model names its family in ``tokenizer.ggml.pre``. Expressions are applied one after another, each cutting what the
former left: what matches and what lies between matches both become words (spec/ggml-formats.md §2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfee.errors import UnsupportedFileError

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
# Spelt out rather than (?i:...), which would also take U+017F for an s.
_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"


@dataclass(frozen=True)
class PreTokenizer:
    """The expressions of one family; ``whole_words`` says that a word which is a token needs no merges."""

    expressions: Sequence[str]
    whole_words: bool = False


_FAMILIES = (
    (("gpt-2", "phi-2", "jina-v1-en", "jina-v2-code", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "roberta-bpe",
      "mpt", "olmo", "jais"), PreTokenizer((_GPT2,))),
    (("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
     PreTokenizer((r"\p{N}", _GPT2))),
    (("llama-bpe", "llama3", "llama-v3", "falcon3"), PreTokenizer((_LLAMA3,), whole_words=True)),
    (("dbrx", "smaug-bpe"), PreTokenizer((_LLAMA3,))),
    (("qwen2", "stablelm2", "megrez", "deepseek-r1-qwen"), PreTokenizer((_QWEN2,))),
    (("default",), PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))),
    (("falcon",), PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]"))),
)  # fmt: skip

PRE_TOKENIZERS = {name: pre for names, pre in _FAMILIES for name in names}
"""Name in the file -> how it cuts."""


def pre_tokenizer(name: str) -> PreTokenizer:
    """The pre-tokenizer a file names. Raises UnsupportedFileError listing the known ones: guessing gives wrong ids."""
    if name not in PRE_TOKENIZERS:
        raise UnsupportedFileError(
            f"tokenizer.ggml.pre: {name[:60]!r} is unknown; expected one of {', '.join(sorted(PRE_TOKENIZERS))}; use "
            "a model with one of these"
        )
    return PRE_TOKENIZERS[name]
