"""A model ready to compute: mapped weights bound to the native forward pass, and conversations on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, ContextOverflowError, ResourceError, SelfeeError, UsageError
from selfee.llama.cells import CacheType, Cells, cell_type, pieces_of
from selfee.llama.config import LlamaConfig
from selfee.llama.fingerprint import fingerprint_of
from selfee.llama.importance import InputSquares
from selfee.llama.memory import cache_bytes
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.open import open_checkpoint
from selfee.weights.quantize import dequantize, isa, native

if TYPE_CHECKING:
    from selfee import _native as native_types

_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def physical_cores() -> int:
    """Cores that this process may run on; two hardware threads of one core count once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings: set[str] = set()
    for cpu in allowed:
        listed = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        name = f"cpu {cpu}"
        with suppress(OSError):
            name = listed.read_text(encoding="ascii", errors="replace")
        siblings.add(name)
    return max(1, len(siblings))


class Model:
    """Weights and their forward pass. One model serves any number of sessions, one computation at a time."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        context_length: int,
        threads: int,
        packed: bool,
        owned: bool,
        cache_type: CacheType,
    ) -> None:
        """Use ``Model.load``."""
        self.config = LlamaConfig.from_checkpoint(checkpoint)
        self.cell_type = cell_type(cache_type, self.config)
        self.cache_type: CacheType = cache_type
        self.checkpoint = checkpoint
        self.context_length = context_length or self.config.context_length
        self.threads = threads
        self._owned, self._packed = owned, packed
        self._fingerprint: bytes | None = None
        self._native: native_types.Model | None = _bind(checkpoint, self.config, threads)
        _ready(self._native, checkpoint, self.config, packed)

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint | str | Path,
        *,
        context_length: int | None = None,
        threads: int | None = None,
        packed: bool = False,
        cache_type: CacheType = "f16",
    ) -> Model:
        """Bind a model file, or one already open, to the forward pass; weights stay mapped and are not copied.

        ``context_length``: tokens a session can hold (None: what the file says). ``threads``: None is the number of
        physical cores; any number gives the same results. ``packed`` copies quantised matrices into a layout that is
        faster, with the same results, for one pass over the file; the pages of the file are given back as it goes, so
        that memory holds the weights once. ``cache_type``: what sessions store keys and values as; "q8_0" takes about
        half the memory, rounds them to 8 bits and so changes logits a little, and wants heads of a multiple of 32
        values. Raises BadFileError, UnsupportedFileError, UsageError, ResourceError.
        """
        if context_length is not None and not 0 < context_length < 1 << 31:
            raise UsageError(f"context_length: {context_length}; expected 1 or more tokens")
        if threads is not None and not 1 <= threads <= 1024:
            raise UsageError(f"threads: {threads}; expected 1 to 1024, or None for one per core")
        owned = isinstance(checkpoint, str | Path)
        opened = open_checkpoint(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
        try:
            return cls(opened, context_length or 0, threads or physical_cores(), packed, owned, cache_type)
        except BaseException:
            if owned:
                opened.close()
            raise

    def fingerprint(self, remembered: Path | None = None) -> bytes:
        """Which model this is, 32 bytes: whose caches have the same meaning. Computed once; see ``fingerprint_of``."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint_of(
                self.checkpoint, self.config, threads=self.threads, release=self._packed, remembered=remembered
            )
        return self._fingerprint

    def new_session(self) -> Session:
        """An empty conversation. Raises ResourceError if its cache does not fit into the address space."""
        if self._native is None:
            raise UsageError(f"{self.checkpoint.path}: the model is closed; expected an open one; load it again")
        return Session(self, self._native)

    def forward_many(self, parts: Sequence[tuple[Session, Sequence[int], int]]) -> list[npt.NDArray[np.float32]]:
        """Evaluate tokens in several sessions in one pass over the weights; raw logits [rows, vocabulary] of each part.

        A part is (session, tokens, of how many of its last tokens logits are wanted). Each session gets the bits that
        ``Session.forward`` alone would give it. The arrays are views of one; copy what is to be kept for long. Raises
        what ``Session.forward`` raises, and UsageError for no parts, a session that comes twice or is of another model;
        then, and when interrupted, no session has changed.
        """
        sessions = [session for session, _, _ in parts]
        self._check_sessions(sessions)
        entered: list[tuple[Session, int]] = []
        try:
            checked = []
            for index, (session, tokens, rows) in enumerate(parts):
                session._enter()
                entered.append((session, session.length))
                where = f"parts[{index}]: "
                ids = session._checked(tokens, where)
                checked.append((session._native, ids, _rows_wanted(rows, ids.size, where)))
            self.checkpoint.verify_unchanged()
            logits = native().forward_many(checked)
            return np.split(logits, np.cumsum([rows for _, _, rows in checked])[:-1])
        except BaseException as error:
            # A signal that comes during a short pass is heard when the pass is over.
            for session, length in entered:
                session._native.truncate(length)
            if not isinstance(error, MemoryError):
                raise
            raise self._out_of_memory(sum(len(tokens) for _, tokens, _ in parts)) from error
        finally:
            for session, _ in entered:
                session._busy.release()

    def _check_sessions(self, sessions: Sequence[Session]) -> None:
        if not sessions:
            raise UsageError("forward_many: no parts; expected at least one")
        first: dict[int, int] = {}
        for index, session in enumerate(sessions):
            if session._model is not self:
                found = f"parts[{index}]: a session of {session._model.checkpoint.path}; expected one of this model"
                raise UsageError(f"{found}, {self.checkpoint.path}; call forward_many of each model")
            if first.setdefault(id(session), index) != index:
                found = f"parts[{index}]: the session of parts[{first[id(session)]}]"
                raise UsageError(f"{found}; expected each session once; join its tokens")

    def _out_of_memory(self, count: int) -> ResourceError:
        return ResourceError(
            f"{self.checkpoint.path}: not enough memory to evaluate {count} tokens; close other programs or choose a "
            "smaller context_length"
        )

    def close(self) -> None:
        """Let go of the weights; sessions still in use keep them until they are gone too."""
        self._native = None
        if self._owned:
            self.checkpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Session:
    """One conversation: a cache of keys and values on one model, empty at first.

    Its memory grows with the number of tokens evaluated, up to ``cache_bytes`` of the model's context and cache type.
    """

    def __init__(self, model: Model, native_model: native_types.Model) -> None:
        """Use ``Model.new_session``."""
        self.model = self._model = model
        self._busy = threading.Lock()
        self._copied = threading.RLock()  # held while another copies from this one: that is short, so others wait
        try:
            self._native: native_types.Session = native().Session(
                native_model, model.context_length, int(model.cell_type)
            )
        except MemoryError as error:
            need = cache_bytes(model.config, model.context_length, model.cache_type) / (1 << 30)
            raise ResourceError(
                f"{model.checkpoint.path}: the cache for {model.context_length} tokens needs {need:.1f} GiB, more than "
                "there is; choose a smaller context_length"
            ) from error

    @property
    def length(self) -> int:
        """Tokens evaluated."""
        return self._native.length

    @property
    def context_length(self) -> int:
        """Tokens that fit."""
        return self._native.capacity

    def truncate(self, length: int, *, give_back: bool = False) -> None:
        """Keep the first ``length`` tokens. Raises UsageError if there are fewer.

        Memory stays for the tokens to come, unless ``give_back``: then the system gets what the kept ones do not need.
        """
        with self._alone():
            if not 0 <= length <= self.length:
                raise UsageError(f"truncate: {length} tokens to be kept of {self.length}; expected 0 to {self.length}")
            self._native.truncate(length, give_back)

    def copy_from(self, other: Session, length: int) -> None:
        """Hold the first ``length`` tokens of another session of this model, as if they had been evaluated here.

        What this session held is gone. Who wants to use the other one meanwhile waits. Raises UsageError for a session
        of another model, for fewer tokens there, and while another thread uses either; then nothing has changed.
        """
        if other is self:
            self.truncate(length)
            return
        if other._model is not self._model:
            raise UsageError(
                f"copy_from: a session of {other._model.checkpoint.path}; expected one of the same model, "
                f"{self._model.checkpoint.path}, since caches of two models mean different things"
            )
        with self._alone(), other._copied:
            if other._busy.locked():
                raise other._in_use()
            if not 0 <= length <= other.length:
                raise UsageError(f"copy_from: {length} tokens of {other.length}; expected 0 to {other.length}")
            self._native.copy_from(other._native, length)

    def forward(
        self,
        tokens: Sequence[int],
        logits_for: Literal["last", "all", "none"] | int = "last",
        *,
        squares: InputSquares | None = None,
    ) -> npt.NDArray[np.float32]:
        """Evaluate tokens after those held; raw logits [1, len(tokens), 0 or the number given, vocabulary].

        ``logits_for`` may also be the number of last tokens whose logits are wanted. The squares of what each matrix
        was multiplied with are added to ``squares``. The bits of a token's logits depend on the tokens up to it, never
        on how they were divided into calls. Raises ContextOverflowError (nothing is computed then), UsageError for no
        tokens, one that does not exist or more rows than tokens, and while another thread evaluates tokens in this
        session.
        """
        self._enter()  # and not _alone(): a context manager costs as much as a small layer
        try:
            return self._forward(tokens, logits_for, squares)
        finally:
            self._busy.release()

    def read_cells(self, count: int) -> Iterator[Cells]:
        """What the cache holds of the first ``count`` tokens, in pieces: see ``selfee.llama.cells``.

        The session is in use until the iterator ends or is closed. Raises UsageError if fewer tokens are held.
        """
        with self._alone():
            if not 0 <= count <= self.length:
                raise UsageError(f"read_cells: {count} tokens; expected 0 to {self.length}, which is what is held")
            for layer, first, shape in pieces_of(self._model.config, count, self._model.cache_type):
                cells: Cells = np.empty(shape, np.uint16)
                self._native.read_cells(layer, first, first + shape[2], cells)
                yield cells

    def write_cells(self, count: int, fill: Callable[[Cells], None]) -> None:
        """Make an empty session hold ``count`` tokens; ``fill`` is given each piece to fill, as ``read_cells`` gave it.

        Whatever ``fill`` raises leaves the session empty. Raises UsageError for one that holds tokens or has no room.
        """
        with self._alone():
            if self.length or not 0 <= count <= self.context_length:
                found = f"write_cells: {count} tokens for a session that holds {self.length} of {self.context_length}"
                raise UsageError(f"{found}; expected an empty one with room for them")
            for layer, first, shape in pieces_of(self._model.config, count, self._model.cache_type):
                cells: Cells = np.zeros(shape, np.uint16)
                fill(cells)
                self._native.write_cells(layer, first, first + shape[2], cells)
            self._native.hold(count)

    def _enter(self) -> None:
        with self._copied:
            if not self._busy.acquire(blocking=False):
                raise self._in_use()

    def _in_use(self) -> UsageError:
        found = f"{self._model.checkpoint.path}: this session is in use by another thread"
        return UsageError(f"{found}; expected one thread at a time; give each its own (Model.new_session)")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._enter()
        try:
            yield
        finally:
            self._busy.release()

    def _forward(
        self, tokens: Sequence[int], logits_for: Literal["last", "all", "none"] | int, squares: InputSquares | None
    ) -> npt.NDArray[np.float32]:
        ids = self._checked(tokens)
        rows = _rows_wanted(logits_for, ids.size)
        self._model.checkpoint.verify_unchanged()
        try:
            return self._native.forward(ids, rows, squares.sums if squares else None)
        except MemoryError as error:
            raise self._model._out_of_memory(ids.size) from error

    def _checked(self, tokens: Sequence[int], where: str = "forward: ") -> npt.NDArray[np.int32]:
        """The tokens, once it is sure that they exist and fit."""
        ids = np.asarray(tokens, dtype=np.int64)
        vocabulary, room = self._model.config.vocabulary, self.context_length - self.length
        if ids.ndim != 1 or ids.size == 0:
            raise UsageError(f"{where}no tokens; expected at least one")
        if ids.size > room:
            raise ContextOverflowError(
                f"{self._model.checkpoint.path}: {where}{ids.size} tokens to evaluate; room for {room} after the "
                f"{self.length} held; shorten the text or use a context_length above {self.context_length}"
            )
        wrong = ids[(ids < 0) | (ids >= vocabulary)]
        if wrong.size:
            raise UsageError(f"{where}token {int(wrong[0])} does not exist; expected 0 to {vocabulary - 1}")
        return ids.astype(np.int32)


