"""``selfee delta``: what leads from a base model to one trained from it: make it, apply it, look at it."""

from __future__ import annotations

import enum
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.cli.file_options import parse_size
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.shared_options import AsJson, Colored, Quiet, Threads

if TYPE_CHECKING:
    from selfee.weights.delta.make import DeltaReport
    from selfee.weights.delta.published import DeltaKind
    from selfee.weights.fetch.download import Progress

app = typer.Typer(
    name="delta",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    epilog="Examples:\n\n\b\n  selfee delta make llama-7b/ selfee-7b/ selfee-7b-delta/\n"
    "  selfee delta apply llama-7b/ selfee-7b-delta/ selfee-7b/\n  selfee delta info selfee-7b-delta/",
)

BASE_HELP = "The base model: a Hugging Face folder, or a .safetensors or .bin file."
FORCE_HELP = "Replace OUT if it is a folder of model files."
REVERSE_HELP = "Go back: BASE is the target, OUT becomes the base."
Force = Annotated[bool, typer.Option("--force", help=FORCE_HELP)]
ShardSize = Annotated[
    str,
    typer.Option(
        "--max-shard-size",
        metavar="SIZE",
        help="Most bytes in one file: 5G, 500M or bytes; an exact delta keeps the target's files.",
    ),
]


class Kind(enum.Enum):
    """Kinds of deltas, and the wish to find out."""

    AUTO = "auto"
    ALPACA = "alpaca"
    FASTCHAT = "fastchat"
    EXACT = "exact"


class Numbers(enum.Enum):
    """What a published delta's result may be stored as."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"


@app.command(epilog="Examples:\n\n\b\n  selfee delta make llama-7b/ selfee-7b/ selfee-7b-delta/ --json")
def make(
    base: Annotated[Path, typer.Argument(metavar="BASE", help=BASE_HELP)],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The model trained from it, in the same form.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    no_reverse: Annotated[
        bool, typer.Option("--no-reverse", help="Leave away what only the way back to the base needs.")
    ] = False,
    max_shard_size: ShardSize = "5G",
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Make a delta that gives the target back to the bit, with checksums of both models."""
    from selfee.weights.delta.make import make_delta
    from selfee.weights.huggingface.shards import open_tensors

    display, started = _display(quiet, color), time.monotonic()
    with open_tensors(base) as ours, open_tensors(target) as theirs:
        _require_apart(out, base, target)
        total = sum(tensor.nbytes for model in (ours, theirs) for tensor in model.tensors.values())
        _note_unlisted(display, ours.unlisted + theirs.unlisted)
        display.begin(out.name, total, 0)
        try:
            report = make_delta(
                ours,
                theirs,
                out,
                reversible=not no_reverse,
                force=force,
                max_shard_bytes=parse_size(max_shard_size, "--max-shard-size"),
                threads=threads,
                on_bytes=display.advance,
            )
        finally:
            display.end()
    _show(report, out, screen_of(sys.stdout, color), as_json, time.monotonic() - started)


