"""``selfee card``: the model card of a folder of model files, from the files themselves."""

from __future__ import annotations

import enum
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.cli.output import Color, for_terminal, screen_of
from selfee.cli.shared_options import Colored, Quiet, Threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selfee.weights.card.commands import Card, Prompt
    from selfee.weights.card.facts import FileFacts

EXAMPLES = """Examples:

\b
  selfee card models -o models/README.md
  selfee card models --no-measure --license apache-2.0 --base-model org/name
  selfee card models --results results.jsonl --prompt-format selfee --json

\b
The files are read, hashed, and each is run once with a full context to measure its memory: that takes as long as
reading a prompt of --context tokens with it. Quality comes from what selfee perplexity --out wrote.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)

RESULTS = "results.jsonl"


class PromptFormat(enum.Enum):
    """How the model wants to be asked."""

    AUTO = "auto"
    SELFEE = "selfee"
    ALPACA = "alpaca"
    CHAT = "chat"
    NONE = "none"


@app.command("card", epilog=EXAMPLES)
def card(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of GGUF or GGML files.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the card to this file, replaced whole if it is there.")
    ] = None,
    context: Annotated[int, typer.Option("-c", "--context", min=1, help="Tokens of context that RAM is for.")] = 2048,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Run each file to measure its memory, or only compute it.")
    ] = True,
    results: Annotated[
        Path | None,
        typer.Option(help="What selfee perplexity --out wrote.  [default: results.jsonl in DIR, if it is there]"),
    ] = None,
    prompt_format: Annotated[
        PromptFormat, typer.Option(help="How the model wants to be asked; auto: as the files say.")
    ] = PromptFormat.AUTO,
    title: Annotated[str, typer.Option(help="Name of the model.  [default: as the files say, else DIR's]")] = "",
    license: Annotated[str, typer.Option(help="Its licence, as the hub names it.  [default: as the files say]")] = "",
    base_model: Annotated[
        str, typer.Option(help="What the files were made of: org/name.  [default: as the files say]")
    ] = "",
    quantized_by: Annotated[str, typer.Option(help="Who made the files.  [default: as the files say]")] = "",
    language: Annotated[list[str] | None, typer.Option(help="A language, such as en; may be repeated.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag for the hub; may be repeated.")] = None,
    date: Annotated[str, typer.Option(help="A date to stand on the card; without it there is none.")] = "",
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all facts as JSON instead.")] = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Read every file, measure, put the facts together, print or write."""
    from selfee.cli.card_files import CardDisplay, QuietCardDisplay, Reader, add_quality
    from selfee.weights.card.commands import Card
    from selfee.weights.card.page import render_card

    measured = results or folder / RESULTS
    display = QuietCardDisplay() if quiet else CardDisplay(screen_of(sys.stderr, color))
    reader = Reader(context, threads, measure, display)
    found = reader.read_folder(folder, [measured, out or folder / "README.md"])
    found.sort(key=lambda file: (file.size, file.file))
    files = add_quality(found, measured, required=results is not None, display=display)
    made = Card(
        title=title or _same(files, "name") or folder.resolve().name,
        files=files,
        prompt=_prompt(prompt_format, files),
        context=context,
        license=license or _told(files, "general.license"),
        base_model=base_model or _base_model(files),
        quantized_by=quantized_by or _told(files, "general.quantized_by"),
        date=date,
        languages=language or (),
        tags=tag or (),
    )
    _deliver(made, None if as_json else render_card(made), out, color)
    for reason in reader.skipped:
        display.note(f"left out: {reason}")


def _same(files: Sequence[FileFacts], field: str) -> str:
    """What all files agree on; "" where they do not."""
    values = {str(getattr(file, field)) for file in files}
    return values.pop() if len(values) == 1 else ""


def _told(files: Sequence[FileFacts], *keys: str) -> str:
    """The value of the first of these keys on which all files that have it agree."""
    for key in keys:
        values = {file.told[key] for file in files if key in file.told}
        if len(values) == 1:
            return values.pop()
    return ""


def _base_model(files: Sequence[FileFacts]) -> str:
    """org/name for a model of the hub, else its address or name."""
    from selfee.weights.fetch.store import HUB

    address = _told(files, "general.base_model.0.repo_url")
    return address.removeprefix(f"{HUB}/").rstrip("/") or _told(files, "general.base_model.0.name")


def _prompt(wanted: PromptFormat, files: Sequence[FileFacts]) -> Prompt:
    """The prompt as asked for, or as the files say."""
    from selfee.chain.format import render_prompt
    from selfee.chain.types import Instruction
    from selfee.errors import UsageError
    from selfee.weights.card.commands import Prompt, example_prompt

    templates = {file.chat_template for file in files if file.chat_template}
    if wanted is PromptFormat.AUTO:
        can_say = [file for file in files if file.is_gguf]
        if can_say and all(file.trained_on_chains for file in can_say):
            wanted = PromptFormat.SELFEE
        else:
            wanted = PromptFormat.CHAT if len(templates) == 1 else PromptFormat.NONE
    if wanted is PromptFormat.CHAT:
        if len(templates) != 1:
            what = "no file has a chat template" if not templates else "the files have different chat templates"
            raise UsageError(f"--prompt-format chat: {what}; expected one; choose selfee, alpaca or none")
        return Prompt("chat", templates.pop())
    if wanted is PromptFormat.NONE:
        return Prompt("none")
    text = render_prompt(Instruction("{instruction}"))
    if wanted is PromptFormat.ALPACA:  # SelFee's is Alpaca's but for the last line
        text = text.replace("Answer:\n", "Response:")
    return Prompt(wanted.value, text, example_prompt(text))


def _deliver(card: Card, page: str | None, out: Path | None, color: Color) -> None:
    """To the file, whole or not at all, or to standard output; ``page`` None = as JSON."""
    import json

    from selfee.weights.writing import replacing

    stdout = screen_of(sys.stdout, color)
    if out is None:
        if page is None:
            stdout.write_json(_facts(card), indent=2)
        else:
            stdout.write(page if not stdout.is_terminal else for_terminal(page))
        return
    text = page if page is not None else json.dumps(_facts(card), ensure_ascii=False, indent=2) + "\n"
    with replacing(out) as file:
        file.write(text.encode("utf-8", "replace"))
    stdout.write(f"{for_terminal(str(out))}: written: {len(card.files)} files described\n")


def _facts(card: Card) -> dict[str, Any]:
    from selfee.weights.card.commands import commands

    values = {name: value for name, value in asdict(card).items() if name != "files"}
    return values | {
        "commands": [asdict(command) for command in commands(card)],
        "files": [file.as_json() for file in card.files],
    }
