"""Text to tokens and back, for any vocabulary a model file may bring."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from selfee.errors import UnsupportedFileError, UsageError
from selfee.llama.bpe import MergeList, bytes_of_piece
from selfee.llama.decoder import PieceTable, StreamDecoder
from selfee.llama.special import Part, SpecialTokens
from selfee.llama.spm import ESCAPED_SPACE, merger_from_ggml, merger_from_gguf
from selfee.llama.vocabulary import BYTE_TEXT, END_TEXTS, HIDDEN_KINDS, CheckedVocab, Kind, check_vocab

if TYPE_CHECKING:
    from selfee.weights.checkpoint import Vocab

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class PlainEncoder(Protocol):
    """Encodes a stretch of text that holds no special token."""

    def encode(self, text: str) -> list[int]: ...


class Tokenizer:
    """A vocabulary at work. Made by ``load_tokenizer``; safe to share between threads.

    ``bos`` and ``eos`` are ids or None; ``add_bos`` says whether the model wants its texts to begin with ``bos``;
    ``end_tokens`` are the ids after which an answer is complete; ``control_tokens`` those that are no text;
    ``vocab_size`` counts ids.
    """

    def __init__(
        self, plain: PlainEncoder, special: SpecialTokens, table: PieceTable, vocab: Vocab, ends: frozenset[int]
    ) -> None:
        self._plain = plain
        self._special = special
        self._table = table
        self._keeps_empty = vocab.raw_pieces  # June 2023: an empty text has no tokens, not even bos
        self.vocab_size = table.count
        self.bos = vocab.bos
        self.eos = vocab.eos
        self.add_bos = vocab.add_bos and vocab.bos is not None
        self.end_tokens = ends
        self.control_tokens = table.hidden

    def encode(
        self, text: str, *, add_bos: bool | None = None, parse_special: bool = False, continues: bool = False
    ) -> list[int]:
        """Token ids of a text.

        ``add_bos``: None puts the beginning-of-text token in front if the model wants one, True puts it there
        whatever the model wants (UsageError where the vocabulary has none), False never.
        ``parse_special``: False reads ``</s>`` as four characters; True is for markup that we wrote ourselves.
        User-defined tokens are found either way. An end token is never added: a text to be continued has no end.
        ``continues``: the text follows another, so no space is put in front where the vocabulary would have one.
        """
        return self.encode_parts(((text, parse_special),), add_bos=add_bos, continues=continues)

    def encode_parts(self, parts: Sequence[Part], *, add_bos: bool | None = None, continues: bool = False) -> list[int]:
        """Token ids of the parts' joined text, in which control tokens are found inside markup parts only.

        Where no content spells a control token, these are the ids of the whole text with ``parse_special``.
        """
        parts = [(_LONE_SURROGATE.sub("\ufffd", text), is_markup) for text, is_markup in parts]
        tokens = self._beginning(add_bos, any(text for text, _ in parts))
        after_special = not continues
        for stretch in self._special.split(parts):
            if isinstance(stretch, int):
                tokens.append(stretch)
                after_special = True
            else:
                space = " " if after_special and self._table.adds_space else ""
                tokens += self._plain.encode(space + stretch)
                after_special = False
        return tokens

    def decode(self, tokens: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of tokens that begin a text: ``decode(encode(text, add_bos=False)) == text``.

        Bytes that are no UTF-8 become U+FFFD. ``skip_special`` leaves control tokens out. A SentencePiece vocabulary
        cannot tell U+2581 from a space. Raises UsageError for an id that does not exist.
        """
        decoder = self.stream_decoder(skip_special=skip_special, start_of_text=True)
        return "".join([decoder.feed(token) for token in tokens]) + decoder.finish()

    def stream_decoder(self, *, skip_special: bool = True, start_of_text: bool = False) -> StreamDecoder:
        """A decoder for tokens as they are generated: they continue a text, and control tokens are no text."""
        return StreamDecoder(self._table, skip_special=skip_special, start_of_text=start_of_text)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token: possibly part of a character; a control token's name. UsageError if out of range."""
        return self._table.bytes_of(token)

    def piece(self, token: int) -> str:
        """One token as text for display; bytes that are no UTF-8 become U+FFFD."""
        return self.token_bytes(token).decode("utf-8", errors="replace")

    def _beginning(self, add_bos: bool | None, has_text: bool) -> list[int]:
        wanted = self.add_bos if add_bos is None else add_bos
        if not wanted or (self._keeps_empty and not has_text):
            return []
        if self.bos is None:
            raise UsageError("add_bos: the vocabulary has no beginning-of-text token; expected None or False")
        return [self.bos]


