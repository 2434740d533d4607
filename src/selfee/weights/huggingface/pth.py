"""Reading PyTorch files (.bin, .pth): a zip archive of a pickle that describes tensors and the numbers of each.

Nothing in the file is executed: see ``tensor_pickle.py``. The numbers are used where they lie, mapped into memory.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights import foreign
from selfee.weights.huggingface.stored import StoredTensor, TensorFile
from selfee.weights.huggingface.stored_zip import MAGIC, Member, read_directory
from selfee.weights.huggingface.tensor_pickle import MAX_SIZE, TensorNote, read_tensor_pickle
from selfee.weights.mapped import AGAIN, MappedFile
from selfee.weights.printable import printable

_PICKLE = "data.pkl"
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that begins torch's format before version 1.6
_TAR = (b"ustar", 257)  # and where it stands: torch's format before version 0.1.10


def open_pth(path: str | Path) -> TensorFile:
    """Open a PyTorch file of tensors. Raises BadFileError, UnsupportedFileError for kinds that are not read."""
    file = MappedFile(path)
    try:
        return _read(file)
    except BaseException:
        file.close()
        raise


def is_pth(file: MappedFile) -> bool:
    """Whether a file looks like PyTorch's, new or old."""
    if file.data[:4] == MAGIC:
        return True
    if file.data[8:9] == b"{":  # a safetensors header, of 128 bytes perhaps
        return False
    return file.data[:1] == b"\x80" or file.data[_TAR[1] : _TAR[1] + len(_TAR[0])] == _TAR[0]


def _read(file: MappedFile) -> TensorFile:
    if file.data[:4] != MAGIC:
        raise _not_zip(file)
    members = read_directory(file)
    prefix = _prefix(file, members)
    order = members.get(f"{prefix}byteorder")
    if order is not None and file.data[order.offset : order.offset + min(order.size, 16)] != b"little":
        raise UnsupportedFileError(
            f"{file.path}: was written on a big-endian machine; expected little-endian numbers; save it again on a "
            "usual machine"
        )
    if f"{prefix}constants.pkl" in members:
        raise UnsupportedFileError(
            f"{file.path}: is a TorchScript program; expected a dictionary of tensors; save the model's state dict"
        )
    pickle = members[prefix + _PICKLE]
    if pickle.size > MAX_SIZE:
        raise BadFileError(f"{file.path}: a pickle of {pickle.size} bytes; expected at most {MAX_SIZE}; {AGAIN}")
    notes = read_tensor_pickle(str(file.path), file.data[pickle.offset : pickle.offset + pickle.size])
    tensors = {
        name: _placed(file, name, note, members.get(f"{prefix}data/{note.storage.key}")) for name, note in notes.items()
    }
    return TensorFile(file, tensors, {})


def _not_zip(file: MappedFile) -> BadFileError:
    if error := foreign.lookalike(file):
        return error
    is_tar = file.data[_TAR[1] : _TAR[1] + len(_TAR[0])] == _TAR[0]
    if is_tar or file.data[2 : 2 + len(_LEGACY)] == _LEGACY:
        return UnsupportedFileError(
            f"{file.path}: is in PyTorch's old format (before 1.6); expected a zip archive; load it with torch and "
            "torch.save it again, or use the model's safetensors files"
        )
    if file.data[:1] == b"\x80":
        return UnsupportedFileError(
            f"{file.path}: is a bare pickle; expected PyTorch's zip archive of tensors; do not trust this file"
        )
    return BadFileError(
        f"{file.path}: begins with '{printable(file.data[:4])}'; expected PyTorch's zip archive of tensors; {AGAIN}"
    )


def _prefix(file: MappedFile, members: dict[str, Member]) -> str:
    """The folder inside the archive that everything lies in, with its slash."""
    found = [name for name in members if name.endswith(f"/{_PICKLE}") and name.count("/") == 1]
    if len(found) != 1:
        raise BadFileError(
            f"{file.path}: a zip archive with {len(found)} members named …/{_PICKLE}; expected one, as torch.save "
            "writes it; check that this is a PyTorch model"
        )
    return found[0].removesuffix(_PICKLE)


def _placed(file: MappedFile, name: str, note: TensorNote, member: Member | None) -> StoredTensor:
    where = f"{file.path}: tensor '{printable(name)}'"
    if member is None:
        raise BadFileError(f"{where}: its storage '{printable(note.storage.key)}' is not in the archive; {AGAIN}")
    expected = note.storage.count * (note.storage.dtype.nbytes if note.storage.dtype else 1)
    if member.size != expected:
        raise BadFileError(f"{where}: its storage has {member.size} bytes; expected {expected}; {AGAIN}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise BadFileError(f"{where}: a name that is no text; expected UTF-8; {AGAIN}") from error
    return StoredTensor(
        name,
        note.shape,
        note.dtype,
        file.path,
        member.offset + note.offset * note.dtype.nbytes,
        prod(note.shape) * note.dtype.nbytes,
        None if _is_contiguous(note.shape, note.strides) else note.strides,
    )


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    if prod(shape) == 0:
        return True
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
