"""What a pickle says about tensors, read by a machine that cannot run anything.

A pickle is a program for a small stack machine; Python's own reader calls whatever function the program names. This
one knows the dozen functions that describe a tensor and only notes that they were named: it imports nothing, calls
nothing, and refuses any other name and any instruction that state dicts do not need.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from selfee.errors import BadFileError
from selfee.weights.huggingface.stored import MAX_DIMENSIONS, MAX_ELEMENTS, DType, span
from selfee.weights.printable import printable

MAX_SIZE = 64 << 20  # bytes; a state dict takes 200 for each tensor
_MAX_INSTRUCTIONS = 1 << 21  # a tensor takes some 45
_TENSORS_ONLY = "expected tensors only; do not trust this file; ask for the model as safetensors"

_STORAGES = {
    "DoubleStorage": DType.F64,
    "FloatStorage": DType.F32,
    "HalfStorage": DType.F16,
    "BFloat16Storage": DType.BF16,
    "LongStorage": DType.I64,
    "IntStorage": DType.I32,
    "ShortStorage": DType.I16,
    "CharStorage": DType.I8,
    "ByteStorage": DType.U8,
    "BoolStorage": DType.BOOL,
}
_DTYPES = {
    "float8_e5m2": DType.F8_E5M2,
    "float8_e4m3fn": DType.F8_E4M3,
    "float8_e8m0fnu": DType.F8_E8M0,
    "float8_e4m3fnuz": DType.F8_E4M3FNUZ,
    "float8_e5m2fnuz": DType.F8_E5M2FNUZ,
    "uint16": DType.U16,
    "uint32": DType.U32,
    "uint64": DType.U64,
    "float64": DType.F64,
    "float32": DType.F32,
    "float16": DType.F16,
    "bfloat16": DType.BF16,
    "int64": DType.I64,
    "int32": DType.I32,
    "int16": DType.I16,
    "int8": DType.I8,
    "uint8": DType.U8,
    "bool": DType.BOOL,
}


@dataclass(frozen=True, eq=False)
class StorageNote:
    """The pickle's name for a run of numbers: member ``data/key`` of the archive. ``dtype`` None means plain bytes."""

    dtype: DType | None
    key: str
    count: int  # of numbers


@dataclass(frozen=True, eq=False)
class TensorNote:
    """A tensor as the pickle describes it: ``offset`` and ``strides`` count numbers of the storage."""

    storage: StorageNote
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Global:
    """A function or type the pickle named."""

    name: str


_MARK = object()
_REBUILD = "torch._utils._rebuild_tensor_v2"
_REBUILD_TYPED = "torch._utils._rebuild_tensor_v3"
_PARAMETER = "torch._utils._rebuild_parameter"
_ORDERED = "collections.OrderedDict"
_UNTYPED = "torch.storage.UntypedStorage"
_GLOBALS = {
    name: _Global(name)
    for name in (
        _REBUILD,
        _REBUILD_TYPED,
        _PARAMETER,
        _ORDERED,
        _UNTYPED,
        *(f"torch.{name}" for name in _STORAGES),
        *(f"torch.{name}" for name in _DTYPES),
    )
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "INT", "LONG", "BINFLOAT"}
_VALUES |= {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_tensor_pickle(where: str, data: bytes) -> dict[str, TensorNote]:
    """The tensors a pickled state dict describes, by name. ``where`` begins every error. Raises BadFileError."""
    if len(data) > MAX_SIZE:
        raise BadFileError(f"{where}: a pickle of {len(data)} bytes; expected at most {MAX_SIZE}; {_TENSORS_ONLY}")
    value = _Machine(where).run(data)
    if not isinstance(value, dict):
        raise BadFileError(f"{where}: holds {_kind(value)}; expected a dictionary of tensors; save its state dict")
    tensors: dict[str, TensorNote] = {}
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, TensorNote):
            raise BadFileError(
                f"{where}: entry '{printable(str(name))}' is {_kind(tensor)}; expected a dictionary of tensors by "
                "name; save the model's state dict alone"
            )
        tensors[name] = tensor
    return tensors


