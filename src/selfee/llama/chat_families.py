"""The chat formats of well-known model families, written by us: nothing of a file is run to use them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from selfee.llama.special import Part


class HasRoleContent(Protocol):
    """One turn of a chat."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True)
class Marks:
    """The texts of a vocabulary's beginning and end tokens, as templates write them; "" where there is none."""

    bos: str
    eos: str


@dataclass(frozen=True)
class Family:
    """One way to write a chat: ``{role}`` in ``before`` is the role's name, ``after`` ends a turn.

    ``first`` begins the text; ``names`` renames roles. ``strips`` removes blanks around contents. Without
    ``has_system`` the system's words, then ``system_end``, begin the first user's turn, between ``system_marks``.
    """

    before: str
    after: str
    first: str = ""
    assistant: tuple[str, str] | None = None  # before and after an assistant's turn, where they differ
    invite: str | None = None  # what asks the assistant to speak, where it is not ``before``
    assistant_name: str = "assistant"
    strips: bool = False
    has_system: bool = True
    system_marks: tuple[str, str] = ("", "\n\n")
    default_system: str | None = None
    name: str = ""  # for people

    def parts(self, messages: Sequence[HasRoleContent]) -> list[Part]:
        """The chat up to where the assistant speaks: markup is true, contents are false."""
        return [(text, is_markup) for text, is_markup in self._write(messages) if text]

    def _write(self, messages: Sequence[HasRoleContent]) -> Iterator[Part]:
        yield self.first, True
        if self.default_system is not None and (not messages or messages[0].role != "system"):
            yield self._before("system") + self.default_system + self.after, True
        waiting: list[str] = []
        for message in messages:
            content = message.content.strip() if self.strips else message.content
            if message.role == "system" and not self.has_system:
                waiting.append(message.content)
            elif message.role == "assistant" and self.assistant is not None:
                yield self.assistant[0], True
                yield content, False
                yield self.assistant[1], True
            else:
                yield self._before(message.role), True
                if message.role == "user" and waiting:
                    yield from self._system(waiting)
                    waiting = []
                yield content, False
                yield self.after, True
        if waiting:  # nobody has spoken yet: the system's words are all there is
            yield self._before("user"), True
            yield from self._system(waiting)
            yield self.after, True
        yield self._before("assistant") if self.invite is None else self.invite, True

    def _before(self, role: str) -> str:
        return self.before.replace("{role}", self.assistant_name if role == "assistant" else role)

    def _system(self, contents: Sequence[str]) -> Iterator[Part]:
        yield self.system_marks[0], True
        yield "\n\n".join(contents), False
        yield self.system_marks[1], True


_ALPACA_OPENING = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)


class Alpaca:
    """Stanford Alpaca's form: headings in plain text, no special tokens. A system's words take the opening's place."""

    name = "Alpaca"

    def parts(self, messages: Sequence[HasRoleContent]) -> list[Part]:
        """See ``Family.parts``."""
        system = [message.content for message in messages if message.role == "system"]
        opening: Part = ("\n\n".join(system), False) if system else (_ALPACA_OPENING, True)
        parts = [opening, ("\n\n", True)]
        for message in messages:
            if message.role != "system":
                heading = "### Instruction:\n" if message.role == "user" else "### Response:\n"
                parts += [(heading, True), (message.content, False), ("\n\n", True)]
        return [*(part for part in parts if part[0]), ("### Response:\n", True)]


CHATML = Family("<|im_start|>{role}\n", "<|im_end|>\n", name="ChatML")
NAMED: Mapping[str, tuple[Family | Alpaca, Sequence[str]]] = {
    "alpaca": (Alpaca(), ("### Instruction:", "### Response:")),
    "chatml": (CHATML, ("<|im_end|>", "<|im_start|>")),
}
"""Formats that can be asked for by name, with the texts that end an answer where no end token does."""


def candidates(template: str, marks: Marks) -> Iterator[Family]:
    """Families whose marks a template shows, likelier ones first. Only their agreement with it decides."""
    strips = "trim" in template or "strip()" in template
    for is_shown, make in _FAMILIES:
        if all(mark in template for mark in is_shown):
            yield from make(template, marks, strips)


def _chatml(template: str, marks: Marks, strips: bool) -> Iterator[Family]:
    default = re.search(r"<\|im_start\|>system(?:\\n|\n)([^'\"{}]*?)<\|im_end\|>", template)
    for first in ("", marks.bos):
        family = replace(CHATML, first=first, strips=strips)
        if default:
            yield replace(family, default_system=default[1])
        yield family


def _llama3(template: str, marks: Marks, strips: bool) -> Iterator[Family]:
    yield Family(
        "<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>", marks.bos, strips=strips, name="Llama 3"
    )


def _zephyr(template: str, marks: Marks, strips: bool) -> Iterator[Family]:
    yield Family("<|{role}|>\n", f"{marks.eos}\n", strips=strips, name="Zephyr")


def _phi3(template: str, marks: Marks, strips: bool) -> Iterator[Family]:
    for first in (marks.bos, ""):
        yield Family("<|{role}|>\n", "<|end|>\n", first, strips=strips, name="Phi-3")


def _gemma(template: str, marks: Marks, strips: bool) -> Iterator[Family]:
    yield Family(
        "<start_of_turn>{role}\n",
        "<end_of_turn>\n",
        marks.bos,
        assistant_name="model",
        strips=strips,
        has_system=False,
        name="Gemma",
    )


def _llama2(template: str, marks: Marks, strips: bool) -> Iterator[Family]:
    yield Family(
        f"{marks.bos}[INST] ",
        " [/INST]",
        assistant=(" ", f" {marks.eos}"),
        invite="",
        strips=strips,
        has_system=False,
        system_marks=("<<SYS>>\n", "\n<</SYS>>\n\n"),
        name="Llama 2",
    )


def _mistral(template: str, marks: Marks, strips: bool) -> Iterator[Family]:
    for before, after in (("[INST] ", " [/INST]"), (" [INST] ", " [/INST]"), ("[INST]", "[/INST]")):
        for assistant in (("", marks.eos), (" ", marks.eos), ("", f"{marks.eos} "), (" ", f" {marks.eos}")):
            family = Family(before, after, marks.bos, assistant=assistant, invite="", strips=strips, has_system=False)
            yield replace(family, name="Mistral")


_Maker = Callable[[str, Marks, bool], Iterator[Family]]
_FAMILIES: Sequence[tuple[Sequence[str], _Maker]] = (
    (("<|im_start|>", "<|im_end|>"), _chatml),
    (("<|start_header_id|>", "<|eot_id|>"), _llama3),
    (("<|assistant|>", "<|end|>"), _phi3),
    (("<|user|>", "<|assistant|>", "eos_token"), _zephyr),
    (("<|' + message['role'] + '|>",), _phi3),
    (("<start_of_turn>", "<end_of_turn>"), _gemma),
    (("[INST]", "<<SYS>>"), _llama2),
    (("[INST]",), _mistral),
)
