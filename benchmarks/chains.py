"""Chains as sequences of tokens with the sections they belong to: what drafting is measured on.

Released chains of SelFee (rows with ``whole_generation``) are read from files; nothing of them is kept here.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from selfee.chain.format import header, render_prompt
from selfee.chain.record import from_answer
from selfee.chain.types import Chain, Section
from selfee.llama.tokenizer import Tokenizer


@dataclass(frozen=True)
class Part:
    """One section with the header before it, as tokens; ``body`` of them are the section's own."""

    section: Section
    tokens: list[int]
    body: int

    @property
    def text(self) -> list[int]:
        """The section without its header."""
        return self.tokens[len(self.tokens) - self.body :]


@dataclass(frozen=True)
class TokenChain:
    """A prompt and the sections after it."""

    prompt: list[int]
    parts: list[Part]

    @property
    def count(self) -> int:
        """Tokens that the model wrote."""
        return sum(len(part.tokens) for part in self.parts)

    @property
    def text(self) -> list[int]:
        """What the model wrote, headers included."""
        return [token for part in self.parts for token in part.tokens]

    @property
    def originals(self) -> dict[int, list[int]]:
        """After how many tokens of ``text`` a section's own text begins, and what that revises, if anything."""
        found: dict[int, list[int]] = {}
        at = 0
        answer: list[int] = []
        for part in self.parts:
            found[at + len(part.tokens) - part.body] = answer if part.section is Section.REVISION else []
            if part.section.is_answer:
                answer = part.text
            at += len(part.tokens)
        return found


def read_chains(path: Path, tokenizer: Tokenizer) -> list[TokenChain]:
    """The chains of an answer file, each encoded as one text, which is how an engine that enforces revisions asks."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [_tokens(row, f"{path}:{number}", tokenizer) for number, row in enumerate(rows, start=1)]


def _tokens(row: object, where: str, tokenizer: Tokenizer) -> TokenChain:
    """A token belongs to the section that it begins in."""
    assert isinstance(row, dict), where
    chain = from_answer(row, where)
    text, cuts, sections = render_prompt(chain.instruction), [], []  # cuts: where headers and bodies begin
    for section, opening, body in _sections(chain):
        cuts += [len(text.encode()), len((text + opening).encode())]
        sections.append(section)
        text += opening + body
    tokens = tokenizer.encode(text, add_bos=False)
    lengths = [len(tokenizer.token_bytes(token)) for token in tokens]
    at = len(text.encode()) - sum(lengths)  # below zero: a space that the vocabulary puts in front
    starts = list(accumulate(lengths, initial=at))[:-1]
    places = [*(bisect_left(starts, cut) for cut in cuts), len(tokens)]
    parts = [
        Part(section, tokens[first:end], end - body)
        for section, first, body, end in zip(sections, places[:-1:2], places[1::2], places[2::2], strict=True)
    ]
    beginning = [tokenizer.bos] if tokenizer.add_bos and tokenizer.bos is not None else []
    return TokenChain([*beginning, *tokens[: places[0]]], parts)


def _sections(chain: Chain) -> Iterator[tuple[Section, str, str]]:
    """Section, header and text, in the order of the text."""
    for index, step in enumerate(chain.steps):
        section = Section.REVISION if index else Section.ANSWER
        yield section, header(section, index), step.answer
        if step.feedback is not None:
            yield Section.FEEDBACK, header(Section.FEEDBACK, index + 1), step.feedback
