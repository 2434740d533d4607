"""``selfee inspect``: what a model file is, whether it can be run here, and what that needs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from selfee.cli.model_file import local_file
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.shared_options import AsJson, Colored
from selfee.cli.table import Column, render_table
from selfee.cli.wrapping import WrappingText

if TYPE_CHECKING:
    from selfee.weights.checkpoint import Checkpoint
    from selfee.weights.summary import Summary

EXAMPLES = """Examples:

\b
  selfee inspect model.gguf
  selfee inspect smollm2-135m --tensors
  selfee inspect model.bin --json
"""


app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("inspect", epilog=EXAMPLES)
def inspect(
    file: Annotated[str, typer.Argument(help="A model file, or the name of a downloaded model.")],
    as_json: AsJson = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="Also list every tensor.")] = False,
    metadata: Annotated[bool, typer.Option("--metadata", help="Also list every metadata key.")] = False,
    context: Annotated[
        int | None,
        typer.Option(
            "-c",
            "--context",
            min=1,
            help="Tokens of context to plan memory for.",
            envvar="SELFEE_CONTEXT",
            show_envvar=False,
        ),
    ] = None,
    color: Colored = Color.AUTO,
) -> None:
    """Open the file, describe it, print."""
    from selfee.weights.open import open_checkpoint
    from selfee.weights.summary import summarize

    stdout = screen_of(sys.stdout, color)
    checkpoint = open_checkpoint(local_file(file))
    try:
        summary = summarize(checkpoint, context)
        listed = _tensor_rows(checkpoint) if tensors else []
    finally:
        checkpoint.close()
    if as_json:
        value = summary.as_json()
        if tensors:
            value["tensor_list"] = [
                {"name": name, "type": kind, "shape": list(shape), "bytes": size} for name, kind, shape, size in listed
            ]
        stdout.write_json(value, indent=2)
        return
    stdout.write(_describe(summary, stdout))
    if tensors:
        cells = [(name, kind, " × ".join(map(str, shape)), f"{size:,}") for name, kind, shape, size in listed]
        stdout.write("\n" + render_table(_TENSOR_COLUMNS, cells, stdout))
    if metadata:
        stdout.write("\n" + _metadata(summary, stdout))


_TENSOR_COLUMNS = (Column("tensor"), Column("type"), Column("shape"), Column("bytes", is_number=True))


def _tensor_rows(checkpoint: Checkpoint) -> list[tuple[str, str, tuple[int, ...], int]]:
    return [(info.name, info.type.name, tuple(info.shape), info.nbytes) for info in checkpoint.tensors.values()]


def _describe(summary: Summary, screen: Screen) -> str:
    parts = [_facts(summary, screen), _types(summary, screen)]
    for warning in summary.warnings:
        parts.append(screen.style(f"{'warning':<14}", "yellow") + _beside(for_terminal(warning), screen) + "\n")
    return "\n".join(parts)


def _facts(summary: Summary, screen: Screen) -> str:
    from selfee.weights.disk import human_size
    from selfee.weights.printable import printable

    facts = [
        ("file", f"{printable(summary.path)}, {human_size(summary.file_bytes)}, {summary.container}"),
        ("name", printable(summary.name) or "–"),
        ("architecture", printable(summary.architecture)),
        ("parameters", f"{summary.parameters:,}, {summary.bits_per_weight:.2f} bits per weight"),
    ]
    if sizes := summary.dimensions:
        heads = f"{sizes.n_head} heads" + (
            f" ({sizes.n_head_kv} for keys and values)" if sizes.n_head_kv != sizes.n_head else ""
        )
        facts.append(("shape", f"{sizes.n_layer} layers, width {sizes.n_embd}, {heads}, feed-forward {sizes.n_ff}"))
        facts.append(("context", f"{sizes.n_ctx:,} tokens"))
    if memory := summary.memory:
        parts = f"weights {human_size(memory.weights)}, cache {human_size(memory.kv_cache)}"
        parts += f", working {human_size(memory.scratch)}"
        facts.append(("memory", f"{human_size(memory.total)} for {memory.context:,} tokens: {parts}"))
    vocab = summary.vocab
    merges = f", {vocab.merges:,} merges" if vocab.merges else ""
    pre = f", cut by {printable(vocab.pre)}" if vocab.model == "gpt2" else ""
    facts.append(("vocabulary", f"{vocab.size:,} tokens, {vocab.kind}{merges}{pre}"))
    if vocab.special:
        facts.append(
            ("special", ", ".join(f"{token.role} {token.id} {printable(token.text, 40)}" for token in vocab.special))
        )
    template = "none" if summary.chat_template is None else f"yes, {len(summary.chat_template):,} characters"
    facts.append(("template", template))
    return "".join(f"{screen.style(f'{name:<14}', 'dim')}{_beside(value, screen)}\n" for name, value in facts)


def _beside(value: str, screen: Screen) -> str:
    """A value beside its name; what is read by programs is not broken."""
    if not screen.is_terminal:
        return value
    wrapping = WrappingText(screen.width, 14, after_label=True)
    return wrapping.feed(value) + wrapping.finish()


def _types(summary: Summary, screen: Screen) -> str:
    from selfee.weights.disk import human_size

    total = sum(row.bytes for row in summary.tensors) or 1
    columns = (
        Column("type"),
        Column("tensors", is_number=True),
        Column("values", is_number=True, is_spare=True),
        Column("size", is_number=True),
        Column("share", is_number=True),
    )
    rows = [
        (row.type, str(row.tensors), f"{row.values:,}", human_size(row.bytes), f"{row.bytes / total:.1%}")
        for row in summary.tensors
    ]
    return render_table(columns, rows, screen)


def _metadata(summary: Summary, screen: Screen) -> str:
    from selfee.weights.printable import printable

    rows = [(printable(key), printable(str(value))) for key, value in summary.metadata.items()]
    return render_table((Column("key"), Column("value")), rows, screen)
