"""A vocabulary as it came from a file, checked before anything relies on it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from selfee.errors import BadFileError

if TYPE_CHECKING:
    from selfee.weights.checkpoint import Vocab

BYTE_TEXT = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Kind(IntEnum):
    """``tokenizer.ggml.token_type``: what a token is for."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


HIDDEN_KINDS = frozenset({Kind.UNKNOWN, Kind.CONTROL})
"""Tokens that text never becomes unless it is markup."""


END_TEXTS = frozenset(
    [
        *("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>"),
        *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|return|>", "<end_of_turn>"),
        *("<|eot|>", "<|EOT|>", "<EOT>"),
    ]
)
"""Control tokens that end an answer in the known families, whichever of them the file calls its end token."""


@dataclass(frozen=True)
class CheckedVocab:
    """Texts, kinds and special ids of a vocabulary, all of one length and in range; ``texts[id]`` is None where the
    bytes are no UTF-8 (only in GGML files) or empty.
    """

    texts: Sequence[str | None]
    kinds: Sequence[int]
    bos: int | None
    eos: int | None
    eot: int | None
    unknown: int | None


def check_vocab(vocab: Vocab) -> CheckedVocab:
    """Check a vocabulary that any file may have supplied. Raises BadFileError naming the entry and the way out."""
    count = len(vocab.tokens)
    if count == 0:
        raise _bad("it has no tokens", "at least one")
    for name, values in (("scores", vocab.scores), ("token types", vocab.types)):
        if values is not None and len(values) != count:
            raise _bad(f"{len(values)} {name} for {count} tokens", "one for each")
    ids = {"beginning": vocab.bos, "end": vocab.eos, "end of turn": vocab.eot, "unknown": vocab.unknown}
    for name, token in ids.items():
        if token is not None and not 0 <= token < count:
            raise _bad(f"the {name} token is {token}", f"an id below {count}")
    texts = [_text(vocab, token, piece) for token, piece in enumerate(vocab.tokens)]
    if not vocab.raw_pieces:
        _refuse_duplicates(texts)
    kinds = _kinds(vocab, texts)
    return CheckedVocab(texts, kinds, vocab.bos, vocab.eos, vocab.eot, vocab.unknown)


def checked_scores(vocab: Vocab) -> Sequence[float]:
    """One finite score a token. Raises BadFileError where scores are missing or not finite."""
    if vocab.scores is None:
        raise _bad("it has no scores", "one for each token of a SentencePiece vocabulary")
    scores = [float(score) for score in vocab.scores]
    for token, score in enumerate(scores):
        if not math.isfinite(score):
            raise _bad(f"token {token} has score {score}", "a finite number")
    return scores


def _text(vocab: Vocab, token: int, piece: bytes) -> str | None:
    try:
        return bytes(piece).decode("utf-8") or None
    except UnicodeDecodeError:
        if vocab.raw_pieces:  # the byte tokens of a GGML file are single raw bytes
            return None
        raise _bad(f"token {token} is {bytes(piece[:40])!r}", "UTF-8") from None


def _refuse_duplicates(texts: Sequence[str | None]) -> None:
    seen: dict[str, int] = {}
    for token, text in enumerate(texts):
        if text is not None and (first := seen.setdefault(text, token)) != token:
            raise _bad(f"tokens {first} and {token} are both {text[:40]!r}", "different texts")


def _kinds(vocab: Vocab, texts: Sequence[str | None]) -> Sequence[int]:
    """The kinds the file states, or what the texts and special ids imply where it states none."""
    if vocab.types is None:
        kinds: list[int] = [Kind.NORMAL] * len(texts)
        if not vocab.raw_pieces:
            for token, text in enumerate(texts):
                if text is not None and vocab.model == "llama" and BYTE_TEXT.fullmatch(text):
                    kinds[token] = Kind.BYTE
            for special, kind in ((vocab.unknown, Kind.UNKNOWN), (vocab.bos, Kind.CONTROL), (vocab.eos, Kind.CONTROL)):
                if special is not None:
                    kinds[special] = kind
        return kinds
    kinds = [int(kind) for kind in vocab.types]
    for token, number in enumerate(kinds):
        if not 0 <= number <= Kind.BYTE:
            raise _bad(f"token {token} has type {number}", "0 to 6")
        if number == Kind.BYTE and not vocab.raw_pieces and not BYTE_TEXT.fullmatch(texts[token] or ""):
            raise _bad(f"byte token {token} is {(texts[token] or '')[:40]!r}", "<0x00> to <0xFF>")
        if texts[token] in END_TEXTS:  # some converters say user-defined: then anybody's words could end a turn
            kinds[token] = Kind.CONTROL
    return kinds


def _bad(found: str, expected: str) -> BadFileError:
    return BadFileError(f"vocabulary: {found}; expected {expected}; the file is damaged: fetch or convert it again")
