"""SentencePiece-style tokens: start from characters, always join the neighbours whose joined piece scores best."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from selfee.errors import BadFileError
from selfee.llama.vocabulary import BYTE_TEXT, Kind, checked_scores
from selfee.weights.vocab_keys import scores_of_llama

if TYPE_CHECKING:
    from selfee.llama.vocabulary import CheckedVocab
    from selfee.weights.checkpoint import Vocab

ESCAPED_SPACE = "\u2581"
_CACHED_WORD = 64  # characters; longer words hardly ever come twice
_CACHED_WORDS = 1 << 16
_NEVER_MADE = frozenset({Kind.UNKNOWN, Kind.CONTROL, Kind.BYTE})


class ScoreMerger:
    """Encodes plain text with a vocabulary of scored pieces.

    Two neighbours are joined when their joined text is a piece: highest score first, then leftmost. What is no piece
    in the end becomes one token a UTF-8 byte. A text is first cut at every place that no piece reaches across (which
    changes no token and makes words that can be remembered), so the work is n log n in the longest stretch.
    Spec: ggml-formats.md §1.5; Kudo and Richardson 2018 for the pieces.
    """

    def __init__(
        self, ids: Mapping[str, int], scores: Sequence[float], bytes_to_ids: Sequence[Sequence[int]], space: str
    ) -> None:
        self._ids = dict(ids)
        self._bytes_to_ids = bytes_to_ids
        self._ranks = {
            text: -scores[token]
            for text, token in ids.items()
            if len(text) > 1 and (space not in text.lstrip(space) or _has_halves(text, ids))
        }
        self._inner_pairs = {text[i : i + 2] for text in self._ranks for i in range(len(text) - 1)}
        self._escapes_space = space != " "
        self._space = space
        words_end_at_space = not any(pair[1] == space and pair[0] != space for pair in self._inner_pairs)
        pattern = f"{space}*[^{space}]+|{space}+" if words_end_at_space else ".+"
        self._words = re.compile(pattern, re.DOTALL)
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text in which no special token is looked for and to which no space is added."""
        if self._escapes_space:
            text = text.replace(" ", self._space)
        cache, tokens = self._cache, []
        for word in self._words.findall(text):
            known = cache.get(word)
            if known is None:
                known = self._encode_word(word)
                if len(word) <= _CACHED_WORD:
                    if len(cache) >= _CACHED_WORDS:
                        cache.clear()
                    cache[word] = known
            tokens += known
        return tokens

    def _encode_word(self, word: str) -> list[int]:
        tokens: list[int] = []
        inner, start = self._inner_pairs, 0
        for end in range(1, len(word) + 1):
            if end == len(word) or word[end - 1 : end + 1] not in inner:
                for piece in self._merge(word[start:end]):
                    tokens += self._piece_ids(piece)
                start = end
        return tokens

    def _piece_ids(self, piece: str) -> Sequence[int]:
        token = self._ids.get(piece)
        if token is not None:
            return (token,)
        return [token for byte in piece.encode() for token in self._bytes_to_ids[byte]]

    def _merge(self, text: str) -> list[str]:
        """The pieces that ``text`` ends up as."""
        ranks, count = self._ranks, len(text)
        if count == 1:
            return [text]
        pieces = list(text)
        following = list(range(1, count + 1))
        before = list(range(-1, count - 1))
        queue = []
        for left in range(count - 1):
            pair = text[left : left + 2]
            if pair in ranks:
                queue.append((ranks[pair], left, pair))
        heapq.heapify(queue)
        while queue:
            _, left, joined = heapq.heappop(queue)
            right = following[left]
            if not pieces[left] or right >= count or pieces[left] + pieces[right] != joined:
                continue  # one of the two has been joined to something else meanwhile
            pieces[left], pieces[right] = joined, ""
            after = following[left] = following[right]
            if after < count:
                before[after] = left
                pair = joined + pieces[after]
                if pair in ranks:
                    heapq.heappush(queue, (ranks[pair], left, pair))
            previous = before[left]
            if previous >= 0:
                pair = pieces[previous] + joined
                if pair in ranks:
                    heapq.heappush(queue, (ranks[pair], previous, pair))
        return [piece for piece in pieces if piece]


def _has_halves(text: str, ids: Mapping[str, int]) -> bool:
    """Whether two neighbours may ever join to this piece (not so for the " ⁇ " that GGML files call unknown)."""
    last = len(text) - 1
    return any((i == 1 or text[:i] in ids) and (i == last or text[i:] in ids) for i in range(1, len(text)))


def merger_from_gguf(vocab: Vocab, checked: CheckedVocab) -> ScoreMerger:
    """The encoder of a GGUF vocabulary: spaces are U+2581, byte tokens are written <0xNN>, control pieces are never
    made of text. Raises BadFileError where some text could not be encoded at all.
    """
    ids, byte_ids = {}, {}
    for token, (text, kind) in enumerate(zip(checked.texts, checked.kinds, strict=True)):
        if text is None:
            continue
        if kind == Kind.BYTE and (match := BYTE_TEXT.fullmatch(text)):
            byte_ids[int(match[1], 16)] = token
        elif kind not in _NEVER_MADE:
            ids[text] = token
    missing = [byte for byte in range(256) if byte not in byte_ids]
    if missing and checked.unknown is None:
        raise BadFileError(
            f"vocabulary: no token for byte 0x{missing[0]:02X} and no unknown token; expected one of them, else some "
            "texts have no tokens; convert the model again"
        )
    fallback = [[byte_ids.get(byte, checked.unknown or 0)] for byte in range(256)]
    return ScoreMerger(ids, checked_scores(vocab), fallback, ESCAPED_SPACE)


def merger_from_ggml(vocab: Vocab, checked: CheckedVocab) -> ScoreMerger:
    """The encoder of June 2023 for GGML files: a later equal text wins, and byte b is token b + 3 (spec §1.5)."""
    ids = {text: token for token, text in enumerate(checked.texts) if text is not None}
    if len(checked.texts) < 259:
        raise BadFileError(
            f"vocabulary: {len(checked.texts)} tokens; expected at least 259 (3 special ones and 256 bytes) in a GGML "
            "file; the file is damaged: fetch it again"
        )
    scores = scores_of_llama(len(checked.texts)) if vocab.scores is None else checked_scores(vocab)
    return ScoreMerger(ids, scores, [[byte + 3] for byte in range(256)], " ")
