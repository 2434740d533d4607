"""Damaged GGML files: what llama.cpp of June 2023 loaded, aborted on or blamed on memory is one clear line here."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tiny import make_tiny
from tests.weights.craft import refused

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.architecture import check_architecture
from selfee.weights.checkpoint import TensorInfo
from selfee.weights.finite import check_finite
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType

FIELDS = ["n_vocab", "n_embd", "n_mult", "n_head", "n_layer", "n_rot", "file_type"]
FIRST = "token_embd.weight"
LAST = "blk.1.ffn_norm.weight"


class Model:
    """A sound tiny file to be damaged: bytes and where things lie in them."""

    def __init__(self, path: Path) -> None:
        self.bytes = bytearray(path.read_bytes())
        with open_checkpoint(path) as checkpoint:
            self.tensors = dict(checkpoint.tensors)
            self.tokens = [bytes(token) for token in checkpoint.vocab.tokens]

    def field(self, name: str, value: int) -> None:
        self.put(8 + 4 * FIELDS.index(name), value)

    def number(self, name: str) -> int:
        value: int = struct.unpack_from("<I", self.bytes, 8 + 4 * FIELDS.index(name))[0]
        return value

    def put(self, at: int, value: int) -> None:
        struct.pack_into("<I", self.bytes, at, value)

    def head(self, name: str) -> int:
        """The first byte of a tensor's record: the end of the one before it."""
        names = list(self.tensors)
        before = names.index(name) - 1
        if before < 0:
            return 36 + sum(8 + len(token) for token in self.tokens)
        return self.end(self.tensors[names[before]])

    @staticmethod
    def end(tensor: TensorInfo) -> int:
        return tensor.offset + tensor.nbytes

    def rename(self, name: str, letter: bytes) -> None:
        """Replace the first letter of a tensor's name."""
        at = self.head(name)
        dimensions = struct.unpack_from("<I", self.bytes, at)[0]
        self.bytes[at + 12 + 4 * dimensions : at + 13 + 4 * dimensions] = letter


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(make_tiny(tmp_path / "sound.bin", container="ggjt3", type=QuantType.Q4_0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.bin"


Damage = Callable[[Model], None]


def set_field(name: str, value: int) -> Damage:
    return lambda model: model.field(name, value)


def set_fields(**values: int) -> Damage:
    def put(model: Model) -> None:
        for name, value in values.items():
            model.field(name, value)

    return put


def set_head(tensor: str, word: int, value: int) -> Damage:
    """Word 0 is the number of dimensions, 1 the length of the name, 2 the type, 3 and 4 the sizes."""
    return lambda model: model.put(model.head(tensor) + 4 * word, value)


def cut_at(tensor: str, into: int) -> Damage:
    def cut(model: Model) -> None:
        del model.bytes[model.head(tensor) + into :]

    return cut


def cut_data_of_a_tensor_in_the_middle(model: Model) -> None:
    tensor = model.tensors["blk.0.attn_v.weight"]
    del model.bytes[tensor.offset + 10 : tensor.offset + 42]


def both_sizes_at_their_limit(model: Model) -> None:
    model.put(model.head(FIRST) + 12, 2**32 - 32)
    model.put(model.head(FIRST) + 16, 2**32 - 1)


def repeat_a_tensor(model: Model) -> None:
    last = model.tensors[LAST]
    model.bytes += model.bytes[model.head(LAST) : model.end(last)]


def drop_a_tensor(model: Model) -> None:
    del model.bytes[model.head("blk.1.ffn_up.weight") : model.head(LAST)]
    del model.bytes[model.head("blk.1.ffn_up.weight") :]


def name_that_is_not_utf8(model: Model) -> None:
    model.rename(LAST, b"\xff")


def nan_score(model: Model) -> None:
    at = 36 + sum(8 + len(token) for token in model.tokens[:5]) - 4
    model.bytes[at : at + 4] = struct.pack("<f", float("nan"))


def piece_of_4_gib(model: Model) -> None:
    model.put(36, 2**32 - 1)


def stray_bytes(count: int) -> Damage:
    return lambda model: model.bytes.extend(bytes(count))


CASES: dict[str, tuple[Damage, str]] = {
    "cut in the version": (lambda m: m.bytes.__delitem__(slice(6, None)), "byte 4: the version needs 4 bytes"),
    "cut in the hyper-parameters": (
        lambda m: m.bytes.__delitem__(slice(30, None)),
        "byte 8: the header needs 28 bytes",
    ),
    "cut in the vocabulary": (
        lambda m: m.bytes.__delitem__(slice(3000, None)),
        "byte 12: n_vocab is 5.*, too many for the 2964 bytes",
    ),
    "cut in a tensor's head": (cut_at("blk.0.attn_q.weight", 9), "9 stray bytes after 3 tensors"),
    "cut in a tensor's sizes": (cut_at("blk.0.attn_q.weight", 14), "sizes of tensor 3 needs 4 bytes but 2 are left"),
    "cut in a tensor's name": (cut_at("blk.0.attn_q.weight", 25), "name of tensor 3 needs 28 bytes but 5 are left"),
    "cut between two tensors": (cut_at("blk.1.attn_q.weight", 0), "tensors are missing: blk.1."),
    "cut after the vocabulary": (cut_at(FIRST, 0), "block_count is 2; expected at most the 0 tensors"),
    "one stray byte at the end": (stray_bytes(1), "1 stray bytes after 21 tensors; expected the end or a tensor"),
    "stray zeros at the end": (stray_bytes(64), "tensor 21 has 0 dimensions"),
    "cut inside a tensor that is not last": (cut_data_of_a_tensor_in_the_middle, "tensor 6 has 1.* dimensions"),
    "last tensor one byte short": (
        lambda m: m.bytes.__delitem__(-1),
        "tensor 'layers.1.ffn_norm.weight': 1 of its 256 bytes are missing",
    ),
    "ggjt version 0": (lambda m: m.put(4, 0), "byte 4: ggjt version 0; versions that exist: 1, 2, 3"),
    "ggjt version 4": (lambda m: m.put(4, 4), "byte 4: ggjt version 4"),
    "version 3 labelled 1": (lambda m: m.put(4, 1), "is Q4_0 of ggjt v1, whose blocks were laid out differently"),
    "version 3 labelled 2": (lambda m: m.put(4, 2), "is Q4_0 of ggjt v2, whose blocks were laid out differently"),
    "n_vocab 2**32-1": (set_field("n_vocab", 2**32 - 1), "byte 8: n_vocab is 4294967295; expected a number from 1"),
    "n_vocab 2**31-1": (set_field("n_vocab", 2**31 - 1), "n_vocab is 2147483647, too many for the"),
    "n_vocab 0": (set_field("n_vocab", 0), "byte 8: n_vocab is 0"),
    "n_vocab one too many": (lambda m: m.field("n_vocab", m.number("n_vocab") + 1), "tensor 0 has 4194304 dim"),
    "n_vocab one too few": (lambda m: m.field("n_vocab", m.number("n_vocab") - 1), "name of tensor 0 has 24.* bytes"),
    "name of length 0": (set_head(FIRST, 1, 0), "name of tensor 0 has 0 bytes; expected 1 to 256"),
    "name of 4 GiB": (set_head(FIRST, 1, 2**32 - 1), "name of tensor 0 has 4294967295 bytes"),
    "row of 0": (set_head(FIRST, 3, 0), "tensor 'tok_embeddings.weight' has sizes 0 x 5.*; none may be 0"),
    "row of 33": (set_head(FIRST, 3, 33), "has rows of 33; Q4_0 needs a multiple of 32"),
    "row of 63": (set_head(FIRST, 3, 63), "has rows of 63; Q4_0 needs a multiple of 32"),
    "no rows": (set_head(FIRST, 4, 0), "none may be 0"),
    "n_mult 0": (set_field("n_mult", 0), "byte 16: n_mult is 0; expected a number from 1"),
    "n_mult 1": (set_field("n_mult", 1), "feed_forward.w1.weight': 192 rows; n_embd 64 and n_mult 1 make 170"),
    "n_head 0": (set_field("n_head", 0), "byte 20: n_head is 0"),
    "n_head that does not divide n_embd": (set_field("n_head", 5), "byte 20: n_head is 5; expected a divisor of n_emb"),
    "n_layer 0": (set_field("n_layer", 0), "byte 24: n_layer is 0"),
    "n_layer 1": (set_field("n_layer", 1), "tensors foreign to llama with 1 layers: blk.1.* and 6 more"),
    "n_layer 3": (set_field("n_layer", 3), "tensors are missing: blk.2.* and 6 more"),
    "n_layer 10**9": (set_field("n_layer", 10**9), "llama.block_count is 1000000000; expected at most the 21 tensors"),
    "n_embd doubled": (
        set_fields(n_embd=128, n_rot=32),
        "tok_embeddings has rows of 64 but n_embd is 128: one of 2 parts of a model",
    ),
    "n_embd 0": (set_field("n_embd", 0), "byte 12: n_embd is 0"),
    "n_embd 96": (set_fields(n_embd=96, n_rot=24), "layers.0.attention.wk.weight': 64 rows; expected 96"),
    "n_rot 0": (set_field("n_rot", 0), "byte 28: n_rot is 0; expected n_embd / n_head = 16"),
    "n_rot more than a head": (set_field("n_rot", 64), "byte 28: n_rot is 64"),
    "unknown file type": (set_field("file_type", 999), "byte 32: file_type is 999; expected 0 to 4 or 7 to 18"),
    "file type of another family": (set_field("file_type", 1002), "byte 32: file_type is 1002"),
    "type 4": (set_head(FIRST, 2, 4), "tensor 'tok_embeddings.weight' has type 4; GGML models hold types 0 to 3"),
    "type 9": (set_head(FIRST, 2, 9), r"has type 9 \(Q8_1\); GGML models hold"),
    "type 30": (set_head(FIRST, 2, 30), r"has type 30 \(BF16\)"),
    "type 2**32-1": (set_head(FIRST, 2, 2**32 - 1), "has type 4294967295"),
    "both sizes near 2**32": (both_sizes_at_their_limit, "4294967264 x 4294967295, more than any file holds"),
    "3 dimensions": (set_head(FIRST, 0, 3), "tensor 0 has 3 dimensions; expected 1 or 2"),
    "2**32-1 dimensions": (set_head(FIRST, 0, 2**32 - 1), "tensor 0 has 4294967295 dimensions"),
    "a tensor twice": (repeat_a_tensor, "tensor 'blk.1.ffn_norm.weight' stands there twice"),
    "a renamed tensor": (lambda m: m.rename(LAST, b"L"), "tensors are missing: blk.1.ffn_norm.weight"),
    "a name that is not UTF-8": (name_that_is_not_utf8, "is not UTF-8"),
    "NaN score": (nan_score, "score of token 4 is nan; expected a finite number"),
    "a piece of 4 GiB": (piece_of_4_gib, "token 0 reaches beyond the end of the file"),
    "a missing tensor": (drop_a_tensor, "tensors are missing: blk.1.ffn_"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name(model: Model, path: Path, name: str) -> None:
    damage, message = CASES[name]
    damage(model)
    path.write_bytes(model.bytes)
    refused(path, message)


def test_the_file_that_the_damaged_ones_were_made_from_is_sound(model: Model, path: Path) -> None:
    path.write_bytes(model.bytes)
    with open_checkpoint(path) as checkpoint:
        check_architecture(checkpoint)
        check_finite(checkpoint)


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E00], ids=["infinity", "minus infinity", "NaN"])
def test_a_block_scale_that_is_not_finite_is_found_on_request(model: Model, path: Path, bits: int) -> None:
    tensor = model.tensors["blk.0.ffn_up.weight"]
    struct.pack_into("<H", model.bytes, tensor.offset + 18 * 7, bits)
    path.write_bytes(model.bytes)
    with open_checkpoint(path) as checkpoint:
        check_architecture(checkpoint)
        at = tensor.offset + 18 * 7
        with pytest.raises(BadFileError, match=f"byte {at}: tensor 'blk.0.ffn_up.weight': block scale 7 is NaN or inf"):
            check_finite(checkpoint)


@pytest.mark.parametrize("container", ["ggjt3", "ggjt1", "ggmf", "ggml"])
def test_a_model_cut_anywhere_is_refused(tmp_path: Path, path: Path, container: str) -> None:
    whole = make_tiny(tmp_path / "whole.bin", container=container, type=QuantType.F16).read_bytes()  # type: ignore[arg-type]
    chance = random.Random(2)
    for end in [*range(1, 65), *(chance.randrange(64, len(whole)) for _ in range(200)), len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(BadFileError, match=r"m\.bin: "), open_checkpoint(path) as checkpoint:
            check_architecture(checkpoint)


def test_a_model_cut_at_every_edge_is_refused(model: Model, path: Path) -> None:
    edges = {model.head(name) + into for name in model.tensors for into in (0, 4, 8, 12, 16, 20)}
    edges |= {tensor.offset for tensor in model.tensors.values()} | set(range(4, 37, 4))
    for end in sorted(edges):
        path.write_bytes(model.bytes[:end])
        with pytest.raises(BadFileError, match=r"m\.bin: "), open_checkpoint(path) as checkpoint:
            check_architecture(checkpoint)


@pytest.mark.parametrize("type", [QuantType.Q4_0, QuantType.Q4_1, QuantType.Q8_0], ids=lambda type: type.name)
@pytest.mark.parametrize("container", ["ggjt2", "ggjt1", "ggmf", "ggml"])
def test_block_layouts_of_early_versions_are_refused_with_their_reason(
    path: Path, container: str, type: QuantType
) -> None:
    make_tiny(path, container=container, type=type)  # type: ignore[arg-type]
    refused(path, "laid out differently .*quantise the original model again", error=UnsupportedFileError)


def test_five_bit_types_did_not_change_between_versions_2_and_3(path: Path) -> None:
    for type in (QuantType.Q5_0, QuantType.Q5_1):
        with open_checkpoint(make_tiny(path, container="ggjt2", type=type)) as checkpoint:
            assert checkpoint.tensors["output.weight"].type is type
        make_tiny(path, container="ggjt1", type=type)
        refused(path, "laid out differently", error=UnsupportedFileError)
