"""Chains and a tokenizer for the tests of training."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from tests.tiny_hf import make_tiny_hf

from selfee.chain.record import to_json
from selfee.chain.types import Chain, ChainEnd, Instruction, Step
from selfee.chain.verdict import find_verdict
from selfee.jsonl import write_jsonl
from selfee.llama.tokenizer import Tokenizer, load_tokenizer
from selfee.weights.open import open_checkpoint

WANTS = "Too short. Revision is needed."
CONTENT = "Correct. Revision is not needed."


def chain_of(*turns: tuple[str, str | None], question: str = "Why is the sky blue?", input: str = "") -> Chain:
    """A chain of answers, each with the feedback on it."""
    steps = tuple(Step(answer, told, find_verdict(told) if told else None) for answer, told in turns)
    return Chain(Instruction(question, input), steps, ChainEnd.ACCEPTED)


def some_chains(count: int = 8) -> list[Chain]:
    """Chains of different lengths, some with a revision."""
    return [
        chain_of(
            (f"Answer {number} " + "is this " * (number % 5), WANTS),
            (f"Better answer {number}", CONTENT),
            question=f"Question {number}?",
        )
        if number % 3
        else chain_of((f"Answer {number}", CONTENT), question=f"Question {number}?")
        for number in range(count)
    ]


def write_chains(path: Path, chains: list[Chain]) -> Path:
    """A training file in our own format."""
    write_jsonl(path, [to_json(chain) for chain in chains])
    return path


@cache
def tiny_tokenizer(kind: Literal["bpe", "spm"]) -> Tokenizer:
    """The tokenizer of a tiny Hugging Face folder, as inference loads it."""
    with TemporaryDirectory() as name:
        make_tiny_hf(Path(name), tokenizer=kind)
        return load_tokenizer(open_checkpoint(name).vocab)
