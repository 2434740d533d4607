"""``--preview``: examples as the model will read them, with what is learned and what is masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfee.cli.output import Screen, for_terminal
from selfee.errors import BadFileError
from selfee.llama.tokenizer import Tokenizer, load_tokenizer
from selfee.train.config import TrainConfig
from selfee.train.dataset import Dataset, Example
from selfee.train.lessons import Part, RefusedError
from selfee.train.records import data_files
from selfee.weights.open import open_checkpoint

_COLORS = {
    Part.ANSWER: "green",
    Part.FLAWED: "red",
    Part.FEEDBACK: "yellow",
    Part.VERDICT: "magenta",
    Part.REVISION: "cyan",
    Part.END: "bold",
}


def show_preview(screen: Screen, model: Path, data: Path, config: TrainConfig, count: int, as_json: bool) -> None:
    """Show the first ``count`` examples that are not refused."""
    tokenizer = load_tokenizer(open_checkpoint(model).vocab)
    file, _ = data_files(data)
    dataset = Dataset.of_file(file, tokenizer, config.objective, config.section_weights, config.max_length)
    if not as_json:
        screen.write(_legend(screen))
    shown = 0
    for index in range(len(dataset)):
        if shown == count:
            break
        try:
            example = dataset.example(index)
        except RefusedError as error:
            if not as_json:
                note = f"{dataset.lessons[index].where}: refused: {error}"
                screen.write(screen.style(for_terminal(note), "yellow") + "\n\n")
            continue
        shown += 1
        if as_json:
            screen.write_json(_as_json(example, tokenizer))
        else:
            screen.write(_as_text(example, tokenizer, screen))
    if not shown:
        raise BadFileError(f"{file}: every chain is refused; expected some to learn from")


def _legend(screen: Screen) -> str:
    words = [screen.style(part.value, color) for part, color in _COLORS.items()]
    return f"learned: {' '.join(words)}; {screen.style('masked: read, not learned', 'dim')}\n\n"


def _texts(example: Example, tokenizer: Tokenizer) -> list[str]:
    """The text of each span: characters that two spans share go to the first."""
    decoder = tokenizer.stream_decoder(skip_special=False, start_of_text=True)
    return ["".join(decoder.feed(token) for token in example.ids[span.start : span.end]) for span in example.spans]


def _as_text(example: Example, tokenizer: Tokenizer, screen: Screen) -> str:
    dropped = f", {example.dropped_rounds} rounds dropped" if example.dropped_rounds else ""
    head = f"{example.where}: {len(example.ids):,} tokens, {example.learned:,} learned{dropped}"
    body = []
    for span, text in zip(example.spans, _texts(example, tokenizer), strict=True):
        color = _COLORS.get(span.part, "dim") if span.weight else "dim"
        shown = for_terminal(text)
        if not screen.has_color:
            name = span.part.value + (f" {span.number}" if span.number else "")
            told = f"learned, weight {span.weight:g}" if span.weight else "masked"
            shown = f"[{name}: {told}]{shown}"
        # A colour ends with its line, or a pager would lose it.
        body.append("\n".join(screen.style(line, color) for line in shown.split("\n")))
    return screen.style(for_terminal(head), "bold") + "\n" + "".join(body) + "\n\n"


def _as_json(example: Example, tokenizer: Tokenizer) -> dict[str, Any]:
    spans = [
        {
            "part": span.part.value,
            "number": span.number,
            "weight": span.weight,
            "tokens": span.end - span.start,
            "text": text,
        }
        for span, text in zip(example.spans, _texts(example, tokenizer), strict=True)
    ]
    return {"where": example.where, "dropped_rounds": example.dropped_rounds, "spans": spans}