class _Machine:
    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.handlers: dict[str, Callable[[Any], None]] = {
            "GLOBAL": lambda arg: self._name(arg.replace(" ", ".", 1)),
            "STACK_GLOBAL": self._stack_global,
            "REDUCE": self._reduce,
            "BUILD": self._build,
            "BINPERSID": self._persistent,
            "MARK": lambda _: self.stack.append(_MARK),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_TUPLE": lambda _: self.stack.append(()),
            "TUPLE": lambda _: self.stack.append(tuple(self._to_mark())),
            "DICT": lambda _: self.stack.append(self._paired(self._to_mark(), {})),
            "LIST": lambda _: self.stack.append(self._to_mark()),
            "SETITEMS": lambda _: self._set(self._to_mark()),
            "SETITEM": lambda _: self._set(self._take(2)),
            "APPENDS": lambda _: self._append(self._to_mark()),
            "APPEND": lambda _: self._append(self._take(1)),
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "MEMOIZE": lambda _: self._put(len(self.memo)),
            "BINGET": self._get,
            "LONG_BINGET": self._get,
            "PROTO": lambda _: None,
            "FRAME": lambda _: None,
        }

    def run(self, data: bytes) -> Any:
        try:
            for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
                if count > _MAX_INSTRUCTIONS:
                    raise self._bad(f"more than {_MAX_INSTRUCTIONS} instructions")
                if opcode.name == "STOP":
                    return self._take(1)[0]
                self._step(opcode.name, arg)
        except (ValueError, IndexError, OverflowError) as error:  # what pickletools says of a damaged pickle
            raise self._bad(f"is damaged ({printable(str(error), 80)})") from error
        raise self._bad("ends too early")

    def _step(self, name: str, arg: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            self.stack.append(arg)
        elif name in _TUPLES:
            self.stack.append(tuple(self._take(_TUPLES[name])))
        elif name in self.handlers:
            self.handlers[name](arg)
        elif name == "INST":
            self._name(arg.replace(" ", ".", 1))
            raise self._bad("uses the instruction INST")
        else:
            raise self._bad(f"uses the instruction {name}{'' if arg is None else ' ' + printable(str(arg), 40)}")

    def _bad(self, found: str) -> BadFileError:
        return BadFileError(f"{self.where}: the pickle {found}; {_TENSORS_ONLY}")

    def _take(self, count: int) -> list[Any]:
        taken = self.stack[-count:]
        if len(taken) != count or any(item is _MARK for item in taken):
            raise self._bad("takes more from its stack than there is")
        del self.stack[-count:]
        return taken

    def _to_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                taken = self.stack[at + 1 :]
                del self.stack[at:]
                return taken
        raise self._bad("takes more from its stack than there is")

    def _put(self, index: int) -> None:
        if not self.stack or self.stack[-1] is _MARK:
            raise self._bad("keeps a value that is not there")
        self.memo[index] = self.stack[-1]

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise self._bad(f"asks for value {index}, which it never kept")
        self.stack.append(self.memo[index])

    def _name(self, name: str) -> None:
        if name not in _GLOBALS:
            raise self._bad(f"wants to run {printable(name)}")
        self.stack.append(_GLOBALS[name])

    def _stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise self._bad("names a function by something that is no text")
        self._name(f"{module}.{name}")

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, dict):
            raise self._bad(f"sets an entry of {_kind(target)}")
        self._paired(items, target)

    def _paired(self, items: list[Any], target: dict[Any, Any]) -> dict[Any, Any]:
        if len(items) % 2:
            raise self._bad("has a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            # Keys of other kinds have hashes that may be made to run forever or too deep.
            if type(key) not in (str, int):
                raise self._bad(f"has a key that is {_kind(key)}")
            target[key] = value
        return target

    def _append(self, items: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, list):
            raise self._bad(f"appends to {_kind(target)}")
        target.extend(items)

    def _build(self, _: Any) -> None:
        target, state = self._take(2)
        if not isinstance(target, dict) or not isinstance(state, dict):  # an ordered dictionary's _metadata: not needed
            raise self._bad(f"changes the inside of {_kind(target)}")
        self.stack.append(target)

    def _persistent(self, _: Any) -> None:
        pid = self._take(1)[0]
        match pid:
            case ("storage", _Global(name=name), str(key), _, int(count)) if count >= 0:
                kind = name.removeprefix("torch.")
                if kind in _STORAGES or name == _UNTYPED:
                    self.stack.append(StorageNote(_STORAGES.get(kind), key, count))
                    return
        raise self._bad("refers to something that is no storage")

    def _reduce(self, _: Any) -> None:
        function, arguments = self._take(2)
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise self._bad(f"calls {_kind(function)}")
        match (function.name, arguments):
            case ("collections.OrderedDict", ()):
                self.stack.append({})
            case ("torch._utils._rebuild_parameter", (TensorNote() as tensor, *_)):
                self.stack.append(tensor)
            case ("torch._utils._rebuild_tensor_v2", (StorageNote(dtype=DType() as dtype), _, _, _, *_)):
                self.stack.append(self._tensor(dtype, *arguments[:4]))
            case ("torch._utils._rebuild_tensor_v3", (StorageNote(), _, _, _, _, _, _Global(name=name), *_)):
                if name.removeprefix("torch.") not in _DTYPES:
                    raise self._bad(f"makes a tensor of {name}")
                self.stack.append(self._tensor(_DTYPES[name.removeprefix("torch.")], *arguments[:4]))
            case _:
                raise self._bad(f"calls {function.name} with arguments of another kind")

    def _tensor(self, dtype: DType, storage: StorageNote, offset: Any, shape: Any, strides: Any) -> TensorNote:
        numbers = [offset, *shape, *strides] if isinstance(shape, tuple) and isinstance(strides, tuple) else [None]
        if any(type(number) is not int or not 0 <= number < 1 << 63 for number in numbers):
            raise self._bad("describes a tensor by something else than whole numbers from 0 on")
        if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS or prod(shape) > MAX_ELEMENTS:
            raise self._bad(
                f"has a tensor of shape {printable(str(shape), 80)} and strides {printable(str(strides), 80)}"
            )
        size = storage.count if storage.dtype else storage.count // dtype.nbytes
        if prod(shape) > size or offset + span(shape, strides) > size:
            raise self._bad(
                f"has a tensor of shape {printable(str(shape), 80)}, strides {printable(str(strides), 80)} at {offset} "
                f"of a storage of {size} numbers"
            )
        return TensorNote(storage, dtype, offset, shape, strides)


def _kind(value: Any) -> str:
    """What a value is, in words; never its content, which may be endless."""
    names = {
        StorageNote: "a storage",
        TensorNote: "a tensor",
        dict: "a dictionary",
        str: "a text",
        type(None): "nothing",
    }
    if isinstance(value, _Global):
        return f"the name {value.name}"
    return names.get(type(value), f"a value of type {type(value).__name__}")
