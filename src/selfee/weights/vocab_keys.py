"""A vocabulary as GGUF's ``tokenizer.*`` keys, and between GGML's raw pieces and GGUF's written ones.

GGML files hold the bytes a piece stands for: spaces, single raw bytes, nothing for control tokens. GGUF holds names:
U+2581 for a space, <0x0A> for a byte, <s> for the beginning of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.checkpoint import Vocab
from selfee.weights.mapped import StringArray
from selfee.weights.printable import printable

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
ESCAPED_SPACE = "\u2581".encode()
FIRST_BYTE = 3
"""Id of the token for byte 0 in every LLaMA vocabulary; GGML files rely on it."""

_BEGINNING: Sequence[tuple[bytes, int]] = ((b"<unk>", UNKNOWN), (b"<s>", CONTROL), (b"</s>", CONTROL))
_RAW_UNKNOWN = " \u2047 ".encode()


def vocab_metadata(vocab: Vocab) -> dict[str, Any]:
    """The ``tokenizer.*`` keys that read back as this vocabulary (raw pieces: see ``written_vocab``)."""
    keys: dict[str, Any] = {
        "model": vocab.model,
        "pre": vocab.pre,
        "tokens": StringArray(list(vocab.tokens)),
    }
    if vocab.scores is not None:
        keys["scores"] = np.array(vocab.scores, dtype="<f4")
    if vocab.types is not None:
        keys["token_type"] = np.array(vocab.types, dtype="<i4")
    if len(vocab.merges):
        keys["merges"] = _strings(vocab.merges)
    for name in ("bos", "eos", "unknown", "padding", "eot"):
        token = getattr(vocab, name)
        if token is not None:
            keys[f"{name}_token_id"] = token
    keys |= {"add_bos_token": vocab.add_bos, "add_eos_token": vocab.add_eos}
    if vocab.model == "llama":
        keys["add_space_prefix"] = vocab.add_space_prefix
    found = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    if vocab.chat_template is not None:
        found["tokenizer.chat_template"] = vocab.chat_template
    return found


def _strings(texts: Sequence[str]) -> StringArray:
    return texts if isinstance(texts, StringArray) else StringArray([text.encode() for text in texts])


def written_vocab(vocab: Vocab) -> Vocab:
    """The vocabulary of a GGML file with GGUF's pieces, as llama.cpp's own converter writes them."""
    tokens: list[bytes] = []
    for index, piece in enumerate(vocab.tokens):
        if index < len(_BEGINNING):
            tokens.append(_BEGINNING[index][0])
        elif FIRST_BYTE <= index < FIRST_BYTE + 256 and len(piece) == 1:
            tokens.append(f"<0x{piece[0]:02X}>".encode())
        else:
            tokens.append(piece.replace(b" ", ESCAPED_SPACE))
    scores = scores_of_llama(len(tokens)) if vocab.scores is None else vocab.scores
    return replace(vocab, tokens=tokens, scores=scores, raw_pieces=False)


def raw_pieces(where: str, vocab: Vocab) -> tuple[list[bytes], list[float]]:
    """Pieces and scores as a GGML file holds them.

    Raises UnsupportedFileError for a vocabulary that programs of 2023 would misread: they hold byte b to be token
    b + 3, and 0, 1 and 2 to be the unknown, beginning and end tokens.
    """
    if vocab.model != "llama" or vocab.scores is None or vocab.types is None:
        kind = "byte-level BPE" if vocab.model == "gpt2" else f"of kind '{printable(vocab.model, 20)}' without scores"
        raise UnsupportedFileError(
            f"{where}: its vocabulary is {kind}; GGML files hold scored SentencePiece vocabularies only; convert to "
            "GGUF instead"
        )
    scores = list(vocab.scores)
    if vocab.raw_pieces:
        return list(vocab.tokens), scores
    _require_order(where, vocab)
    pieces = [
        _raw_piece(index, bytes(token), type)
        for index, (token, type) in enumerate(zip(vocab.tokens, vocab.types, strict=True))
    ]
    return pieces, scores


def _raw_piece(index: int, token: bytes, type: int) -> bytes:
    if type == BYTE:
        return bytes([int(token[3:5], 16)])
    if type == UNKNOWN:
        return _RAW_UNKNOWN
    # Control tokens added after training keep their names, as the converter of 2023 had it.
    if type == CONTROL and index < FIRST_BYTE:
        return b""
    return token.replace(ESCAPED_SPACE, b" ")


def _require_order(where: str, vocab: Vocab) -> None:
    types = vocab.types or []
    expected = [f"<0x{byte:02X}>".encode() for byte in range(256)]
    found = [bytes(token).upper().replace(b"X", b"x") for token in vocab.tokens[FIRST_BYTE : FIRST_BYTE + 256]]
    in_order = found == expected and all(kind == BYTE for kind in types[FIRST_BYTE : FIRST_BYTE + 256])
    if not in_order or (vocab.unknown, vocab.bos, vocab.eos) != (0, 1, 2):
        raise UnsupportedFileError(
            f"{where}: its special and byte tokens are not where LLaMA has them (unknown 0, beginning 1, end 2, bytes "
            "from 3 on), and GGML files cannot say so; convert to GGUF instead"
        )


def require_distinct(path: Path, vocab: Vocab) -> None:
    """Raise BadFileError where two tokens have one text or a text is no UTF-8: nobody could read such a GGUF file."""
    seen: dict[bytes, int] = {}
    for index, token in enumerate(vocab.tokens):
        try:
            token.decode("utf-8")
        except UnicodeDecodeError:
            raise BadFileError(
                f"{path}: token {index} is {printable(token, 40)}, no UTF-8; expected text; the vocabulary is damaged"
            ) from None
        first = seen.setdefault(token, index) if token else index
        if first != index:
            raise BadFileError(
                f"{path}: tokens {first} and {index} are both '{printable(token, 40)}'; expected different texts; the "
                "vocabulary is damaged; name a folder with the model's tokenizer (--vocab-from FOLDER)"
            )


def scores_of_llama(count: int) -> list[float]:
    """The scores of LLaMA's vocabulary, which files of before 20 March 2023 leave out: the rank in merging.

    Piece 259, two spaces, is the one exception (measured on the vocabulary of a later file).
    """
    scores = [float(min(0, 259 - token)) for token in range(count)]
    if count > 259:
        scores[259] = -1e9
    return scores
