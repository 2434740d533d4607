"""``selfee perplexity``: how well model files predict a text, and how far they are from the model they were made of."""

from __future__ import annotations

import enum
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfee.cli.model_file import CacheTypeName, local_file
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.places import require_writable
from selfee.cli.shared_options import AsJson, Colored, Quiet, Threads
from selfee.cli.table import Column, render_table

if TYPE_CHECKING:
    from selfee.cli.chunk_progress import ChunkDisplay
    from selfee.eval.chunks import Text
    from selfee.eval.measuring import NamedBase, Prepared, Settings
    from selfee.eval.results import Quality

EXAMPLES = """Examples:

\b
  selfee perplexity model.gguf prose.txt
  selfee perplexity model-q4_0.gguf model-q4_K_M.gguf prose.txt --kl model-f16.gguf
  selfee perplexity model-*.gguf prose.txt --kl model-f16.gguf --out results.jsonl --resume
  selfee perplexity model-f16.gguf prose.txt --save-logits base.logits
  selfee perplexity model-q4_0.gguf prose.txt --kl base.logits
  selfee perplexity model.gguf prose.txt --kl model.gguf --cache-type q8_0

\b
Perplexity is lower for a better prediction; KL divergence is 0 for a file that predicts as its base does. Figures of
one text, context and number of chunks can be compared, others cannot. Files of --save-logits are llama.cpp's.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)

DEFAULT_CONTEXT = 512


class Scored(enum.Enum):
    """Which positions count: today's second half of each chunk, or what llama.cpp of June 2023 scored."""

    CURRENT = "current"
    JUNE_2023 = "2023"


@app.command("perplexity", epilog=EXAMPLES)
def perplexity(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Model files, or names of downloaded models.")],
    text: Annotated[Path, typer.Argument(metavar="TEXT", help="The text to predict, a UTF-8 file.")],
    kl: Annotated[
        str | None,
        typer.Option(metavar="BASE", help="Compare with this model, or with saved log-probabilities."),
    ] = None,
    save_logits: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save the log-probabilities of the one model, as a base for --kl."),
    ] = None,
    context: Annotated[
        int | None, typer.Option("-c", "--context", min=4, help="Tokens of a chunk; 512, or as the base was saved.")
    ] = None,
    chunks: Annotated[int | None, typer.Option(min=1, help="Chunks to evaluate; default: the whole text.")] = None,
    definition: Annotated[Scored, typer.Option(help="Positions that count; differs above 1,024 tokens of context.")] = (
        Scored.CURRENT
    ),
    cache_type: Annotated[
        CacheTypeName,
        typer.Option(help="What keys and values are stored as; a base's always as f16."),
    ] = CacheTypeName.F16,
    speed: Annotated[bool, typer.Option("--speed", help="Also measure tokens generated a second.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Add a JSON line for each file as it finishes; selfee card reads it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out what --out has already measured.")] = False,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Check every word first, measure file after file, show the table of what is finished whatever happens."""
    from selfee.cli.chunk_progress import ChunkDisplay
    from selfee.eval.base import open_base, saved_context
    from selfee.eval.chunks import Definition, read_text
    from selfee.eval.measuring import NamedBase, Settings, prepare
    from selfee.eval.results import read_results

    _require_fitting(files, kl, save_logits, out, resume)
    paths, base_path = [local_file(name) for name in files], local_file(kl) if kl else None
    _require_places(out, save_logits, [*paths, text, base_path])
    source = read_text(text)
    n_ctx = context or (saved_context(base_path) if base_path else None) or DEFAULT_CONTEXT
    settings = Settings(n_ctx, chunks, Definition(definition.value), threads, speed, cache_type.cache_type)
    earlier = read_results(out) if out is not None else []  # also without --resume: nothing else is added to
    known = earlier if resume else []
    stderr = screen_of(sys.stderr, color)
    finished: list[Quality] = []
    with ExitStack() as stack:
        base = None
        if base_path is not None:
            opened = stack.enter_context(open_base(base_path, source, n_ctx, chunks, settings.definition, threads))
            base = NamedBase.of(opened, base_path)
        prepared = [prepare(path, source, settings, base) for path in paths]
        display = None if quiet else ChunkDisplay(stderr, sum(len(each.chunks) for each in prepared))
        try:
            for path, each in zip(paths, prepared, strict=True):
                finished.append(_measured(path, source, each, settings, base, save_logits, known, display))
                if out is not None and finished[-1] not in known:
                    _keep(out, finished[-1])
        finally:
            if display is not None:
                display.clear()
            if finished:
                _show(finished, screen_of(sys.stdout, color), as_json)


def _require_fitting(files: list[str], kl: str | None, save: Path | None, out: Path | None, resume: bool) -> None:
    from selfee.errors import UsageError

    if resume and out is None:
        raise UsageError("--resume: there is nothing to go on with; expected --out with the results so far")
    if save is not None and (kl is not None or len(files) != 1):
        raise UsageError("--save-logits: saves one model, the base; expected one FILE and no --kl")


def _require_places(out: Path | None, save: Path | None, read: list[Path | None]) -> None:
    if out is not None:
        require_writable(out, *read)
    if save is not None:
        require_writable(save, *read, out)


def _measured(
    path: Path,
    text: Text,
    prepared: Prepared,
    settings: Settings,
    base: NamedBase | None,
    save_logits: Path | None,
    known: list[Quality],
    display: ChunkDisplay | None,
) -> Quality:
    """A file's results, from the lines of an earlier run where they are there."""
    from selfee.eval.measuring import key_of, measure
    from selfee.eval.models import FileIdentity

    identity, chunks = FileIdentity.of(path), prepared.chunks
    key = key_of(identity, text, settings, chunks, base)
    for line in reversed(known):
        is_enough = line.decode_tokens_per_second is not None or not settings.speed
        if save_logits is None and line.file == identity.name and line.key == key and is_enough:
            if display is not None:
                display.skip(len(chunks))
                display.note(f"{path.name}: measured before")
            return line
    if display is None:
        return measure(path, text, chunks, settings, identity=identity, base=base, save_logits=save_logits)
    if settings.n_ctx > prepared.trained_context:
        display.note(f"{path.name}: was trained on {prepared.trained_context} tokens of context, not {settings.n_ctx}")
    display.begin(path.name)
    figure = "PPL {:.3f}" if base is None else "KLD {:.5f}"
    return measure(
        path,
        text,
        chunks,
        settings,
        identity=identity,
        base=base,
        save_logits=save_logits,
        on_chunk=lambda done, value: display.chunk(done, figure.format(value)),
    )


