"""How each family of byte-level BPE cuts a text into words before anything is merged.

A GGUF file names its family in ``tokenizer.ggml.pre``, a Hugging Face folder spells the expressions out. They are
applied one after another, each cutting what the former left: what matches and what lies between matches both become
words (spec/ggml-formats.md §2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfee.errors import UnsupportedFileError

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
# Spelt out rather than (?i:...), which would also take U+017F for an s.
_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_CONTRACTIONS_SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # as Hugging Face files have it
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


def written_expression(expression: str) -> str:
    """An expression as Hugging Face files have it."""
    return expression.replace(_CONTRACTIONS, _CONTRACTIONS_SHORT)


def recognize(steps: Sequence[Mapping[str, Any]], *, whole_words: bool) -> str | None:
    """The name of the family whose cuts the steps of a tokenizer.json make; None where none does.

    ``steps`` are its pre-tokenizers in order; ``whole_words`` is its "ignore_merges".
    """
    expressions = [_expression_of(step) for step in steps]
    found = tuple(expression for expression in expressions if expression != "")
    for names, family in _FAMILIES:
        if tuple(family.expressions) == found and family.whole_words == whole_words:
            return names[0]
    return None


def _expression_of(step: Mapping[str, Any]) -> str | None:
    """The expression a step cuts by; "" where it cuts nothing, None where it does something else."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": True}:
            return None
        case {"type": "ByteLevel", "use_regex": False}:
            return ""
        case {"type": "ByteLevel"}:
            return _GPT2
        case {"type": "Digits", "individual_digits": True}:
            return r"\p{N}"
        case {"type": "Digits"}:
            return r"\p{N}+"
        case {"type": "Split", "pattern": {"Regex": str() as expression}, "behavior": "Isolated" | "Removed" as how}:
            # Llama 3 removes what lies between matches, and nothing does.
            if (how == "Removed") is not bool(step.get("invert")):
                return None
            spelt = expression.replace(_CONTRACTIONS_SHORT, _CONTRACTIONS)
            return spelt.removesuffix(r"|\s+") if spelt.removesuffix(r"|\s+") == _GPT2 else spelt
    return None