def _rows_wanted(logits_for: Literal["last", "all", "none"] | int, count: int, where: str = "forward: ") -> int:
    rows = {"last": 1, "all": count, "none": 0}[logits_for] if isinstance(logits_for, str) else int(logits_for)
    if not 0 <= rows <= count:
        raise UsageError(f"{where}logits of {rows} tokens wanted, {count} to evaluate; expected 0 to {count}")
    return rows


def _ready(model: native_types.Model, checkpoint: Checkpoint, config: LlamaConfig, packed: bool) -> None:
    """Ready weights layer by layer, and let the system take back the pages of those that were copied."""
    head = "output.weight" if "output.weight" in checkpoint.tensors else "token_embd.weight"
    try:
        for index in range(config.layers + 1):
            names = [f"blk.{index}.{part}.weight" for part in _MATRICES] if index < config.layers else [head]
            for name, is_copied in zip(names, model.ready(index, packed), strict=True):
                if is_copied:
                    checkpoint.release(name)
    except MemoryError as error:
        raise ResourceError(
            f"{checkpoint.path}: not enough memory for a packed copy of the weights; load the model without it"
        ) from error


def _bind(checkpoint: Checkpoint, config: LlamaConfig, threads: int) -> native_types.Model:
    isa()  # a wrong SELFEE_ISA is the user's mistake, not the file's
    tensors: dict[str, object] = {}
    for name, tensor in checkpoint.tensors.items():
        blocks = checkpoint.read(name)
        small = len(tensor.shape) == 1  # norms and biases: a few kilobytes, computed with in float32
        tensors[name] = dequantize(tensor.type, blocks) if small else (int(tensor.type), blocks)
    try:
        model: native_types.Model = native().Model(
            layers=config.layers,
            width=config.width,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            hidden=config.hidden,
            vocabulary=config.vocabulary,
            norm_epsilon=config.norm_epsilon,
            rope_halves=config.rope_halves,
            rope_frequencies=list(config.rope_frequencies),
            tensors=tensors,
            threads=threads,
        )
    except (AttributeError, TypeError) as error:
        raise SelfeeError(
            "selfee._native: the compiled kernels do not fit the Python files; expected both from the same sources; "
            "run `make setup` in a checkout, or install selfee again with pip"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise BadFileError(
            f"{checkpoint.path}: tensors do not fit the configuration: {error}; the file is damaged; fetch it again"
        ) from error
    return model
