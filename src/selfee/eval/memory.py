"""How much memory a model really needs: a process of its own loads it, fills a context, and says how large it became.

``measure_memory`` starts that process, which is this module: ``python -m selfee.eval.memory FILE CONTEXT``. It does
what ``selfee ask`` does to a file, the Python interpreter included, so that nothing is left out or guessed.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfee.errors import SelfeeError, UsageError
from selfee.eval.child import ask_child, error_as_json, say
from selfee.weights.disk import human_size

_BATCH = 256  # tokens that go through the layers together (native/forward.h): the scratch memory of a long prompt
_STATUS = Path("/proc/self/status")
_MAPPINGS = Path("/proc/self/smaps")

OnTokens = Callable[[int], None]
"""Told how many more tokens were evaluated."""


@dataclass(frozen=True)
class MemoryUse:
    """Bytes that a process held in memory when it ran a model with a full context.

    ``peak`` is the largest resident size of the process: weights that were used where they are mapped, key/value
    cache, scratch, kernels, the interpreter. The parts are those at the end of the run; None where the system does
    not tell them.
    """

    context: int  # tokens evaluated
    peak: int
    mapped: int | None  # pages of files: the weights, and programs; the system may drop and read them again
    own: int | None  # everything else: cannot be dropped
    weights: int | None  # pages of the model file among ``mapped``
    method: str  # "VmHWM" (Linux) or "ru_maxrss"


def measure_memory(
    path: str | Path, context: int, *, threads: int | None = None, on_tokens: OnTokens | None = None
) -> MemoryUse:
    """Run a model file with a context of ``context`` tokens in another process and return what that took.

    Every token is evaluated, at the speed of reading a prompt. ``on_tokens`` hears of progress. Raises BadFileError or
    UnsupportedFileError for a file that cannot be run, ResourceError where the memory is not there.
    """
    if context < 1:
        raise UsageError(f"context: {context}; expected 1 token or more")
    words = [str(path), str(context), "--json"] + ([] if threads is None else ["--threads", str(threads)])

    def hear(said: dict[str, Any]) -> None:
        if on_tokens is not None and "tokens" in said:
            on_tokens(said["tokens"])

    expected = f"{context} tokens to fit into memory; choose a smaller context"
    return MemoryUse(**ask_child("selfee.eval.memory", words, Path(path), expected, hear))


def measure_here(
    path: Path, context: int, *, threads: int | None = None, on_tokens: OnTokens | None = None
) -> MemoryUse:
    """Load a model in this process as ``selfee ask`` does, fill a context, and say what this process has used so far.

    Raises as ``measure_memory`` does.
    """
    from selfee.engines.runtime import load_runtime

    runtime = load_runtime(path, context_length=context, threads=threads)
    session = runtime.new_session()
    # Spread over the vocabulary, so that as many pages of the embedding are touched as a text of this length can.
    tokens = [index * runtime.vocab_size // context for index in range(context)]
    for start in range(0, context, _BATCH):
        part = tokens[start : start + _BATCH]
        session.forward(part)
        if on_tokens is not None:
            on_tokens(len(part))
    use = memory_used(path, context)
    runtime.close()
    return use


def memory_used(path: Path, context: int) -> MemoryUse:
    """What this process, which evaluated ``context`` tokens with the model at ``path``, has used so far."""
    fields = dict(line.split(":", 1) for line in _lines(_STATUS) if ":" in line)
    if "VmHWM" not in fields:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return MemoryUse(context, peak, None, None, None, "ru_maxrss")
    peak, mapped, own, shared = (_bytes(fields.get(name)) for name in ("VmHWM", "RssFile", "RssAnon", "RssShmem"))
    return MemoryUse(context, peak, mapped + shared, own, _resident_pages(path), "VmHWM")


def _resident_pages(path: Path) -> int | None:
    """Bytes of a mapped file that are in memory for this process."""
    name = str(path.resolve())
    found, is_it = None, False
    for line in _lines(_MAPPINGS):
        if not line.split(" ", 1)[0].endswith(":"):  # "55d0… r--s 00000000 08:01 123   /path"
            is_it = line.endswith(name)
        elif is_it and line.startswith("Rss:"):
            found = (found or 0) + _bytes(line.partition(":")[2])
    return found


def _bytes(text: str | None) -> int:
    """Bytes of a line's "  1234 kB"."""
    return 1024 * int(text.split()[0]) if text else 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def main(arguments: list[str]) -> int:
    """Measure and say so; with ``--json`` one object a line, the last of them the result or the error."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m selfee.eval.memory", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("context", type=int, help="tokens to evaluate")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true", help="one JSON object a line, progress too")
    words = parser.parse_args(arguments)
    tell = say if words.json else _ignore
    try:
        use = measure_here(
            words.file, words.context, threads=words.threads, on_tokens=lambda count: tell({"tokens": count})
        )
    except SelfeeError as error:
        tell(error_as_json(error))
        if not words.json:
            print(error, file=sys.stderr)
        return error.exit_code
    tell(asdict(use))
    if not words.json:
        parts = {"mapped": use.mapped, "own": use.own, "of the model file": use.weights}
        told = "".join(f", {human_size(size)} {name}" for name, size in parts.items() if size is not None)
        print(f"{human_size(use.peak)} for {use.context:,} tokens ({use.method}){told}")
    return 0


def _ignore(value: dict[str, Any]) -> None: ...


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
