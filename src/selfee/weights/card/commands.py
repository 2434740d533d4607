"""What a card is made of besides the files' facts, and the command lines on it, which must work as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfee.weights.card.facts import FileFacts
from selfee.weights.card.markdown import shell_word

QUESTION = "Why is the sky blue?"
"""What the examples ask."""

_PREFERRED = ("q4_K_M", "q5_K_M", "q4_K_S", "q5_K_S", "q6_K", "q4_1", "q4_0", "q5_0", "q5_1", "q8_0", "q3_K_L")


@dataclass(frozen=True)
class Prompt:
    """How a model wants to be asked."""

    kind: str  # "selfee", "alpaca", "chat" or "none"
    text: str = ""  # with {instruction} in its place; the template itself for "chat"
    example: str = ""  # the text for ``QUESTION``; "" for "chat" and "none"


@dataclass(frozen=True)
class Command:
    """One command line of the card: ``program`` runs it, ``line`` is for a POSIX shell."""

    program: str  # "selfee", "llama.cpp", "llama.cpp of 2023"
    words: str  # what it does
    line: str


@dataclass(frozen=True)
class Card:
    """The files, smallest first, and what their maker says about them; "" and () = nothing."""

    title: str
    files: Sequence[FileFacts]
    prompt: Prompt
    context: int
    license: str = ""
    base_model: str = ""
    quantized_by: str = ""
    date: str = ""
    languages: Sequence[str] = ()
    tags: Sequence[str] = ()


def example_prompt(render: str) -> str:
    """``{instruction}`` of a prompt replaced by the card's own question."""
    return render.replace("{instruction}", QUESTION)


def default_file(files: Sequence[FileFacts]) -> FileFacts:
    """The file to use in examples: one that runs here, of the best-kept small type."""
    usable = [file for file in files if file.runs_here] or list(files)
    for name in _PREFERRED:
        for file in usable:
            if file.mixture.method == name:
                return file
    return usable[0]


def commands(card: Card) -> list[Command]:
    """Command lines that run one of the files, for each program that can."""
    file = default_file(card.files)
    found = []
    if file.runs_here:
        ask = f"selfee ask -m {_word(file)} {shell_word(QUESTION)}"
        found.append(Command("selfee", "an answer that the model criticises and revises until it is content", ask))
        found.append(Command("selfee", "the same with one revision, wanted or not", f"{ask} --revisions 1"))
    found.append(Command("selfee", "what the file is", f"selfee inspect {_word(file)}"))
    for container in (True, False):
        of_kind = [each for each in card.files if each.is_gguf is container]
        if of_kind:
            found.append(_llama_cpp(default_file(of_kind), card) if container else _main(default_file(of_kind), card))
    return found


def measure(files: Sequence[FileFacts]) -> str:
    """The line that measures the quality of all files that run here, against an unquantised one among them."""
    usable = [file for file in files if file.runs_here] or list(files)
    plain = [file for file in usable if file.mixture.method in ("f16", "bf16", "f32")]
    if not plain:
        return f"selfee perplexity {' '.join(_word(file) for file in usable)} prose.txt --out results.jsonl"
    base = plain[0]
    names = " ".join(_word(file) for file in usable if file.vocabulary == base.vocabulary)
    return f"selfee perplexity {names} prose.txt --kl {_word(base)} --out results.jsonl"


def _llama_cpp(file: FileFacts, card: Card) -> Command:
    context = f"-c {_context_of(file, card)}"
    if card.prompt.example:
        line = f"llama-completion -m {_word(file)} {context} --temp 0.7 -no-cnv -e -p {_escaped(card.prompt.example)}"
        return Command("llama.cpp", "one answer (before December 2025 the program is llama-cli)", line)
    line = f"llama-cli -m {_word(file)} {context} --temp 0.7"
    return Command("llama.cpp", "a conversation", line)


def _main(file: FileFacts, card: Card) -> Command:
    """``main`` expands \\n only with -e, and puts one space before the prompt by itself."""
    prompt = card.prompt.example or QUESTION
    options = f"-c {_context_of(file, card)} --temp 0.7 --repeat_penalty 1.1 -n -1"
    line = f"./main -t 8 -m {_word(file)} {options} -e -p {_escaped(prompt)}"
    return Command("llama.cpp of 2023", "one answer, from a build of that time", line)


def _context_of(file: FileFacts, card: Card) -> int:
    return min(card.context, file.trained_context or card.context)


def _word(file: FileFacts) -> str:
    return shell_word(file.file)


def _escaped(prompt: str) -> str:
    return shell_word(prompt.replace("\\", "\\\\").replace("\n", "\\n"))
