"""GPTQ is handed over: a kept library quantises a Hugging Face folder, selfee starts it and puts the result in place.

The library is GPTQModel (the extra ``gptq``; it brings PyTorch and Transformers). It runs in a process of its own, this
module: its log stays out of our output, its memory is given back, and it may ask no hub for anything.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from selfee.errors import BadFileError, MissingExtraError, ResourceError, UsageError
from selfee.weights.folders import replacing_folder
from selfee.weights.printable import printable

BITS = (2, 3, 4, 8)
GROUP_SIZES = (32, 64, 128, 256, -1)
"""Values that share a scale; -1 = a whole row."""

_LIBRARY = "gptqmodel"
_PIECE = 2048  # characters of a piece of calibration text
_MOST_PIECES = 256
_FEWEST_PIECES = 8
_KEPT = 8  # lines of the library's log that an error shows
_SETTINGS = (
    "HF_HUB_OFFLINE=1",  # everything it needs is in the folder
    "GPTQMODEL_CPU_WORKERS=2",  # with one, its pools do not start: machines with two processors
)

OnLine = Callable[[str], None]


def export_gptq(
    source: str | Path,
    out: str | Path,
    *,
    calibration: str | Path,
    bits: int = 4,
    group_size: int = 128,
    force: bool = False,
    on_line: OnLine | None = None,
) -> None:
    """Quantise the Hugging Face folder ``source`` (safetensors) with GPTQ into the new folder ``out``.

    ``calibration`` is a UTF-8 text like those the model will meet: its layers are fitted on it. ``bits`` is one of
    ``BITS``, ``group_size`` one of ``GROUP_SIZES``; ``on_line`` hears the library's log. The folder appears complete or
    not at all. Raises MissingExtraError without the library, UsageError and BadFileError for what does not fit,
    ResourceError where the library gives up.
    """
    source, out = Path(source), Path(out)
    if bits not in BITS:
        raise UsageError(f"GPTQ with {bits} bits: expected one of {', '.join(map(str, BITS))}")
    if group_size not in GROUP_SIZES:
        raise UsageError(f"GPTQ with groups of {group_size}: expected one of {', '.join(map(str, GROUP_SIZES))}")
    _require_folder(source)
    calibration_pieces(Path(calibration))
    if find_spec(_LIBRARY) is None:
        raise MissingExtraError(
            f"{_LIBRARY}: is not installed; GPTQ needs it; install it with: pip install 'selfee[gptq]'"
        )
    with replacing_folder(out, force=force) as part:
        words = [str(part.absolute()), str(source.absolute()), str(Path(calibration).absolute())]
        _run([*words, str(bits), str(group_size)], source, on_line)
        if not any(part.glob("*.safetensors")):
            raise ResourceError(f"{source}: GPTQ wrote no weights; expected safetensors files; see its log")


def _require_folder(source: Path) -> None:
    if source.is_file():
        raise UsageError(
            f"{source}: is a file; GPTQ is made from a Hugging Face folder; make one first with: selfee convert"
        )
    if not (source / "config.json").is_file():
        raise BadFileError(f"{source}: holds no config.json; expected a Hugging Face folder; check the path")
    if not any(source.glob("*.safetensors")):
        # .bin files are pickles: the library would run what is in them.
        raise BadFileError(
            f"{source}: holds no safetensors file; expected the weights in that form; convert it first with: selfee "
            "convert"
        )


def calibration_pieces(path: Path) -> list[str]:
    """The text cut into pieces of some 500 tokens, at most 256 from all over it.

    Raises UsageError for a file that is no text or too short to fit anything on.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such file; GPTQ needs a text to be fitted on; check the path") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); expected a text") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start}: is no UTF-8; expected a text in that form") from error
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    pieces = [piece for piece in pieces if len("".join(piece.split())) >= _PIECE // 2]
    if len(pieces) < _FEWEST_PIECES:
        raise UsageError(
            f"{path}: {len(text):,} characters of text; expected {_FEWEST_PIECES * _PIECE:,} or more for GPTQ to be "
            "fitted on; use a longer text"
        )
    step = max(1, -(-len(pieces) // _MOST_PIECES))
    return pieces[::step]


def _run(words: list[str], source: Path, on_line: OnLine | None) -> None:
    """Run the library in a process of its own until it has finished; its log is read line by line."""
    # env(1) sets what the library asks the environment for: only the command line reads ours.
    env = shutil.which("env") or "env"
    # -P: a file of the current folder named like one of our modules is nobody we know.
    command = [env, *_SETTINGS, sys.executable, "-P", "-m", "selfee.weights.huggingface.gptq", *words]
    last: list[str] = []
    with (
        TemporaryDirectory() as folder,  # the library leaves logs where it is started
        subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as child,
    ):
        try:
            assert child.stdout is not None
            for line in _lines(child.stdout):
                last = [*last[1 - _KEPT :], line]
                if on_line is not None:
                    on_line(line)
            child.wait()
        finally:
            child.kill()
    if child.returncode:
        said = printable(" / ".join(last), 600)
        raise ResourceError(f"{source}: GPTQModel ended with exit code {child.returncode}; it said: {said}")


def _lines(stream: Iterable[bytes]) -> Iterable[str]:
    for raw in stream:
        if line := raw.decode("utf-8", errors="replace").rpartition("\r")[2].strip():
            yield line


def main(arguments: list[str]) -> None:
    """Quantise: folder to write, folder to read, text, bits, group size; called by ``export_gptq``."""
    library = import_module(_LIBRARY)
    out, source, text, bits, group_size = arguments
    config = library.QuantizeConfig(bits=int(bits), group_size=int(group_size))
    model = library.GPTQModel.load(source, config, trust_remote_code=False)
    model.quantize(calibration_pieces(Path(text)), batch_size=1)
    model.save(out)


if __name__ == "__main__":
    main(sys.argv[1:])
