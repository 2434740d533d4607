"""Reading GGML, the format of the 2023 releases: unversioned ``ggml``, ``ggmf`` v1 and ``ggjt`` v1 to v3.

A file says little about itself, so hyper-parameters, vocabulary and tensors are checked against each other. Metadata
and tensor names appear under GGUF's keys. Layout: magic, version, seven hyper-parameters, vocabulary, then tensor
records until the end of the file; nothing counts the tensors.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.checkpoint import TensorInfo, Vocab
from selfee.weights.gguf import checked_size, padded
from selfee.weights.mapped import AGAIN, Cursor, MappedCheckpoint, MappedFile
from selfee.weights.names import ggml_to_gguf
from selfee.weights.printable import printable
from selfee.weights.quants import QuantType

MAGICS = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt"}
"""First four bytes -> name of the container."""

VERSIONS = {"ggml": (0,), "ggmf": (1,), "ggjt": (1, 2, 3)}
"""Container -> versions that exist; "ggml" has no version field."""

ALIGNMENT = 32
"""Tensor data of ggjt begins at a multiple of this many bytes of the file."""

RMS_EPSILON = 1e-6
"""Not stored; hard-coded in llama.cpp until July 2023, and right for LLaMA 1."""

CONTEXT_LENGTH = 2048
"""Not stored; what LLaMA 1 was trained with."""

_HYPER = struct.Struct("<7I")
_KNOWN_FILE_TYPES = frozenset({0, 1, 2, 3, 4, *range(7, 19)})
_MAX_NAME = 256
_MAX_PIECE = 1 << 16
_PLAIN = frozenset({QuantType.F32, QuantType.F16})
_FIVE_BIT = frozenset({QuantType.Q5_0, QuantType.Q5_1})
FILE_TENSOR_TYPES = frozenset(
    {*_PLAIN, *_FIVE_BIT, QuantType.Q4_0, QuantType.Q4_1, QuantType.Q8_0}
    | {QuantType.Q2_K, QuantType.Q3_K, QuantType.Q4_K, QuantType.Q5_K, QuantType.Q6_K}
)
"""The types that tensors of ggjt v3 files may have."""


@dataclass(frozen=True)
class Hyper:
    """The seven numbers at the head of a GGML file, in file order."""

    n_vocab: int
    n_embd: int
    n_mult: int
    n_head: int
    n_layer: int
    n_rot: int
    file_type: int


class GgmlCheckpoint(MappedCheckpoint):
    """A GGML file, opened, and the numbers at its head."""

    def __init__(
        self,
        file: MappedFile,
        container: str,
        metadata: dict[str, Any],
        vocab: Vocab,
        tensors: dict[str, TensorInfo],
        hyper: Hyper,
    ) -> None:
        super().__init__(file, container, metadata, vocab, tensors)
        self.hyper = hyper


def read_ggml(file: MappedFile) -> GgmlCheckpoint:
    """Read everything but the tensor data of a mapped GGML file.

    Raises BadFileError for a damaged file, UnsupportedFileError for versions or block layouts that are not read.
    """
    return _Reader(file).checkpoint()


class _Reader:
    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.at = Cursor(file, 4)
        self.family = MAGICS[file.data[:4]]
        self.version = self.at.u32("the version") if self.family != "ggml" else 0
        if self.version not in VERSIONS[self.family]:
            known = ", ".join(str(version) for version in VERSIONS[self.family])
            raise UnsupportedFileError(
                f"{file.path}: byte 4: {self.family} version {self.version}; versions that exist: {known}; {AGAIN}"
            )

    @property
    def container(self) -> str:
        return f"{self.family} v{self.version}" if self.version else self.family

    def checkpoint(self) -> GgmlCheckpoint:
        hyper = self.hyper()
        vocab = self.vocab(hyper.n_vocab)
        tensors = self.tensors(hyper)
        metadata = self.metadata(hyper, vocab, tensors)
        return GgmlCheckpoint(self.file, self.container, metadata, vocab, tensors, hyper)

    def hyper(self) -> Hyper:
        start = self.at.offset
        hyper = Hyper(*self.at.unpack(_HYPER, "the header"))

        def refuse(field: str, expected: str) -> None:
            raise self.file.bad(
                start + 4 * list(hyper.__dataclass_fields__).index(field),
                f"{field} is {getattr(hyper, field)}; expected {expected}; the file is damaged or no LLaMA model",
            )

        for field in ("n_vocab", "n_embd", "n_mult", "n_head", "n_layer"):
            if not 0 < getattr(hyper, field) < 1 << 31:
                refuse(field, "a number from 1 to 2147483647")
        if hyper.n_embd % hyper.n_head:
            refuse("n_head", f"a divisor of n_embd = {hyper.n_embd}")
        if hyper.n_rot != hyper.n_embd // hyper.n_head:
            refuse("n_rot", f"n_embd / n_head = {hyper.n_embd // hyper.n_head}")
        if hyper.file_type not in _KNOWN_FILE_TYPES:
            refuse("file_type", "0 to 4 or 7 to 18")
        return hyper

    def vocab(self, count: int) -> Vocab:
        start = self.at.offset
        with_scores = self.family != "ggml"
        if count * (8 if with_scores else 4) > self.at.left:
            raise self.file.bad(12, f"n_vocab is {count}, too many for the {self.at.left} bytes left; {AGAIN}")
        if with_scores:
            tokens, scores = self.scored_tokens(count)
        else:
            tokens, scores = self.at.strings(count, 4, "the vocabulary", _MAX_PIECE), None
        if scores is not None and not np.isfinite(scores).all():
            index = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise self.file.bad(start, f"score of token {index} is {scores[index]}; expected a finite number; {AGAIN}")
        return Vocab(
            model="llama",
            pre="default",
            tokens=tokens,
            scores=scores,
            types=[_token_type(index, piece) for index, piece in enumerate(tokens)],
            merges=[],
            bos=1 if count > 1 else None,
            eos=2 if count > 2 else None,
            unknown=0,
            padding=None,
            eot=None,
            add_bos=True,
            add_eos=False,
            add_space_prefix=True,
            chat_template=None,
            raw_pieces=True,
        )

    def scored_tokens(self, count: int) -> tuple[list[bytes], list[float]]:
        data, size, at = self.file.data, self.file.size, self.at.offset
        tokens: list[bytes] = []
        scores = bytearray()
        for _ in range(count):
            start = at + 4
            end = start + int.from_bytes(data[at:start], "little")
            if end + 4 > size:
                raise self.file.bad(at, f"token {len(tokens)} reaches beyond the end of the file; {AGAIN}")
            if end - start > _MAX_PIECE:
                raise self.file.bad(at, f"token {len(tokens)} has {end - start} bytes; expected at most {_MAX_PIECE}")
            tokens.append(data[start:end])
            at = end + 4
            scores += data[end:at]
        self.at.offset = at
        return tokens, np.frombuffer(scores, dtype="<f4").tolist()

    def tensors(self, hyper: Hyper) -> dict[str, TensorInfo]:
        tensors: dict[str, TensorInfo] = {}
        while self.at.left:
            start = self.at.offset
            tensor = self.tensor(len(tensors))
            if tensor.name in tensors:
                raise self.file.bad(start, f"tensor '{printable(tensor.name)}' stands there twice; {AGAIN}")
            tensors[tensor.name] = tensor
        embedding = tensors.get("token_embd.weight")
        if embedding and embedding.shape[-1] != hyper.n_embd and hyper.n_embd % embedding.shape[-1] == 0:
            raise UnsupportedFileError(
                f"{self.file.path}: tok_embeddings has rows of {embedding.shape[-1]} but n_embd is {hyper.n_embd}: one "
                f"of {hyper.n_embd // embedding.shape[-1]} parts of a model, or damaged; join the parts by converting "
                "the model again"
            )
        return tensors

    def tensor(self, index: int) -> TensorInfo:
        start = self.at.offset
        if self.at.left < 12:
            raise self.file.bad(
                start, f"{self.at.left} stray bytes after {index} tensors; expected the end or a tensor; {AGAIN}"
            )
        dimensions, length, number = (self.at.u32(f"the head of tensor {index}") for _ in range(3))
        if dimensions not in (1, 2):
            raise self.file.bad(start, f"tensor {index} has {dimensions} dimensions; expected 1 or 2; {AGAIN}")
        if not 0 < length <= _MAX_NAME:
            raise self.file.bad(start + 4, f"the name of tensor {index} has {length} bytes; expected 1 to {_MAX_NAME}")
        sizes = [self.at.u32(f"the sizes of tensor {index}") for _ in range(dimensions)]
        name_at = self.at.offset
        raw_name = self.at.take(length, f"the name of tensor {index}")
        what = f"tensor '{printable(raw_name)}'"
        type = self.tensor_type(number, start + 8, what)
        nbytes = checked_size(self.file, start + 12, what, tuple(reversed(sizes)), type)
        try:
            name = raw_name.decode("utf-8")
        except UnicodeDecodeError:
            raise self.file.bad(name_at, f"the name of {what} is not UTF-8; {AGAIN}") from None
        if self.family == "ggjt":
            self.at.offset = min(padded(self.at.offset, ALIGNMENT), self.file.size)
        if nbytes > self.at.left:
            raise self.file.bad(
                self.at.offset, f"{what}: {nbytes - self.at.left} of its {nbytes} bytes are missing; {AGAIN}"
            )
        offset = self.at.offset
        self.at.offset += nbytes
        return TensorInfo(ggml_to_gguf(name) or name, tuple(reversed(sizes)), type, offset, nbytes)

    def tensor_type(self, number: int, start: int, what: str) -> QuantType:
        try:
            type = QuantType(number)
        except ValueError:
            type = None
        if type not in FILE_TENSOR_TYPES or type is None:
            name = f" ({type.name})" if type is not None else ""
            raise self.file.bad(
                start, f"{what} has type {number}{name}; GGML models hold types 0 to 3, 6 to 8 and 10 to 14; {AGAIN}"
            )
        if type in _PLAIN or (self.family, self.version) == ("ggjt", 3) or (self.version == 2 and type in _FIVE_BIT):
            return type
        raise UnsupportedFileError(
            f"{self.file.path}: byte {start}: {what} is {type.name} of {self.container}, whose blocks were laid out "
            "differently (llama.cpp changed them in May 2023); quantise the original model again"
        )

    def metadata(self, hyper: Hyper, vocab: Vocab, tensors: dict[str, TensorInfo]) -> dict[str, Any]:
        head_dim = hyper.n_embd // hyper.n_head
        metadata: dict[str, Any] = {
            "general.architecture": "llama",
            "general.name": self.file.path.stem,
            "general.file_type": hyper.file_type,
            "llama.vocab_size": hyper.n_vocab,
            "llama.context_length": CONTEXT_LENGTH,
            "llama.embedding_length": hyper.n_embd,
            "llama.block_count": hyper.n_layer,
            "llama.attention.head_count": hyper.n_head,
            "llama.attention.layer_norm_rms_epsilon": RMS_EPSILON,
            "llama.rope.dimension_count": head_dim,
            "tokenizer.ggml.model": vocab.model,
        }
        if tensors:  # files of a vocabulary alone are in use as well
            n_head_kv = self.heads_kv(hyper, tensors)
            metadata["llama.attention.head_count_kv"] = n_head_kv
            metadata["llama.feed_forward_length"] = self.feed_forward(hyper, n_head_kv, tensors)
        return metadata

    def rows(self, tensors: dict[str, TensorInfo], name: str, ggml_name: str) -> int:
        tensor = tensors.get(name)
        if tensor is None or len(tensor.shape) != 2:
            raise BadFileError(f"{self.file.path}: tensor '{ggml_name}' is missing or no matrix; {AGAIN}")
        return tensor.shape[0]

    def heads_kv(self, hyper: Hyper, tensors: dict[str, TensorInfo]) -> int:
        """Not stored: LLaMA 2 70B shows by the rows of wk that eight query heads share one key head."""
        head_dim = hyper.n_embd // hyper.n_head
        rows = self.rows(tensors, "blk.0.attn_k.weight", "layers.0.attention.wk.weight")
        if rows % head_dim or not 0 < rows // head_dim <= hyper.n_head or hyper.n_head % (rows // head_dim):
            raise BadFileError(
                f"{self.file.path}: tensor 'layers.0.attention.wk.weight': {rows} rows; expected {hyper.n_embd}, "
                f"{hyper.n_head} heads of {head_dim}; {AGAIN}"
            )
        return rows // head_dim

    def feed_forward(self, hyper: Hyper, n_head_kv: int, tensors: dict[str, TensorInfo]) -> int:
        rows = self.rows(tensors, "blk.0.ffn_gate.weight", "layers.0.feed_forward.w1.weight")
        expected = [feed_forward_length(hyper.n_embd, hyper.n_mult)]
        if n_head_kv != hyper.n_head:
            expected.append(feed_forward_length(hyper.n_embd, hyper.n_mult, 1.3))
        if rows not in expected:
            raise BadFileError(
                f"{self.file.path}: tensor 'layers.0.feed_forward.w1.weight': {rows} rows; n_embd {hyper.n_embd} and "
                f"n_mult {hyper.n_mult} make {expected[-1]}; {AGAIN}"
            )
        return rows


def _token_type(index: int, piece: bytes) -> int:
    """GGUF's token type, which GGML does not store; as in llama.cpp's own converter."""
    if index == 0:
        return 2
    if index in (1, 2) or not piece:
        return 3
    return 6 if 3 <= index <= 258 and len(piece) == 1 else 1


def feed_forward_length(n_embd: int, n_mult: int, factor: float = 1.0) -> int:
    """The width of the feed-forward layer, which GGML files do not store (``factor`` is 1.3 for LLaMA 2 70B)."""
    return padded(int(factor * (2 * (4 * n_embd) // 3)), n_mult)