@app.command(
    epilog="Examples:\n\n\b\n  selfee delta apply llama-7b/ selfee-7b-delta/ selfee-7b/\n"
    "  selfee delta apply llama-7b/ vicuna-7b-delta-v0/ vicuna-7b/ --kind fastchat\n"
    "  selfee delta apply --reverse selfee-7b/ selfee-7b-delta/ llama-7b/"
)
def apply(
    base: Annotated[Path, typer.Argument(metavar="BASE", help=BASE_HELP)],
    delta: Annotated[Path, typer.Argument(metavar="DELTA", help="The delta: ours, Alpaca's (SelFee's) or FastChat's.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model folder to make.")],
    kind: Annotated[Kind, typer.Option(help="The formula; auto tells it by the delta's files.")] = Kind.AUTO,
    reverse: Annotated[bool, typer.Option("--reverse", help=REVERSE_HELP)] = False,
    dtype: Annotated[
        Numbers | None,
        typer.Option(help="Store the result of a published delta as this; default f32 for alpaca, f16 for fastchat."),
    ] = None,
    max_shard_size: ShardSize = "5G",
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Apply a delta to the model it was made from."""
    from selfee.weights.delta.published import DeltaKind, find_kind

    display, started = _display(quiet, color), time.monotonic()
    if kind is Kind.AUTO:
        found, sign = find_kind(delta)
        display.note(f"{for_terminal(str(delta))}: a delta of kind {found.value}, {sign}")
    else:
        found = DeltaKind(kind.value)
    _require_apart(out, base, delta)
    if found is DeltaKind.EXACT:
        _require_none("--dtype", dtype, "the delta tells the type of each tensor")
        report = _apply_exact(base, delta, out, reverse, force, threads, display)
    else:
        _require_none("--reverse", reverse or None, "a published delta does not lead back")
        report = _apply_published(
            base, delta, out, found, dtype, force, parse_size(max_shard_size, "--max-shard-size"), display
        )
    _show(report, out, screen_of(sys.stdout, color), as_json, time.monotonic() - started)


@app.command(
    epilog="Examples:\n\n\b\n  selfee delta info selfee-7b-delta/\n  selfee delta info selfee-7b-delta/ --json"
)
def info(
    delta: Annotated[Path, typer.Argument(metavar="DELTA", help="A delta: ours, Alpaca's (SelFee's) or FastChat's.")],
    as_json: AsJson = False,
    color: Colored = Color.AUTO,
) -> None:
    """Show what kind of delta it is, what it leads from and to, and how large it is."""
    from selfee.weights.delta.file import open_delta
    from selfee.weights.delta.make import DeltaReport, describe_delta
    from selfee.weights.delta.published import DeltaKind, find_kind
    from selfee.weights.huggingface.shards import open_tensors

    kind, sign = find_kind(delta)
    made_by = None
    if kind is DeltaKind.EXACT:
        with open_delta(delta) as opened:
            report, made_by = describe_delta(opened), opened.made_by
    else:
        with open_tensors(delta) as published:
            size = sum(tensor.nbytes for tensor in published.tensors.values())
            report = DeltaReport(kind.value, None, size, size, None, None, len(published.tensors))
    stdout = screen_of(sys.stdout, color)
    if as_json:
        stdout.write_json(_as_json(report) | {"path": str(delta), "made_by": made_by, "told_by": sign}, indent=2)
        return
    facts = [("delta", str(delta)), ("kind", f"{report.kind}, {sign}"), *_facts(report)]
    if made_by:
        facts.append(("made by", made_by))
    stdout.write(_lines(facts, stdout))


def _apply_exact(
    base: Path, delta: Path, out: Path, reverse: bool, force: bool, threads: int | None, display: Progress
) -> DeltaReport:
    from selfee.weights.delta.apply import apply_delta
    from selfee.weights.delta.file import open_delta
    from selfee.weights.huggingface.shards import open_tensors

    with open_delta(delta) as opened, open_tensors(base) as source:
        wanted = opened.base if reverse else opened.target
        display.begin(out.name, wanted.nbytes, 0)
        try:
            return apply_delta(
                source, opened, out, reverse=reverse, force=force, threads=threads, on_bytes=display.advance
            )
        finally:
            display.end()


def _apply_published(
    base: Path,
    delta: Path,
    out: Path,
    kind: DeltaKind,
    dtype: Numbers | None,
    force: bool,
    max_shard_bytes: int,
    display: Progress,
) -> DeltaReport:
    from selfee.weights.delta.published import apply_published
    from selfee.weights.huggingface.shards import open_tensors
    from selfee.weights.huggingface.stored import DType

    display.note("published deltas record no checksum: a wrong base of the right shape goes unnoticed")
    with open_tensors(base) as ours, open_tensors(delta) as theirs:
        wanted = None if dtype is None else DType[dtype.name]
        size = (wanted or (DType.F16 if kind.value == "fastchat" else DType.F32)).nbytes
        total = sum(tensor.nbytes // tensor.dtype.nbytes for tensor in theirs.tensors.values()) * size
        display.begin(out.name, total, 0)
        try:
            return apply_published(
                ours,
                theirs,
                out,
                kind,
                dtype=wanted,
                force=force,
                max_shard_bytes=max_shard_bytes,
                on_bytes=display.advance,
            )
        finally:
            display.end()


def _display(quiet: bool, color: Color) -> Progress:
    from selfee.cli.progress import QuietDisplay, WorkDisplay

    return QuietDisplay() if quiet else WorkDisplay(screen_of(sys.stderr, color))


def _require_apart(out: Path, *inputs: Path) -> None:
    from selfee.errors import UsageError

    for path in inputs:
        if out.resolve() in (path.resolve(), *path.resolve().parents):
            raise UsageError(f"{out}: is or holds {path}, which is to be read; expected another folder to write to")


def _require_none(option: str, value: object, why: str) -> None:
    from selfee.errors import UsageError

    if value is not None:
        raise UsageError(f"{option}: does not go with this kind of delta: {why}; leave it away")


def _note_unlisted(display: Progress, names: tuple[str, ...]) -> None:
    if names:
        shown = for_terminal(", ".join(names[:3])) + (" …" if len(names) > 3 else "")
        display.note(f"left away, for the index does not name them: {shown}")


def _ratio(report: DeltaReport) -> float:
    return report.delta_bytes / report.target_bytes if report.target_bytes else 0.0


def _as_json(report: DeltaReport) -> dict[str, Any]:
    return asdict(report) | {"ratio": round(_ratio(report), 6)}


def _facts(report: DeltaReport) -> list[tuple[str, str]]:
    from selfee.weights.disk import human_size
    from selfee.weights.printable import printable

    share = (
        f", {_ratio(report):.1%} of the target's {human_size(report.target_bytes)}" if report.kind == "exact" else ""
    )
    facts = [("size", f"{human_size(report.delta_bytes)}{share}"), ("tensors", f"{report.tensors:,}")]
    for label, names in (("grown", report.grown), ("added", report.added), ("left away", report.dropped)):
        if names:
            facts.append((label, printable(", ".join(names[:4])) + (" …" if len(names) > 4 else "")))
    facts += [("base", f"sha256 {report.base_sha256}")] if report.base_sha256 else []
    facts += [("target", f"sha256 {report.target_sha256}")] if report.target_sha256 else []
    if report.kind == "exact":
        facts.append(("way back", "yes" if report.reversible else "no"))
    return facts


def _lines(facts: list[tuple[str, str]], screen: Screen) -> str:
    return "".join(f"{screen.style(f'{name:<11}', 'dim')}{for_terminal(value)}\n" for name, value in facts)


def _show(report: DeltaReport, out: Path, screen: Screen, as_json: bool, seconds: float) -> None:
    if as_json:
        screen.write_json(_as_json(report) | {"path": str(out), "seconds": round(seconds, 3)})
        return
    screen.write(_lines([("written", str(out)), ("kind", report.kind), *_facts(report)], screen))
