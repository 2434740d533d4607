"""The model card of a folder of files, as Markdown: every figure is read from a file or measured, none is filled in.

``card_facts.py`` reads the files, ``cli/card.py`` measures memory and finds quality; this puts it into words. The same
facts give the same bytes. Texts that come from files pass through ``markdown.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from selfee.weights.card.commands import Card, Prompt, commands, measure
from selfee.weights.card.facts import FileFacts, MemoryFigure, QualityFigure
from selfee.weights.card.markdown import block, code, link, plain, table, yaml_text
from selfee.weights.disk import human_size

_RULES = {
    "2023-06-06": "llama.cpp of 6 June 2023 (2d43387)",
    "2023-06-05": "llama.cpp of 5 June 2023 (99009e7: `output.weight` is Q6_K in every file)",
    "current": "llama.cpp of today",
}
_MOST_KEYS = 40
_WITH_BASE = (
    "PPL is perplexity, lower is better; ΔPPL its distance from the base file's. KLD is the Kullback-Leibler "
    "divergence of the next-token probabilities from the base file's, in nats, on average and at the 99th percentile; "
    "0 is the same model. *Same top token*: how often both find the same token likeliest. ± is one standard error."
)
_NO_QUALITY = (
    "Not measured. This measures perplexity on a text, and against an unquantised file also how far each file's "
    "predictions are from it; `selfee card` then shows it here:"
)
_OTHERS = "\nTo run another file, put its name there.\n"
_PROMPTS = {
    "selfee": "The model was trained on this prompt. It writes its answer, then feedback, then a revision, until it "
    "finds that none is needed; `selfee ask` writes the prompt and reads the chain.",
    "alpaca": "The model expects this prompt.",
    "chat": "Conversations are written by this template, which is in the file; programs apply it by themselves.",
    "none": "The files do not say how the model wants to be asked. See the model that they were made of.",
}


def render_card(card: Card) -> str:
    """The page: YAML head, provided files, quality, compatibility, prompt, commands, checksums, origin."""
    sections = [
        _head(card),
        f"# {plain(card.title)}\n\n{_summary(card)}",
        _provided(card),
        _quality(card.files),
        _compatibility(card.files),
        _prompt(card.prompt),
        _run(card),
        _checksums(card.files),
        _origin(card),
    ]
    return "\n".join(sections)


def _head(card: Card) -> str:
    """The YAML that model hubs read; what nobody said is left out."""
    files = card.files
    containers = sorted({"gguf" if file.is_gguf else "ggml" for file in files})
    told = [tag for file in files for tag in file.tags]
    tags = _unique([*card.tags, *containers, *(["selfee"] if card.prompt.kind == "selfee" else []), *told])
    lines = []
    if card.base_model:
        lines += [f"base_model: {yaml_text(card.base_model)}", "base_model_relation: quantized"]
    if languages := _unique([*card.languages, *(each for file in files for each in file.languages)]):
        lines += ["language:", *(f"- {yaml_text(each)}" for each in languages)]
    if card.license:
        lines.append(f"license: {yaml_text(card.license)}")
    lines.append(f"model_name: {yaml_text(card.title)}")
    if card.quantized_by:
        lines.append(f"quantized_by: {yaml_text(card.quantized_by)}")
    lines += ["pipeline_tag: text-generation", "tags:", *(f"- {yaml_text(each)}" for each in tags)]
    return "\n".join(["---", *lines, "---", ""])


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _summary(card: Card) -> str:
    first = card.files[0]
    shapes = {(file.architecture, file.layers, file.vocabulary) for file in card.files}
    count = f"{len(card.files)} files" if len(card.files) > 1 else "One file"
    if len(shapes) > 1:
        return f"{count}, of models of different shapes.\n"
    largest = max(file.parameters for file in card.files)
    parts = [_count_text(largest) + " parameters"]
    parts += [f"{first.layers} layers"] if first.layers else []
    parts += [f"{first.vocabulary:,} tokens"]
    parts += [f"trained on texts of up to {first.trained_context:,} tokens"] if first.trained_context else []
    kind = f"architecture {plain(first.architecture)}" if first.architecture else "unknown architecture"
    return f"{count} of one model: {kind}, {', '.join(parts)}.\n"


def _count_text(count: int) -> str:
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{count / size:.2f} {word}"
    return f"{count:,}"


def _provided(card: Card) -> str:
    titles = ["Name", "Method", "Bits per weight", "Size", "RAM", "Use case", "Which tensors have which type"]
    same = len({file.memory.context for file in card.files if file.memory}) < 2
    rows = [
        [
            code(file.file),
            _method(file),
            f"{file.bits_per_weight:.2f}",
            f"{file.size:,} bytes ({size_text(file.size)})",
            _ram(file.memory, show_context=not same),
            plain(file.use),
            plain(file.mixture.words),
        ]
        for file in card.files
    ]
    notes = [*_label_notes(card.files), *_rule_notes(card.files), *_ram_notes(card.files)]
    listed = "".join(f"- {note}\n" for note in notes)
    return f"## Provided files\n\n{table(titles, rows, numbers=(2, 3, 4))}\n{listed}"


def _method(file: FileFacts) -> str:
    mixture = file.mixture
    label = f" (labelled {plain(mixture.label)})" if mixture.label and mixture.label != mixture.method else ""
    return plain(mixture.method) + label


def size_text(count: int) -> str:
    """Bytes as cards have them: 7.37 GB (of 10⁹ bytes), and below that 98.4 MB."""
    return f"{count / 1e9:.2f} GB" if count >= 10**9 else human_size(count)


def _ram(memory: MemoryFigure | None, *, show_context: bool) -> str:
    if memory is None:
        return "–"
    words = [] if memory.measured else ["computed"]
    words += [f"{memory.context:,} tokens"] if show_context else []
    return size_text(memory.total) + (f" ({', '.join(words)})" if words else "")


def _label_notes(files: Sequence[FileFacts]) -> list[str]:
    return [f"{code(file.file)}: {plain(file.mixture.problem)}." for file in files if file.mixture.problem]


def _rule_notes(files: Sequence[FileFacts]) -> list[str]:
    """Whose mixtures they are, of the files whose types tell."""
    found: dict[tuple[str, ...], list[str]] = {}
    for file in files:
        rules = file.mixture.rules
        if rules and "pure" not in rules and not set(_RULES) <= set(rules):
            found.setdefault(rules, []).append(code(file.file))
    return [
        f"{', '.join(names)}: the types are those that {' and '.join(_RULES[rule] for rule in rules)} "
        f"{'give' if len(rules) > 1 else 'gives'}."
        for rules, names in found.items()
    ]


def _ram_notes(files: Sequence[FileFacts]) -> list[str]:
    figures = [file.memory for file in files if file.memory]
    contexts = sorted({f"{figure.context:,}" for figure in figures})
    measured = [figure for figure in figures if figure.measured]
    notes = []
    if measured:
        held = "Up to " * (len(measured) > 1) + size_text(max(figure.own or 0 for figure in measured))
        notes.append(
            "RAM was measured: a process of its own ran the file with `selfee` on the CPU and evaluated a full context "
            f"of {_either(contexts)} tokens; this is its largest resident size, with the mapped weights, a second copy "
            "of them that the kernels make of small models, the key/value cache and the interpreter. "
            f"{held} of it the system cannot drop and read again."
        )
    if any(not figure.measured for figure in figures):
        notes.append(
            "RAM marked *computed* is the size of the file, an F16 key/value cache of "
            f"{_either(contexts)} tokens and working memory; nothing was run."
        )
    notes += [f"{code(file.file)}: {plain(file.memory.note)}." for file in files if file.memory and file.memory.note]
    return notes


def _either(numbers: Sequence[str]) -> str:
    return " or ".join(numbers)


def _quality(files: Sequence[FileFacts]) -> str:
    settings = _unique(figure.setting for file in files for figure in file.quality)
    if not settings:
        return f"## Quality\n\n{_NO_QUALITY}\n\n{block(measure(files), 'sh')}"
    return "## Quality\n\n" + "\n".join(_quality_table(files, setting) for setting in settings)


def _quality_table(files: Sequence[FileFacts], setting: str) -> str:
    titles = ["Name", "Size", "PPL", "ΔPPL", "KLD, mean", "KLD, 99 %", "Same top token"]
    rows = []
    for file in files:
        figure = next((each for each in file.quality if each.setting == setting), None)
        rows.append([code(file.file), size_text(file.size), *_quality_cells(figure)])
    has_base = any(figure.base for file in files for figure in file.quality if figure.setting == setting)
    words = _WITH_BASE if has_base else "PPL is perplexity, lower is better. No base file was compared with."
    return f"{table(titles, rows, numbers=range(1, 7))}\n{words}\n\nMeasured on {plain(setting)}.\n"


def _quality_cells(figure: QualityFigure | None) -> list[str]:
    if figure is None:
        return ["not measured"] + ["–"] * 4
    ppl = f"{figure.ppl:.4f}" + (f" ± {figure.ppl_error:.4f}" if figure.ppl_error is not None else "")
    change = "–" if figure.ppl_difference is None else f"{figure.ppl_difference:+.4f}"
    if figure.ppl_difference is not None and figure.ppl_difference_error is not None:
        change += f" ± {figure.ppl_difference_error:.4f}"
    divergences = ["–" if value is None else f"{value:.5f}" for value in (figure.kld, figure.kld_99)]
    return [ppl, change, *divergences, "–" if figure.same_top is None else f"{figure.same_top:.2%}"]


def _compatibility(files: Sequence[FileFacts]) -> str:
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for file in files:
        groups.setdefault((file.container, file.readers), []).append(code(file.file))
    lines = [
        f"- {', '.join(names)} ({plain(container)}): {'; '.join(plain(reader) for reader in readers)}.\n"
        for (container, readers), names in groups.items()
    ]
    lines += [f"- {code(file.file)}: {plain(file.why_not)}.\n" for file in files if file.why_not]
    note = ""
    if not all(file.is_gguf for file in files):
        note = (
            "\nGGML was replaced by GGUF in August 2023. `selfee convert` makes a GGUF file of a GGML one without "
            "touching a weight.\n"
        )
    return f"## Compatibility\n\n{''.join(lines)}{note}"


def _prompt(prompt: Prompt) -> str:
    text = {"chat": "jinja"}.get(prompt.kind, "text")
    shown = f"\n{block(prompt.text, text)}" if prompt.text else ""
    return f"## Prompt\n\n{_PROMPTS[prompt.kind]}\n{shown}"


def _run(card: Card) -> str:
    parts = ["## How to run\n"]
    for command in commands(card):
        parts.append(f"With {command.program}, {command.words}:\n\n{block(command.line, 'sh')}")
    return "\n".join(parts) + _OTHERS * (len(card.files) > 1)


def _checksums(files: Sequence[FileFacts]) -> str:
    lines = "\n".join(f"{file.sha256}  {file.file}" for file in files)
    return f"## Checksums\n\nSHA-256, as `sha256sum -c` reads them:\n\n{block(lines, 'text')}"


def _origin(card: Card) -> str:
    lines = [f"Base model: {link(card.base_model)}"] if card.base_model else []
    lines += [f"Quantised by: {plain(card.quantized_by)}"] if card.quantized_by else []
    lines += [f"Date: {plain(card.date)}"] if card.date else []
    licence = plain(card.license) if card.license else "the files state none; that of the model they were made of holds"
    lines.append(f"Licence: {licence}")
    lines += _told(card.files)
    limits = [
        "A quantised file is an approximation of the model that it was made of, with that model's faults and its own.",
        "What the model was trained on, and what it must not be used for, is for its makers to say; files do not tell.",
    ]
    if any(not file.is_gguf for file in card.files):
        limits.append(
            "GGML files say nothing of their origin, of the length of context or of the norm's epsilon: programs "
            "assume LLaMA 1's (2,048 tokens, 1e-6)."
        )
    listed = "".join(f"- {line}\n" for line in lines)
    caveats = "".join(f"- {limit}\n" for limit in limits)
    return f"## Origin, licence, limits\n\n{listed}\nWhat a card cannot know:\n\n{caveats}"


def _told(files: Sequence[FileFacts]) -> list[str]:
    """What files say of their origin; a key is told once if all that have it agree."""
    values: dict[str, dict[str, list[str]]] = {}
    for file in files:
        for key, value in file.told.items():
            values.setdefault(key, {}).setdefault(value, []).append(file.file)
    lines = []
    for key, found in list(values.items())[:_MOST_KEYS]:
        if len(found) == 1:
            lines.append(f"{code(key)}: {link(next(iter(found)))}")
        else:
            parts = [f"{link(value)} ({', '.join(code(name) for name in names)})" for value, names in found.items()]
            lines.append(f"{code(key)}: {'; '.join(parts)}")
    return lines
