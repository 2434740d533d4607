"""Damaged and hostile GGUF files: each published way to crash a reader is one clear line here.

Rows in the order of the advisories known in autumn 2026; llama.cpp's own handmade cases (test-gguf) are among them.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from tests.tiny import make_tiny
from tests.weights.craft import Described, array, gguf, pair, refused, text, u32

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.gguf import ValueType
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType

BIG = 1 << 63
ONE = [Described()]
DATA = bytes(32)
TOKENS = array("tokenizer.ggml.tokens", ValueType.STRING, 2, text("a") + text("b"))
LLAMA = pair("tokenizer.ggml.model", ValueType.STRING, text("llama"))
I32 = ValueType.I32
F32 = ValueType.F32
U64 = ValueType.U64
STR = ValueType.STRING


def byte_token(piece: str) -> list[bytes]:
    tokens = array("tokenizer.ggml.tokens", STR, 1, text(piece))
    return [LLAMA, tokens, array("tokenizer.ggml.token_type", I32, 1, struct.pack("<i", 6))]


CASES: dict[str, tuple[bytes, str]] = {
    "array whose count times element size wraps, CVE-2024-21825": (
        gguf([array("k", U64, 1 << 61, bytes(64))]),
        "number of elements of metadata value 'k' is 2305843009213693952",
    ),
    "string length 2**64-1, CVE-2024-23496": (
        gguf([pair("k", STR, text("abc", length=2**64 - 1))]),
        "metadata value 'k' is 18446744073709551615 bytes long",
    ),
    "key length 2**64-1": (gguf([text("abc", length=2**64 - 1) + bytes(32)]), "metadata key 0 is 184467440737095516"),
    "more than 4 dimensions, CVE-2024-21802": (
        gguf([], [Described(sizes=(1, 1, 1, 1, 8))], DATA),
        "tensor 't' has 5 dimensions; expected 1 to 4",
    ),
    "2**32-1 dimensions": (gguf([], [Described(dimensions=2**32 - 1)], DATA), "has 4294967295 dimensions"),
    "no dimensions": (gguf([], [Described(sizes=())], DATA), "has 0 dimensions"),
    "huge number of pairs, CVE-2024-23605": (gguf(n_pairs=2**60), "number of metadata pairs is 1152921504606846976"),
    "more pairs than bytes": (gguf([u32("k", 1)], n_pairs=40), "number of metadata pairs is 40, too many"),
    "huge number of tensors, CVE-2024-21836": (gguf(n_tensors=2**64 - 1), "number of tensors is 18446744073709551615"),
    "tensor count times overhead wraps, CVE-2026-27940": (
        gguf([], ONE, DATA, n_tensors=2**64 // 376 + 1),
        "number of tensors is 49",
    ),
    "more tensors than bytes": (gguf([], ONE, DATA, n_tensors=9), "number of tensors is 9, too many"),
    "one tensor more than there is": (gguf([], ONE, DATA, n_tensors=2), "name of tensor 1 is empty"),
    "ends half-way through the pairs, CVE-2024-32878": (
        gguf([u32("a", 1), pair("b", STR, text("abc", length=40))], [])[:-2],
        "metadata value 'b' needs 40 bytes but",
    ),
    "tensor without a name, CVE-2024-41130": (gguf([], [Described(name="")], DATA), "name of tensor 0 is empty"),
    "piece longer than 2**31-1, CVE-2025-49847": (
        gguf([array("tokenizer.ggml.tokens", STR, 1, text("abc", length=1 << 31))]),
        "string 0 reaches beyond the end",
    ),
    "padded sizes whose sum wraps, CVE-2025-53630": (
        gguf([], [Described("a", (2**61 - 1,), 24), Described("b", (2**61 - 1,), 24, 2**61)], DATA),
        "tensor 'a': .* bytes are missing",
    ),
    "byte size wraps, CVE-2026-33298": (
        gguf([], [Described(sizes=(1 << 20, (1 << 42) + 1))], DATA),
        "more than any file holds",
    ),
    "element product goes negative, issue 27203": (
        gguf([], [Described(sizes=(BIG - 1, 2, 1, 1))], DATA),
        "more than any file holds",
    ),
    "negative size": (gguf([], [Described(sizes=(2**64 - 8,))], DATA), "more than any file holds"),
    "dimension 0, ggml 25596": (gguf([], [Described(sizes=(8, 0))], DATA), "sizes 8 x 0; none may be 0"),
    "row 0": (gguf([], [Described(sizes=(0,))], DATA), "none may be 0"),
    "alignment of another type": (
        gguf([pair("general.alignment", STR, text("32"))], ONE, DATA),
        "byte 24: general.alignment is of type STRING; expected U32",
    ),
    "alignment of a wider type": (
        gguf([pair("general.alignment", ValueType.U64, struct.pack("<Q", 32))], ONE, DATA),
        "general.alignment is of type U64; expected U32",
    ),
    "alignment 0": (gguf([u32("general.alignment", 0)], ONE, DATA), "general.alignment is 0"),
    "alignment 13": (gguf([u32("general.alignment", 13)], ONE, DATA), "general.alignment is 13"),
    "alignment 2**30": (gguf([u32("general.alignment", 1 << 30)], ONE, DATA), "general.alignment is 1073741824"),
    "alignment 2**31": (gguf([u32("general.alignment", 1 << 31)], ONE, DATA), "general.alignment is 2147483648"),
    "empty key": (gguf([pair("", ValueType.U8, b"\1")]), "metadata key 0 is empty"),
    "small file that declares a string of 1 GiB": (
        gguf([pair("k", STR, text(bytes(100), length=1 << 30))]),
        "metadata value 'k' is 1073741824 bytes long; at most 67108864 are allowed",
    ),
    "small file that declares a string of 64 MiB": (
        gguf([pair("k", STR, text(bytes(100), length=1 << 26))]),
        "metadata value 'k' needs 67108864 bytes but 1.. are left",
    ),
    "size near 2**64 that wraps in padding, PR 26318": (
        gguf([], [Described(sizes=(2**63 - 1,), type=24)], DATA),
        "of its 9223372036854775807 bytes are missing",
    ),
    "fewer scores than tokens, PR 20735": (
        gguf([LLAMA, TOKENS, array("tokenizer.ggml.scores", F32, 1, bytes(4))]),
        "tokenizer.ggml.scores: has 1 entries for 2 tokens",
    ),
    "fewer types than tokens, PR 26051": (
        gguf([LLAMA, TOKENS, array("tokenizer.ggml.token_type", I32, 1, bytes(4))]),
        "tokenizer.ggml.token_type: has 1 entries for 2 tokens",
    ),
    "byte token <0x-1>, cf06ad7": (gguf(byte_token("<0x-1>")), "byte token 0 is '<0x-1>'; expected <0x00>"),
    "byte token <0xZZ>, issue 27226": (gguf(byte_token("<0xZZ>")), "byte token 0 is '<0xZZ>'"),
    "array count 2**63 in a small file, PR 27188": (gguf([array("k", ValueType.U8, BIG)]), "is 9223372036854775808"),
    "strings of length 0, 2**40 of them": (gguf([array("k", STR, 1 << 40)]), "number of elements of .* is 10995116277"),
    "tensor reaches beyond the file, CVE-2026-7482": (
        gguf([], [Described(sizes=(64,))], DATA),
        "224 of its 256 bytes are missing",
    ),
    "offset beyond the file": (gguf([], [Described(offset=1 << 20)], DATA), "begins at 1048576 of the data area; expe"),
    "sizes beyond 32 bits, CVE-2026-53923": (
        gguf([], [Described(sizes=(2**32 + 32,), type=QuantType.Q4_0)], DATA),
        "of its 2415919122 bytes are missing",
    ),
    "bad magic": (gguf(magic=b"GGUX"), "begins with 'GGUX'; expected a GGUF or GGML model"),
    "version 0": (gguf(version=0), "GGUF version 0; selfee reads versions 1 to 3"),
    "version 4": (gguf(version=4), "GGUF version 4; .*update selfee"),
    "version 999": (gguf(version=999), "GGUF version 999"),
    "version 1 on the bytes of version 3": (gguf([u32("k", 1)], ONE, DATA, version=1), ": byte "),
    "big-endian": (gguf(version=3 << 24), "big-endian GGUF file"),
    "value of unknown type": (gguf([pair("k", 13, bytes(8))]), "metadata value 'k' has type 13; known are 0 to 12"),
    "value of type 2**32-1": (gguf([pair("k", 2**32 - 1, bytes(8))]), "has type 4294967295"),
    "array of unknown type": (gguf([array("k", 77, 1, bytes(8))]), "elements of metadata value 'k' has type 77"),
    "array of arrays": (gguf([array("k", ValueType.ARRAY, 1, bytes(12))]), "is an array of arrays"),
    "duplicate key": (gguf([u32("k", 1), u32("k", 1)]), "metadata key 'k' stands there twice"),
    "key of 64 KiB": (gguf([u32("k" * 65536, 1)]), "metadata key 0 is 65536 bytes long"),
    "key that is not UTF-8": (gguf([pair(b"\xff", ValueType.U8, b"\1")]), r"'\\xff' is not UTF-8"),
    "truth value 7": (gguf([pair("k", ValueType.BOOL, b"\7")]), "neither 0 nor 1"),
    "tensor name of 64 bytes": (gguf([], [Described("n" * 64)], DATA), "name of tensor 0 is 64 bytes long; at most 63"),
    "tensor name that is not UTF-8": (gguf([], [Described(b"\xff\xfe")], DATA), "is not UTF-8"),
    "duplicate tensor name": (
        gguf([], [Described(), Described(offset=32)], 2 * DATA),
        "tensor 't' stands there twice",
    ),
    "row that is no multiple of the block": (
        gguf([], [Described(sizes=(48,), type=QuantType.Q4_0)], DATA),
        "rows of 48; Q4_0 needs a multiple of 32",
    ),
    "removed type": (gguf([], [Described(type=31)], DATA), r"has type 31 \(Q4_0_4_4\), which ggml removed"),
    "unknown type": (gguf([], [Described(type=4242)], DATA), "has type 4242, which is unknown"),
    "negative type": (gguf([], [Described(type=2**32 - 1)], DATA), "has type 4294967295, which is unknown"),
    "overlapping tensors": (gguf([], [Described("a"), Described("b", offset=0)], DATA), "begins at 0 .* expected 32"),
    "hole between tensors": (gguf([], [Described("a"), Described("b", offset=64)], 3 * DATA), "begins at 64 .*cted 32"),
    "inconsistent alignment": (
        gguf([u32("general.alignment", 64)], [Described("a"), Described("b", offset=32)], 4 * DATA, alignment=64),
        "begins at 32 of the data area; expected 64",
    ),
    "not enough data": (gguf([], ONE, DATA[:31]), "1 of its 32 bytes are missing"),
    "one byte too many": (gguf([], ONE, DATA + b"\0"), "1 bytes follow the last tensor; expected the end"),
    "a second file behind the first": (gguf([], ONE, DATA) + gguf([], ONE, DATA), "bytes follow the last tensor"),
    "control characters in a name": (gguf([], [Described("\x1b[31mred", (0,))]), r"tensor '\\x1b\[31mred'"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name(tmp_path: Path, name: str) -> None:
    content, message = CASES[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    refused(path, message)


def test_the_files_that_the_damaged_ones_were_made_from_are_sound(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    sound = [
        gguf(),
        gguf([u32("k", 1)], ONE, DATA),
        gguf([LLAMA, TOKENS]),
        gguf(byte_token("<0xFF>")),
        gguf([u32("general.alignment", 64)], [Described("a"), Described("b", offset=64)], 4 * DATA, alignment=64),
    ]
    for content in sound:
        path.write_bytes(content)
        open_checkpoint(path).close()


def test_padding_after_the_last_tensor_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([], [Described(sizes=(3,))], bytes(12)))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("t").shape == (1, 12)


def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    pairs = [u32("a", 1), TOKENS, LLAMA, array("b", F32, 3, bytes(12)), pair("c", ValueType.BOOL, b"\1")]
    whole = gguf(pairs, [Described("x", (8, 2)), Described("y", (32,), QuantType.Q8_0, 64)], bytes(64 + 34))
    path = tmp_path / "m.gguf"
    path.write_bytes(whole)
    open_checkpoint(path).close()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(BadFileError, match=r"(?s)^[^\n]*m\.gguf: [^\n]*$"):
            open_checkpoint(path)


@pytest.mark.parametrize("container", ["gguf", "gguf1"])
def test_a_model_cut_anywhere_is_refused(tmp_path: Path, container: str) -> None:
    whole = make_tiny(tmp_path / "whole.gguf", container=container, type=QuantType.Q4_0).read_bytes()  # type: ignore[arg-type]
    path = tmp_path / "m.gguf"
    chance = random.Random(1)
    for end in [*range(1, 65), *(chance.randrange(64, len(whole)) for _ in range(200)), len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(BadFileError, match=r"m\.gguf: "):
            open_checkpoint(path)


def test_a_tensor_of_a_type_we_cannot_compute_with_is_listed_but_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([], [Described("t", (256,), QuantType.IQ2_XXS)], bytes(96)))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors["t"].type is QuantType.IQ2_XXS
        assert checkpoint.tensors["t"].nbytes == 66
        with pytest.raises(UnsupportedFileError, match="stored as IQ2_XXS, which selfee can list but not compute with"):
            checkpoint.read("t")


def test_a_hostile_template_is_text_and_nothing_else(tmp_path: Path) -> None:
    evil = "{{ ''.__class__.__mro__[1].__subclasses__() }}\x1b[2J"
    path = make_tiny(tmp_path / "m.gguf", metadata={"tokenizer.chat_template": evil})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.vocab.chat_template == evil
