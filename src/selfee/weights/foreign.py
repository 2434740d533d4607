"""What a file is that is not a model selfee reads: downloads go wrong in familiar ways."""

from __future__ import annotations

import re

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.mapped import MappedFile
from selfee.weights.printable import printable

_EXPECTED = "expected a GGUF or GGML model"

# Beginning of the file -> (what it is, what to do). Sound files of another kind.
_KINDS: list[tuple[bytes, str, str]] = [
    (b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint", "name the model's folder, or use a .gguf file"),
    (b"algg", "a GGML LoRA adapter (ggla)", "name the base model instead"),
    (b"nsgg", "a saved llama.cpp session (ggsn)", "name the model itself"),
    (b"ggjt", "a big-endian GGML file", "convert it on a little-endian machine"),
    (b"ggmf", "a big-endian GGML file", "convert it on a little-endian machine"),
    (b"ggml", "a big-endian GGML file", "convert it on a little-endian machine"),
    (b"FUGG", "a GGUF file with swapped bytes", "convert it on a little-endian machine"),
    (b"\x80\x02", "a pickled PyTorch checkpoint", "name the model's folder, or use a .gguf file"),
    (b"\x89HDF", "an HDF5 file", "use a .gguf file of the same model"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it first"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
]
_WEB_PAGE = re.compile(rb"\s*(<!doctype html|<html|<\?xml|<head)", re.IGNORECASE)


def explain(file: MappedFile) -> BadFileError:
    """The error for a file whose first bytes are neither GGUF's nor GGML's."""
    start = file.data[:512]
    for magic, kind, advice in _KINDS:
        if start.startswith(magic):
            return UnsupportedFileError(f"{file.path}: is {kind}; {_EXPECTED}; {advice}")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= file.size - 8:
        advice = "name the folder that it lies in, with its config.json, or use a .gguf file of the same model"
        return UnsupportedFileError(f"{file.path}: is a safetensors file; {_EXPECTED}; {advice}")
    if error := lookalike(file):
        return error
    if start.lstrip()[:1] in (b"{", b"["):
        return BadFileError(f"{file.path}: is JSON text; {_EXPECTED}; name the model file itself")
    return BadFileError(f"{file.path}: begins with '{printable(start[:4])}'; {_EXPECTED}; check the path")


def lookalike(file: MappedFile) -> BadFileError | None:
    """The error for what stands in a model's place after a download went wrong; None for anything else."""
    start = file.data[:512]
    if start.startswith(b"version https://git-lfs"):
        return BadFileError(f"{file.path}: is a git-lfs pointer, not the model itself; run: git lfs pull")
    if _WEB_PAGE.match(start):
        return BadFileError(f"{file.path}: is a web page, perhaps an error page saved as a model; download it again")
    if not start.strip(b"\0"):
        return BadFileError(f"{file.path}: begins with zeros; the download is incomplete; fetch it again")
    return None
