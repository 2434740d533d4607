"""``selfee imatrix``: which columns of a model's matrices matter, for quantisers to spare."""

from __future__ import annotations

import enum
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfee.cli.model_file import local_file
from selfee.cli.output import Color, for_terminal, screen_of
from selfee.cli.places import require_writable
from selfee.cli.shared_options import Colored, Quiet, Threads

if TYPE_CHECKING:
    from selfee.cli.chunk_progress import ChunkDisplay
    from selfee.eval.chunks import Chunks
    from selfee.eval.importance import Collector
    from selfee.weights.quantization.imatrix import Form

EXAMPLES = """Examples:

\b
  selfee imatrix model-f16.gguf prose.txt -o model.imatrix.gguf
  selfee imatrix model-f16.gguf prose.txt -o model.imatrix.gguf --resume
  selfee imatrix model-f16.gguf prose.txt -o model.imatrix --format dat --chunks 100
  selfee quantize model-f16.gguf model-q4_K_M.gguf q4_K_M --imatrix model.imatrix.gguf

\b
Use the least quantised file there is, and a text like those the model will meet. What has been read is saved every few
seconds and on Ctrl-C; --resume goes on from there. llama.cpp reads and writes the same two forms.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_SAVE_EVERY = 10.0  # seconds


class Format(enum.Enum):
    """The two forms of file."""

    GGUF = "gguf"
    DAT = "dat"


@app.command("imatrix", epilog=EXAMPLES)
def imatrix(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file, or the name of a downloaded model.")],
    text: Annotated[Path, typer.Argument(metavar="TEXT", help="The text to read, a UTF-8 file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to write.")],
    form: Annotated[
        Format | None, typer.Option("--format", help="GGUF, or the older form; default: by the ending of OUT (.dat).")
    ] = None,
    context: Annotated[int, typer.Option("-c", "--context", min=4, help="Tokens of a chunk.")] = 512,
    chunks: Annotated[int | None, typer.Option(min=1, help="Chunks to read; default: the whole text.")] = None,
    process_output: Annotated[
        bool, typer.Option("--process-output", help="Also the output matrix, which is left out by default.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what OUT holds.")] = False,
    threads: Threads = None,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Open the model, read the text, keep what was read whatever happens."""
    from selfee.cli.chunk_progress import ChunkDisplay
    from selfee.eval.chunks import cut, read_text
    from selfee.eval.importance import Collector
    from selfee.eval.models import FileIdentity, open_measured
    from selfee.weights.quantization.imatrix import read_imatrix

    written: Form = form.value if form is not None else ("dat" if out.suffix == ".dat" else "gguf")
    path = local_file(model)
    _require_usable(out, path, text, written, resume)
    source = read_text(text)
    earlier = read_imatrix(out) if resume and out.exists() else None
    with open_measured(path, context, threads) as measured:
        cut_text = cut(source, measured.tokenizer, context, chunks)
        collector = Collector(measured.model, FileIdentity.of(path), source, context, with_output=process_output)
        if earlier is not None:
            collector.go_on(earlier)
        stderr = screen_of(sys.stderr, color)
        display = None if quiet else ChunkDisplay(stderr, len(cut_text) - collector.chunks)
        before = collector.chunks
        if display is not None and before:
            display.note(f"going on after {before} chunks")
        try:
            _read(collector, cut_text, out, written, display)
        except KeyboardInterrupt:
            stderr.write(f"stopped: {_state(collector, cut_text, out, written)}\n")
            raise
    screen_of(sys.stdout, color).write(
        f"{for_terminal(str(out))}: {len(collector.result())} tensors, {collector.chunks} chunks of {context} tokens\n"
    )


def _require_usable(out: Path, model: Path, text: Path, form: Form, resume: bool) -> None:
    from selfee.errors import UsageError

    require_writable(out, model, text)
    if resume and form == "dat":
        raise UsageError(
            "--resume: the older form does not say which model and text it is of; expected --format gguf; begin again"
        )


def _read(collector: Collector, chunks: Chunks, out: Path, form: Form, display: ChunkDisplay | None) -> None:
    """Read everything; saved now and then, at the end, and whenever something goes wrong."""
    from selfee.weights.quantization.imatrix import write_imatrix

    saved_at, saved, before = time.monotonic(), collector.chunks, collector.chunks

    def on_chunk(done: int) -> None:
        nonlocal saved_at, saved
        if display is not None:
            display.chunk(done - before)
        if time.monotonic() - saved_at >= _SAVE_EVERY:
            write_imatrix(out, collector.result(), form)
            saved_at, saved = time.monotonic(), done

    if display is not None:
        display.begin(out.name)
    try:
        collector.read(chunks, on_chunk)
    finally:
        if display is not None:
            display.clear()
        if collector.chunks > saved:
            write_imatrix(out, collector.result(), form)


def _state(collector: Collector, chunks: Chunks, out: Path, form: Form) -> str:
    if not collector.chunks:
        return "no chunk was finished; nothing was saved"
    advice = "; go on with --resume" if form == "gguf" else ""
    return f"{collector.chunks} of {len(chunks)} chunks are saved in {for_terminal(str(out))}{advice}"