def _keep(out: Path, quality: Quality) -> None:
    from selfee.eval.results import append_result

    append_result(out, quality)


def _show(finished: list[Quality], stdout: Screen, as_json: bool) -> None:
    if as_json:
        stdout.write_json([quality.as_row() for quality in finished], indent=2)
        return
    titles = ["size", "bits", "PPL"]
    is_compared = any(quality.base for quality in finished)
    if is_compared:
        titles += ["ΔPPL", "ln ratio", "mean KLD", "99 % KLD", "same top"]
    titles.append("tokens/s")
    is_timed = any(quality.decode_tokens_per_second for quality in finished)
    if is_timed:
        titles.append("generated/s")
    columns = (Column("file"), *(Column(title, is_number=True) for title in titles))
    rows = [_cells(quality, is_compared, is_timed) for quality in finished]
    stdout.write(render_table(columns, rows, stdout))
    first = finished[0]
    against = f", against {first.base} (PPL {first.base_ppl:.4f})" if first.base and first.base_ppl else ""
    cache = "" if first.cache_type == "f16" else f", cache {first.cache_type}"
    amount = f"{first.chunks} chunks of {first.n_ctx} tokens, {first.positions:,} positions scored"
    stdout.write(stdout.style(for_terminal(f"{first.text}: {amount}{cache}{against}") + "\n", "dim"))


def _cells(quality: Quality, is_compared: bool, is_timed: bool) -> list[str]:
    from selfee.weights.disk import human_size
    from selfee.weights.printable import printable

    cells = [printable(quality.file), human_size(quality.size), f"{quality.bits_per_weight:.2f}"]
    cells.append(f"{quality.ppl:.4f} ± {quality.ppl_error:.4f}")
    if is_compared:
        cells += [
            _number(quality.ppl_difference, "{:+.4f}"),
            _number(quality.ln_ratio, "{:+.5f}", quality.ln_ratio_error, "{:.5f}"),
            _number(quality.kld_mean, "{:.6f}", quality.kld_error, "{:.6f}"),
            _number(quality.kld_percentiles.get("99"), "{:.5f}"),
            _number(quality.same_top, "{:.2%}"),
        ]
    cells.append(f"{quality.tokens_per_second:.0f}")
    if is_timed:
        cells.append(_number(quality.decode_tokens_per_second, "{:.1f}"))
    return cells


def _number(value: float | None, form: str, error: float | None = None, error_form: str = "") -> str:
    if value is None:
        return "–"
    return form.format(value) + (f" ± {error_form.format(error)}" if error is not None else "")
