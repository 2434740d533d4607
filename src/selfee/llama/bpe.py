"""Byte-level BPE: bytes written as visible characters, joined by a list of merges, best first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenizers import Regex
from tokenizers import Tokenizer as WordTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreSequence

from selfee.errors import BadFileError
from selfee.llama.vocabulary import HIDDEN_KINDS
from selfee.weights.huggingface.pretokenizers import pre_tokenizer

if TYPE_CHECKING:
    from selfee.llama.vocabulary import CheckedVocab
    from selfee.weights.checkpoint import Vocab


def _byte_alphabet() -> str:
    """GPT-2's 256 characters: printable Latin-1 stands for itself, the other bytes for U+0100 onwards."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    letters = {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return "".join(letters[byte] for byte in range(256))


BYTE_ALPHABET = _byte_alphabet()
"""Character at index b stands for byte b."""

# Every family cuts between a visible character and a space, whatever stands around them, so stretches between such
# places can be encoded alone and remembered. (No expression takes a space after anything else, or looks back.)
_STRETCHES = re.compile(r".*?[!-~](?= )|.+", re.DOTALL)
_CACHED_STRETCH = 64  # characters; longer ones hardly ever come twice
_CACHED_STRETCHES = 1 << 16

_BYTES = {letter: bytes([byte]) for byte, letter in enumerate(BYTE_ALPHABET)}


def bytes_of_piece(text: str) -> bytes:
    """The bytes a piece stands for; a character outside the alphabet stands for itself."""
    return b"".join(_BYTES.get(letter) or letter.encode() for letter in text)


class MergeList:
    """Encodes plain text with a vocabulary of byte-level pieces and merges (Sennrich et al. 2016, GPT-2 2019)."""

    def __init__(self, vocab: Vocab, checked: CheckedVocab) -> None:
        pre = pre_tokenizer(vocab.pre)
        known = {text: token for token, text in enumerate(checked.texts) if text is not None}
        hidden = {text for text, token in known.items() if checked.kinds[token] in HIDDEN_KINDS}
        ids = {text: token for text, token in known.items() if text not in hidden}
        merges = _checked_merges(vocab.merges, ids, hidden)
        self._words = WordTokenizer(BPE(vocab=ids, merges=merges, ignore_merges=pre.whole_words))
        self._cache: dict[str, list[int]] = {}
        cuts = [Split(Regex(expression), "isolated") for expression in pre.expressions]
        self._words.pre_tokenizer = PreSequence([*cuts, ByteLevel(add_prefix_space=False, use_regex=False)])

    def encode(self, text: str) -> list[int]:
        """Token ids of a text in which no special token is looked for. A byte without a token is left out."""
        stretches = _STRETCHES.findall(text)
        cache = self._cache
        ids = {stretch: cache[stretch] for stretch in set(stretches) if stretch in cache}
        missing = [stretch for stretch in dict.fromkeys(stretches) if stretch not in ids]
        # The "fast" call leaves out character offsets and exists for batches only.
        for stretch, found in zip(
            missing, self._words.encode_batch_fast(missing, add_special_tokens=False), strict=True
        ):
            ids[stretch] = found.ids
            if len(stretch) <= _CACHED_STRETCH:
                if len(cache) >= _CACHED_STRETCHES:
                    cache.clear()
                cache[stretch] = found.ids
        return [token for stretch in stretches for token in ids[stretch]]


def _checked_merges(merges: Sequence[str], ids: dict[str, int], hidden: set[str]) -> list[tuple[str, str]]:
    """Merges as pairs, without those that would make a control token of text. Raises BadFileError."""
    pairs = []
    for number, merge in enumerate(merges):
        left, space, right = merge.partition(" ")
        if not (left and space and right):
            raise _bad_merge(number, merge, "two pieces with a space between them")
        if left in ids and right in ids and left + right in ids:
            pairs.append((left, right))
        elif hidden.isdisjoint((left, right, left + right)):
            raise _bad_merge(number, merge, "pieces, and their joined text, that are tokens")
    return pairs


def _bad_merge(number: int, merge: str, expected: str) -> BadFileError:
    return BadFileError(
        f"vocabulary: merge {number} is {merge[:60]!r}; expected {expected}; the file is damaged: fetch or convert it "
        "again"
    )
