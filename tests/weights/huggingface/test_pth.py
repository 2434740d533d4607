"""PyTorch files: tensors are found where they lie, and a pickle that wants to run anything is refused unread."""

from __future__ import annotations

import pickle
import posix
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.weights.huggingface.craft_tensors import (
    PROTO,
    named,
    number,
    numbers,
    program,
    refused,
    state_dict,
    storage,
    tensor,
    text,
    write_pth,
    write_state,
)

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.huggingface.pth import open_pth
from selfee.weights.huggingface.shards import open_tensors
from selfee.weights.huggingface.stored import DType

ONE = tensor([2], [1])


def test_tensors_are_read_where_they_lie(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.arange(4, dtype="<f2"), "c": np.array(3, "<f4")}
    with open_tensors(write_state(tmp_path / "m.bin", arrays)) as opened:
        assert {name: (found.shape, found.dtype.value) for name, found in opened.tensors.items()} == {
            "a": ((2, 3), "F32"),
            "b": ((4,), "F16"),
            "c": ((), "F32"),
        }
        for name, array in arrays.items():
            assert opened.read(name).tobytes() == array.tobytes()
        assert opened.read_rows("a", 1, 2).tobytes() == arrays["a"][1:].tobytes()


def test_views_of_one_storage_are_gathered(tmp_path: Path) -> None:
    whole = np.arange(20, dtype="<f4").reshape(4, 5)
    views = {
        "whole": (tensor([4, 5], [5, 1], count=20), whole),
        "rows": (tensor([2, 5], [5, 1], count=20, offset=5), whole[1:3]),
        "transposed": (tensor([5, 4], [1, 5], count=20), whole.T),
        "columns": (tensor([4, 2], [5, 1], count=20, offset=1), whole[:, 1:3]),
        "empty": (tensor([0, 5], [1, 1], count=20), whole[:0]),
    }
    path = write_pth(
        tmp_path / "m.pth", state_dict({name: made for name, (made, _) in views.items()}), {"0": whole.tobytes()}
    )
    with open_tensors(path) as opened:
        for name, (_, array) in views.items():
            assert opened.read(name).tobytes() == array.tobytes()
            assert opened.read_rows(name, 0, len(array) // 2).tobytes() == array[: len(array) // 2].tobytes()
            opened.release(name)


def test_parameters_metadata_and_other_protocols_are_understood(tmp_path: Path) -> None:
    hooks = named("collections", "OrderedDict") + b")R"
    parameter = named("torch._utils", "_rebuild_parameter") + b"(" + ONE + b"\x88" + hooks + b"tR"
    version = hooks + b"(" + text("") + b"}" + text("version") + b"K\x01su"
    data = PROTO + hooks + b"q\x00(" + text("w") + parameter + b"u}" + text("_metadata") + version + b"sb."
    with open_pth(write_pth(tmp_path / "m.bin", data, version=b"3", byteorder=b"little")) as opened:
        assert opened.tensors["w"].shape == (2,)


def test_newer_types_come_over_plain_bytes(tmp_path: Path) -> None:
    bytes_of = (
        b"(" + text("storage") + named("torch.storage", "UntypedStorage") + text("0") + text("cpu") + number(8) + b"tQ"
    )
    made = named("torch._utils", "_rebuild_tensor_v3") + b"(" + bytes_of + number(2) + numbers([2]) + numbers([1])
    made += b"\x89" + named("collections", "OrderedDict") + b")R" + named("torch", "uint16") + b"tR"
    with open_pth(write_pth(tmp_path / "m.bin", program(made), {"0": bytes(range(8))})) as opened:
        assert opened.tensors["w"].dtype is DType.U16
        assert opened.read("w").tobytes() == bytes([4, 5, 6, 7])


class Calls:
    """Whatever Python's own pickle would run on loading."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


class Plain:
    """An object without a __reduce__ of its own: protocol 2 makes NEWOBJ of it."""

    def __init__(self) -> None:
        self.x = 1


def test_nothing_a_pickle_names_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    command = f"touch {mark}"
    commands = [
        Calls(posix.system, command),
        Calls(eval, f"open({str(mark)!r}, 'w')"),
        Calls(exec, f"open({str(mark)!r}, 'w')"),
        Calls(Path.touch, mark),
    ]
    for index, call in enumerate(commands):
        for protocol in range(5):
            path = write_pth(tmp_path / f"{index}.{protocol}.bin", pickle.dumps({"w": call}, protocol))
            with pytest.raises(BadFileError, match=r"the pickle (wants to run|uses the instruction)"):
                open_pth(path)
    assert not mark.exists()


# What runs code, and by which instruction -> the line that refuses it.
EVIL: dict[str, tuple[bytes, str]] = {
    "os.system by GLOBAL": (
        named("os", "system") + b"(" + text("id") + b"tR",
        "wants to run os.system; expected tensors",
    ),
    "posix.system by GLOBAL": (named("posix", "system") + b"(" + text("id") + b"tR", "wants to run posix.system"),
    "eval by STACK_GLOBAL": (
        text("builtins") + text("eval") + b"\x93(" + text("1") + b"tR",
        "wants to run builtins.eval",
    ),
    "attribute path by STACK_GLOBAL": (
        text("torch._utils") + text("os.system") + b"\x93",
        "run torch._utils.os.system",
    ),
    "STACK_GLOBAL of numbers": (b"K\x01K\x02\x93", "names a function by something that is no text"),
    "eval by INST": (b"(" + text("1") + b"ibuiltins\neval\n", "wants to run builtins.eval"),
    "allowed name by INST": (b"(icollections\nOrderedDict\n", "uses the instruction INST"),
    "OBJ": (b"(" + named("builtins", "eval") + text("1") + b"o", "wants to run builtins.eval"),
    "OBJ of an allowed name": (b"(" + named("collections", "OrderedDict") + b"o", "uses the instruction OBJ"),
    "NEWOBJ": (named("collections", "OrderedDict") + b")\x81", "uses the instruction NEWOBJ"),
    "NEWOBJ_EX": (named("collections", "OrderedDict") + b")}\x92", "uses the instruction NEWOBJ_EX"),
    "EXT1": (b"\x82\x01", "uses the instruction EXT1 1"),
    "EXT2": (b"\x83\x01\x00", "uses the instruction EXT2 1"),
    "EXT4": (b"\x84\x01\x00\x00\x00", "uses the instruction EXT4 1"),
    "BUILD of a tensor": (ONE + b"}" + text("x") + b"K\x01sb", "changes the inside of a tensor"),
    "BUILD of an allowed function": (
        named("torch._utils", "_rebuild_tensor_v2") + b"}" + text("__code__") + b"K\x01sb",
        "changes the inside of the name torch._utils._rebuild_tensor_v2",
    ),
    "REDUCE of a text": (text("os.system") + b")R", "calls a text"),
    "REDUCE with a list": (named("collections", "OrderedDict") + b"]R", "calls the name collections.OrderedDict"),
    "OrderedDict with arguments": (
        named("collections", "OrderedDict") + b"]\x85R",
        "calls collections.OrderedDict with",
    ),
    "parameter of a number": (
        named("torch._utils", "_rebuild_parameter") + b"K\x01\x85R",
        "with arguments of another kind",
    ),
    "storage class called": (named("torch", "FloatStorage") + b"K\x7f\x85R", "calls torch.FloatStorage with arguments"),
    "torch.load inside": (
        named("torch.serialization", "load") + b"(" + text("x") + b"tR",
        "run torch.serialization.load",
    ),
    "numpy array": (
        named("numpy.core.multiarray", "_reconstruct") + b")R",
        "wants to run numpy.core.multiarray._recon",
    ),
    "name with an escape sequence": (named("\x1b[2J", "x"), r"wants to run \\x1b\[2J.x"),
    "persistent id by text": (b"Pstorage\n", "uses the instruction PERSID storage"),
    "persistent id that is a number": (b"K\x01Q", "refers to something that is no storage"),
    "storage of an unknown class": (
        b"(" + text("storage") + named("collections", "OrderedDict") + text("0") + text("cpu") + b"K\x02tQ",
        "refers to something that is no storage",
    ),
    "storage of -1 numbers": (storage("FloatStorage", "0", -1), "refers to something that is no storage"),
    "set": (b"\x8f", "uses the instruction EMPTY_SET"),
    "bytes": (b"C\x01a", "uses the instruction SHORT_BINBYTES"),
    "a billion laughs": (
        b"]" + b"".join(b"q%c](h%ch%ce" % ((index,) * 3) for index in range(60)),
        "is a value of type list",
    ),
    "nested a hundred thousand deep": (b")" + b"\x85" * 100_000, "is a value of type tuple"),
    "deep key": (b"}" + b")" + b"\x85" * 100_000 + b"K\x01s", "has a key that is a value of type tuple"),
    "memo index 2^32-1": (b"K\x01r\xff\xff\xff\xff", "entry 'w' is a value of type int"),
    "memo never kept": (b"h\x07", "asks for value 7, which it never kept"),
    "text of 2^63 bytes": (b"\x8d" + struct.pack("<Q", 1 << 63), "is damaged"),
    "text longer than the pickle": (b"X\xff\xff\xff\x7fab", "is damaged"),
    "integer of a million digits": (b"L" + b"9" * 1_000_000 + b"L\n", "is damaged"),
    "unknown instruction": (b"\xff", "is damaged"),
    "empty stack": (b"R", "takes more from its stack"),
    "mark taken": (b"(K\x01R", "takes more from its stack"),
    "no mark": (b"t" * 9, "takes more from its stack"),
    "entry of a number": (b"K\x01K\x02K\x03s", "sets an entry of a value of type int"),
    "append to a text": (text("a") + b"K\x01a", "appends to a text"),
    "key without value": (b"}(" + text("a") + b"u", "has a key without a value"),
    "tensor beyond its storage": (
        tensor([3], [1], count=2),
        r"shape \(3,\), strides \(1,\) at 0 of a storage of 2 numbers",
    ),
    "tensor that begins outside": (tensor([2], [1], count=2, offset=1), "at 1 of a storage of 2 numbers"),
    "tensor blown up by strides of 0": (tensor([1 << 20, 1 << 19], [0, 0], count=2), "of a storage of 2 numbers"),
    "negative stride": (tensor([2], [-1], count=2), "something else than whole numbers"),
    "negative offset": (tensor([2], [1], count=2, offset=-1), "something else than whole numbers"),
    "more strides than sizes": (tensor([2], [1, 1], count=2), r"shape \(2,\) and strides \(1, 1\)"),
    "sizes whose product wraps": (tensor([1 << 30] * 3, [1] * 3, count=2), "has a tensor of shape"),
    "storage that is not there": (tensor([2], [1], key="7"), "tensor 'w': its storage '7' is not in the archive"),
    "storage outside the archive": (
        tensor([2], [1], key="../../etc/passwd"),
        "'../../etc/passwd' is not in the archive",
    ),
    "storage of another size": (tensor([2], [1], count=3), "its storage has 8 bytes; expected 12"),
    "storage of 2^62 numbers": (
        tensor([2], [1], count=1 << 62),
        "its storage has 8 bytes; expected 18446744073709551616",
    ),
    "number among the tensors": (
        b"K\x07",
        "entry 'w' is a value of type int; expected a dictionary of tensors by name",
    ),
    "dictionary among the tensors": (b"}", "entry 'w' is a dictionary"),
}


@pytest.mark.parametrize("name", EVIL)
def test_what_is_no_description_of_tensors_is_refused(name: str, tmp_path: Path) -> None:
    instructions, message = EVIL[name]
    refused(write_pth(tmp_path / "m.bin", program(instructions)), message)


def test_a_pickle_that_is_no_dictionary_is_refused(tmp_path: Path) -> None:
    refused(
        write_pth(tmp_path / "m.bin", PROTO + b"]."), "holds a value of type list; expected a dictionary of tensors"
    )
    refused(write_pth(tmp_path / "n.bin", PROTO + b"}"), "is damaged|ends too early")
    refused(write_pth(tmp_path / "o.bin", PROTO + b"}K\x01" + ONE + b"s."), "entry '1' is a tensor; expected")
    refused(write_pth(tmp_path / "p.bin", b""), "is damaged|ends too early")


def test_too_many_instructions_are_refused(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "m.bin", program(b"N" * (1 << 21)))
    with pytest.raises(BadFileError, match="more than 2097152 instructions"):
        open_pth(path)


def test_pythons_own_ordered_dictionaries_are_understood(tmp_path: Path) -> None:
    path = write_pth(tmp_path / "m.bin", pickle.dumps(OrderedDict(), 2))
    assert dict(open_pth(path).tensors) == {}


def sound(tmp_path: Path) -> bytes:
    return write_pth(tmp_path / "sound", program(ONE)).read_bytes()


def central(data: bytes, field: int, layout: str, value: int, member: int = 0) -> bytes:
    """The archive with one field of a member changed in its directory."""
    at = -1
    for _ in range(member + 1):
        at = data.index(b"PK\x01\x02", at + 1)
    changed = bytearray(data)
    struct.pack_into(layout, changed, at + field, value)
    return bytes(changed)


def test_damaged_archives_are_one_clear_line(tmp_path: Path) -> None:
    good = sound(tmp_path)
    end = good.rindex(b"PK\x05\x06")
    cases = [
        (good[:-30], "no directory at its end"),
        (good[:end] + good[end:].replace(b"\x02\x00\x02\x00", b"\xf0\xff\xf0\xff"), "a directory of 65520 members"),
        (central(good, 10, "<H", 8), r"member 'archive/data.pkl' is compressed \(method 8\)"),
        (central(good, 8, "<H", 1), "is encrypted"),
        (central(good, 24, "<I", 1 << 30), "of 1073741824 bytes in"),
        (central(good, 42, "<I", 1 << 30), "of .* bytes at byte 1073741824; expected it inside the file"),
        (central(good, 42, "<I", 0, member=1), "at byte 0; expected it inside"),
        (central(good, 20, "<I", 0xFFFFFFFF), "without its 64-bit size"),
        (central(good, 28, "<H", 60_000), "member 0 damaged in the directory"),
        (good[:end] + good[end:].replace(b"\x00\x00\x00\x00\x02", b"\x01\x00\x00\x00\x02", 1), "several disks"),
    ]
    for content, message in cases:
        path = tmp_path / "m.bin"
        path.write_bytes(content)
        refused(path, message)


def test_a_zip_bomb_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", program(ONE))
        archive.writestr("archive/data/0", bytes(50_000_000))
    refused(path, "is compressed", error=UnsupportedFileError)


def test_archives_of_another_kind_are_named(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"byteorder": b"big"}, "was written on a big-endian machine"),
        ({"constants.pkl": b""}, "is a TorchScript program"),
        ({"prefix": "a/b"}, "0 members named …/data.pkl; expected one"),
    ]
    for more, message in cases:
        path = write_pth(tmp_path / "m.bin", program(ONE), None, **more)
        refused(path, message)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program(ONE))
        archive.writestr("b/data.pkl", program(ONE))
    path.write_bytes(path.read_bytes().replace(b"b/data.pkl", b"a/data.pkl"))
    refused(path, "member 'a/data.pkl' comes twice")


def test_old_formats_are_named(tmp_path: Path) -> None:
    cases = [
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "old format"),
        (bytes(1) + b"x" * 256 + b"ustar" + bytes(300), "old format"),
        (pickle.dumps(Plain(), 2), "is a bare pickle"),
    ]
    for content, message in cases:
        path = tmp_path / "m.pth"
        path.write_bytes(content)
        refused(path, message, error=UnsupportedFileError)


def test_files_of_torch_itself_are_read(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch", reason="torch is not installed")
    state = {
        "f": torch.randn(5, 7),
        "h": torch.randn(4).half(),
        "b": torch.randn(3, 2).bfloat16(),
        "t": torch.randn(6, 4).t(),
        "s": torch.randn(10, 10)[2:5, 3:4],
        "e": torch.zeros(0, 4),
        "p": torch.nn.Parameter(torch.randn(2, 2)),
        "q": torch.randn(4).to(torch.float8_e4m3fn),
    }
    torch.save(state, tmp_path / "m.bin")
    with open_tensors(tmp_path / "m.bin") as opened:
        for name, value in state.items():
            expected = (
                value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
            )
            assert opened.read(name).tobytes() == expected
    torch.save(torch.nn.Linear(3, 4), tmp_path / "module.bin")
    refused(tmp_path / "module.bin", "wants to run torch.nn.modules.linear.Linear")
