"""From texts to the tokens of a prompt, as today or as in June 2023; and whether a prompt suits its model."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass

from selfee.llama.tokenizer import Tokenizer

INSTRUCTION = "\n\n### Instruction:\n\n"
RESPONSE = "\n\n### Response:\n\n"
"""What -ins puts before and after what is typed: Alpaca's words, with a line break more."""

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}
RANDOM_PROMPTS = ("So", "Once upon a time", "When", "The", "After", "If", "import", "He", "She", "They")


def unescape(text: str) -> str:
    r"""\n, \r, \t, \', \" and \\ as what they stand for; any other backslash stays."""
    return re.sub(r"\\([nrt'\"\\])", lambda found: _ESCAPES[found[1]], text)


@dataclass(frozen=True)
class Encoder:
    """Makes tokens of what the loop reads. ``is_2023``: each text by itself, a space before the prompt, and a beginning
    of text before every instruction.
    """

    tokenizer: Tokenizer
    is_2023: bool = False

    def prompt(self, text: str) -> list[int]:
        """The tokens a text begins with: at least one."""
        has_bos = self.tokenizer.bos is not None
        if self.is_2023:
            tokens = self.tokenizer.encode(" " + text, add_bos=has_bos, continues=True)
        else:
            tokens = self.tokenizer.encode(text)
        first = self.tokenizer.bos if has_bos else self.tokenizer.eos
        return tokens or [0 if first is None else first]

    def more(self, text: str) -> list[int]:
        """The tokens of a text that follows others."""
        return self.tokenizer.encode(text, add_bos=False, continues=True)

    def instruction(self, text: str, *, is_announced: bool) -> tuple[list[int], int]:
        """What was typed in Alpaca's form, and how many of the tokens are its own.

        ``is_announced``: the model has just written the announcement itself.
        """
        if self.is_2023:
            has_bos = self.tokenizer.bos is not None
            before = [] if is_announced else self.tokenizer.encode(INSTRUCTION, add_bos=has_bos, continues=True)
            own = self.more(text)
            return [*before, *own, *self.more(RESPONSE)], len(own)
        before_text = "" if is_announced else INSTRUCTION
        return self.more(before_text + text + RESPONSE), len(self.more(text))


def misfit(text: str, *, is_instruct: bool, is_selfee: bool, has_template: bool, model: str) -> str | None:
    """What to tell somebody whose prompt is in a form that the model was not trained on; None if it may be."""
    if not (is_instruct or "### Response:" in text):
        return None
    form = "-ins asks" if is_instruct else "the prompt asks"
    if is_selfee:
        return (
            f"{form} with '### Response:', which a SelFee model has never seen: it answers after '### Answer:', then "
            f"criticises and revises; selfee chat --template selfee -m {model} does that, as does selfee ask"
        )
    if has_template:
        return f"{form} in Alpaca's form, but the file has a chat template of its own; selfee chat -m {model} uses it"
    return None


class BareDecoder:
    """The text of tokens one after another, as it was shown in 2023: with the space that encoding put in front."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The text that this token makes certain."""
        return self._utf8.decode(_shown_bytes(self._tokenizer, token))

    def finish(self) -> str:
        """What was withheld of a character that never became complete."""
        return self._utf8.decode(b"", final=True)


def _shown_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    is_silent = token == tokenizer.bos or token in tokenizer.end_tokens
    return b"" if is_silent else tokenizer.token_bytes(token)


def tail_of(tokenizer: Tokenizer, tokens: Sequence[int], count: int) -> tuple[bytes, int]:
    """At least the last ``count`` bytes of the text of ``tokens``, if there are so many, and the length of the last
    token's. Tokens that are no text count as empty.
    """
    pieces: list[bytes] = []
    total = 0
    for token in reversed(tokens):
        pieces.append(_shown_bytes(tokenizer, token))
        total += len(pieces[-1])
        if total >= count:
            break
    return b"".join(reversed(pieces)), len(pieces[0]) if pieces else 0
