"""tokenizer.model: protobuf read within bounds, and written so that it reads back."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import spm_vocab
from tests.tiny_hf import sentencepiece

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.huggingface.sentencepiece_model import SentencePieceModel, read_sentencepiece, sentencepiece_bytes

PIECES = ["<unk>", "<s>", "</s>", "<0x00>", "▁", "a", "▁a", "ü", "<extra>"]
SCORES = [0.0, 0.0, 0.0, 0.0, -1.0, -2.5, -3.0, -1e9, -1000.0]
TYPES = [2, 3, 3, 6, 1, 1, 1, 1, 4]


def read(tmp_path: Path, data: bytes) -> SentencePieceModel:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    return read_sentencepiece(path)


def test_pieces_scores_and_types_are_read(tmp_path: Path) -> None:
    model = read(tmp_path, sentencepiece(PIECES, SCORES, TYPES))
    assert (list(model.pieces), list(model.scores), list(model.types)) == (PIECES, SCORES, TYPES)
    assert (model.unk, model.bos, model.eos, model.pad) == (0, 1, 2, -1)
    assert model.add_dummy_prefix
    assert not model.notes


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            st.sampled_from([1, 3, 4, 5]),
        ),
        min_size=3,
        max_size=20,
    ),
    st.booleans(),
    st.integers(-1, 2),
)
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, float, int]], prefix: bool, pad: int
) -> None:
    pieces, scores, types = (list(column) for column in zip(*entries, strict=True))
    model = SentencePieceModel(pieces, scores, types, unk=0, bos=1, eos=2, pad=pad, add_dummy_prefix=prefix)
    again = read(tmp_path_factory.mktemp("spm"), sentencepiece_bytes(model))
    assert (list(again.pieces), list(again.scores), list(again.types)) == (pieces, scores, types)
    assert (again.unk, again.bos, again.eos, again.pad, again.add_dummy_prefix) == (0, 1, 2, pad, prefix)


def test_a_unigram_model_is_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFileError, match="kind unigram"):
        read(tmp_path, sentencepiece(PIECES, SCORES, TYPES, kind=1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no pieces"),
        (b"\x0a", "cut off"),
        (b"\x0a\xff\xff\xff\xff\x0f", "bytes where 0 are left"),
        (b"\x0a" + b"\xff" * 20, "more than 64 bits"),
        (b"\x0a\x00", "piece 0 is empty"),
        (b"\x0a\x03\x0a\x01\xff", "not UTF-8"),
        (b"\x0b", "stored in way 3"),
        (b"\x02\x00", "a field of 0 bytes"),
        (b"\x08\x01", "stored as a number"),
        (b"\x0a\x05\x0a\x01a\x18\x09", "type 9"),
        (b"\x0a\x08\x0a\x01a\x15" + struct.pack("<f", float("nan")), "score nan"),
        (b"\x0a\x06\x0a\x01a\x12\x01a", "has 1 bytes"),
        (b"\x0a\x03\x0a\x01a\x12\x05\x18\x02\xc0\x02\x07", "special token is 7"),
    ],
)
def test_damage_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=message) as caught:
        read(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path))
    assert str(caught.value).isprintable()


@given(st.integers(0, 500), st.binary(max_size=8))
def test_damage_anywhere_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, change: bytes
) -> None:
    data = bytearray(sentencepiece(PIECES, SCORES, TYPES))
    at = place % len(data)
    data[at : at + len(change)] = change
    path = tmp_path_factory.getbasetemp() / "damaged.model"
    path.write_bytes(data)
    try:
        model = read_sentencepiece(path)
    except BadFileError as error:
        assert str(error).isprintable()  # noqa: PT017  # many examples raise, not all
    else:
        assert len(model.pieces) == len(model.scores) == len(model.types)


def test_a_real_size_takes_no_time(tmp_path: Path) -> None:
    words = spm_vocab()
    texts = [*words["tokenizer.ggml.tokens"], *(f"▁w{index}" for index in range(31000))]
    model = read(tmp_path, sentencepiece(texts, [0.0] * len(texts), [1] * len(texts)))
    assert len(model.pieces) == len(texts)
