"""Chains as sequences of tokens with the sections they belong to: what drafting is measured on.

Released chains of SelFee (rows with ``whole_generation``) are read from files; nothing of them is kept here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfee.chain.format import header, render_prompt
from selfee.chain.record import from_answer
from selfee.chain.types import Section


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


def read_chains(path: Path, encode: Callable[[str], list[int]], first: Sequence[int] = ()) -> list[TokenChain]:
    """The chains of an answer file; ``encode`` gives tokens of a text that continues another, ``first`` begin one."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [_tokens(row, f"{path}:{number}", encode, first) for number, row in enumerate(rows, start=1)]


def _tokens(row: object, where: str, encode: Callable[[str], list[int]], first: Sequence[int]) -> TokenChain:
    assert isinstance(row, dict), where
    chain = from_answer(row, where)
    parts = []
    for index, step in enumerate(chain.steps):
        section = Section.REVISION if index else Section.ANSWER
        parts.append(_part(section, header(section, index), step.answer, encode))
        if step.feedback is not None:
            parts.append(_part(Section.FEEDBACK, header(Section.FEEDBACK, index + 1), step.feedback, encode))
    return TokenChain([*first, *encode(render_prompt(chain.instruction))], parts)


def _part(section: Section, opening: str, text: str, encode: Callable[[str], list[int]]) -> Part:
    tokens, before = encode(opening + text), len(encode(opening)) if opening else 0
    return Part(section, tokens, len(tokens) - before)
