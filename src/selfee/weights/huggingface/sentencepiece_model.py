"""SentencePiece's ``tokenizer.model``: pieces with scores and types, in protobuf's wire format.

Only what a LLaMA vocabulary needs is read and written. A message is a row of fields; each begins with a number that
holds the field's own number and how its value is stored: a varint (0), 8 bytes (1), a length and bytes (2), 4 bytes
(5). Field numbers: sentencepiece_model.proto of google/sentencepiece.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.huggingface.json_file import read_small
from selfee.weights.printable import printable

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of pieces; GGUF took the numbers over."""

BPE = 2
"""The kind of model that LLaMA's is; 1 is unigram, 3 words, 4 characters."""

_LARGEST_FILE = 1 << 26
_AGAIN = "the file is damaged; fetch it again"
_KINDS = {1: "unigram", BPE: "BPE", 3: "word", 4: "char"}
_TIKTOKEN = b"IQ="  # base64 of "!": how the first line of such a file begins
Field = tuple[int, int | bytes]


@dataclass(frozen=True)
class SentencePieceModel:
    """A vocabulary: ``pieces``, ``scores`` and ``types`` have one entry each for every id. Ids are -1 where off."""

    pieces: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]
    unk: int = 0
    bos: int = 1
    eos: int = 2
    pad: int = -1
    add_dummy_prefix: bool = True
    notes: Sequence[str] = field(
        default_factory=tuple
    )  # what a reader without the trainer's settings will do otherwise


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a tokenizer.model. Raises BadFileError for a damaged file, UnsupportedFileError for another kind."""
    data = read_small(path, _LARGEST_FILE, "a SentencePiece model")
    if data.startswith(_TIKTOKEN):
        raise UnsupportedFileError(
            f"{path}: is a tiktoken vocabulary (Llama 3's); expected a SentencePiece model; use the tokenizer.json of "
            "the same model (--vocab-from FOLDER)"
        )
    return _Reader(path, data).model()


class _Reader:
    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data

    def bad(self, found: str, expected: str = "a SentencePiece model") -> BadFileError:
        return BadFileError(f"{self.path}: {found}; expected {expected}; {_AGAIN}")

    def model(self) -> SentencePieceModel:
        pieces: list[str] = []
        scores: list[float] = []
        types: list[int] = []
        trainer: dict[int, int | bytes] = {}
        normalizer: dict[int, int | bytes] = {}
        for number, value in self.fields(self.data):
            if number == 1:
                piece, score, type = self.piece(self.message(value, "a piece"), len(pieces))
                pieces.append(piece)
                scores.append(score)
                types.append(type)
            elif number == 2:
                trainer |= dict(self.fields(self.message(value, "the trainer's settings")))
            elif number == 3:
                normalizer |= dict(self.fields(self.message(value, "the normalizer's settings")))
        if not pieces:
            raise self.bad("no pieces in it")
        self.require_bpe(trainer)
        return SentencePieceModel(
            pieces,
            scores,
            types,
            unk=self.id(trainer, 40, 0, len(pieces)),
            bos=self.id(trainer, 41, 1, len(pieces)),
            eos=self.id(trainer, 42, 2, len(pieces)),
            pad=self.id(trainer, 43, -1, len(pieces)),
            add_dummy_prefix=normalizer.get(3, 1) != 0,
            notes=self.notes(normalizer),
        )

    def require_bpe(self, trainer: dict[int, int | bytes]) -> None:
        kind = trainer.get(3, 1)
        if kind != BPE:
            name = _KINDS.get(kind, str(kind)) if isinstance(kind, int) else "unknown"
            raise UnsupportedFileError(
                f"{self.path}: is a SentencePiece model of kind {name}; selfee reads BPE; use a model with that "
                "tokenizer"
            )

    def notes(self, normalizer: dict[int, int | bytes]) -> list[str]:
        found = []
        if normalizer.get(2, b""):
            found.append("its tokenizer normalizes characters first (such as ﬁ to fi); that is left out")
        if normalizer.get(4, 1) != 0:
            found.append("its tokenizer joins several blanks into one; that is left out")
        return found

    def piece(self, message: bytes, index: int) -> tuple[str, float, int]:
        text, score, type = "", 0.0, NORMAL
        for number, value in self.fields(message):
            if number == 1:
                try:
                    text = self.message(value, f"the text of piece {index}").decode("utf-8")
                except UnicodeDecodeError:
                    raise self.bad(f"piece {index} is not UTF-8") from None
            elif number == 2:
                raw = self.message(value, f"the score of piece {index}")
                if len(raw) != 4:
                    raise self.bad(f"the score of piece {index} has {len(raw)} bytes", "4")
                (score,) = struct.unpack("<f", raw)
            elif number == 3:
                if not isinstance(value, int) or not NORMAL <= value <= BYTE:
                    raise self.bad(f"piece {index} is of type {printable(str(value), 20)}", "1 to 6")
                type = value
        if not text:
            raise self.bad(f"piece {index} is empty", "a text")
        if not abs(score) < float("inf"):  # false for NaN as well
            raise self.bad(f"piece {index} has score {score}", "a finite number")
        return text, score, type

    def id(self, trainer: dict[int, int | bytes], number: int, default: int, count: int) -> int:
        value = trainer.get(number, default)
        if not isinstance(value, int):
            raise self.bad(f"trainer's field {number} is no number")
        if value >= 1 << 63:  # protobuf stores -1 as 2^64 - 1
            value -= 1 << 64
        if not -1 <= value < count:
            raise self.bad(f"a special token is {value}", f"an id below {count}")
        return value

    def message(self, value: int | bytes, what: str) -> bytes:
        if not isinstance(value, bytes):
            raise self.bad(f"{what} is stored as a number")
        return value

    def fields(self, data: bytes) -> Iterator[Field]:
        """Number and value of each field: an int for a varint, else the bytes."""
        at = 0
        while at < len(data):
            key, at = self.varint(data, at)
            number, kind = key >> 3, key & 7
            if kind == 0:
                value, at = self.varint(data, at)
                yield number, value
                continue
            if kind == 2:
                length, at = self.varint(data, at)
            elif kind in (1, 5):
                length = 8 if kind == 1 else 4
            else:
                raise self.bad(f"a field is stored in way {kind}")
            if number == 0 or length > len(data) - at:
                raise self.bad(f"a field of {length} bytes where {len(data) - at} are left")
            yield number, data[at : at + length]
            at += length

    def varint(self, data: bytes, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                raise self.bad("a number is cut off")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64:
                    raise self.bad("a number has more than 64 bits")
                return value, at
        raise self.bad("a number has more than 64 bits")


def sentencepiece_bytes(model: SentencePieceModel) -> bytes:
    """A tokenizer.model with these pieces: BPE, bytes for what is no piece, texts taken as they are."""
    out = bytearray()
    for piece, score, type in zip(model.pieces, model.scores, model.types, strict=True):
        entry = _bytes_field(1, piece.encode()) + _key(2, 5) + struct.pack("<f", score)
        if type != NORMAL:
            entry += _int_field(3, type)
        out += _bytes_field(1, entry)
    trainer = _int_field(3, BPE) + _int_field(4, len(model.pieces)) + _int_field(35, int(BYTE in model.types))
    for number, token in ((40, model.unk), (41, model.bos), (42, model.eos), (43, model.pad)):
        trainer += _int_field(number, token)
    for number, token in ((45, model.unk), (46, model.bos), (47, model.eos), (48, model.pad)):
        if token >= 0:
            trainer += _bytes_field(number, model.pieces[token].encode())
    out += _bytes_field(2, trainer)
    normalizer = _bytes_field(1, b"identity") + _int_field(3, int(model.add_dummy_prefix))
    normalizer += _int_field(4, 0) + _int_field(5, 1)
    out += _bytes_field(3, normalizer)
    return bytes(out)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _int_field(number: int, value: int) -> bytes:
    return _key(number, 0) + _varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _key(number, 2) + _varint(len(value)) + value