def load_tokenizer(vocab: Vocab) -> Tokenizer:
    """Make a tokenizer of a file's vocabulary.

    Raises UnsupportedFileError for a kind of vocabulary or pre-tokenizer that is not known, BadFileError for a damaged
    or hostile vocabulary.
    """
    if vocab.model not in ("llama", "gpt2"):
        raise UnsupportedFileError(
            f"tokenizer.ggml.model: {vocab.model[:60]!r} is unknown; expected 'llama' (SentencePiece) or 'gpt2' "
            "(byte-level BPE); use a model with one of these"
        )
    checked = check_vocab(vocab)
    plain: PlainEncoder
    if vocab.model == "gpt2":
        plain = MergeList(vocab, checked)
    elif vocab.raw_pieces:
        plain = merger_from_ggml(vocab, checked)
    else:
        plain = merger_from_gguf(vocab, checked)
    return Tokenizer(plain, _special_tokens(vocab, checked), _piece_table(vocab, checked), vocab, _ends(checked))


def _special_tokens(vocab: Vocab, checked: CheckedVocab) -> SpecialTokens:
    if vocab.raw_pieces:  # GGML files have no names for their control tokens
        return SpecialTokens({}, {})
    control, user_defined = {}, {}
    for token, (text, kind) in enumerate(zip(checked.texts, checked.kinds, strict=True)):
        if text is not None and kind in HIDDEN_KINDS:
            control[text] = token
        elif text is not None and kind == Kind.USER_DEFINED:
            user_defined[text] = token
    return SpecialTokens(control, user_defined)


def _piece_table(vocab: Vocab, checked: CheckedVocab) -> PieceTable:
    kinds = checked.kinds
    hidden = frozenset(token for token, kind in enumerate(kinds) if kind in HIDDEN_KINDS)
    count = len(kinds)
    if vocab.raw_pieces:
        tokens, adds_space = vocab.tokens, vocab.add_space_prefix
        return PieceTable(
            lambda token: bytes(tokens[token]), count, hidden=hidden, verbatim=hidden, adds_space=adds_space
        )
    verbatim = hidden | {token for token, kind in enumerate(kinds) if kind == Kind.USER_DEFINED}
    texts, model = checked.texts, vocab.model

    def make(token: int) -> bytes:
        return _piece_bytes(texts[token] or "", kinds[token], model, token in verbatim)

    adds_space = vocab.add_space_prefix and model == "llama"
    return PieceTable(make, count, hidden=hidden, verbatim=frozenset(verbatim), adds_space=adds_space)


def _piece_bytes(text: str, kind: int, model: str, verbatim: bool) -> bytes:
    if verbatim:
        return text.encode()
    if model == "gpt2":
        return bytes_of_piece(text)
    if kind == Kind.BYTE and (match := BYTE_TEXT.fullmatch(text)):
        return bytes([int(match[1], 16)])
    return text.replace(ESCAPED_SPACE, " ").encode()


def _ends(checked: CheckedVocab) -> frozenset[int]:
    named = {token for token in (checked.eos, checked.eot) if token is not None}
    known = {
        token for token, text in enumerate(checked.texts) if text in END_TEXTS and checked.kinds[token] == Kind.CONTROL
    }
    return frozenset(named | known)
