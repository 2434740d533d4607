"""A conversation as the tokens a chat model was trained on; what people say never becomes a special token."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from selfee.errors import BadFileError, UsageError
from selfee.llama.chat_families import NAMED, Family, HasRoleContent, Marks, candidates
from selfee.llama.jinja_sandbox import RefusedError, compile_template, usage_refusal
from selfee.llama.special import Part
from selfee.llama.tokenizer import Tokenizer

if TYPE_CHECKING:
    from selfee.weights.checkpoint import Vocab

ROLES = ("system", "user", "assistant")


class Renderer(Protocol):
    """Writes a chat as parts, markup apart from contents."""

    def parts(self, messages: Sequence[HasRoleContent]) -> list[Part]: ...


class ChatTemplate:
    """How one model's conversations are written.

    Well-known formats are written by our own code wherever that gives what the file's template gives; any other
    template is run in a sandbox with limits (see ``jinja_sandbox``). ``family`` is the format in the first case;
    ``name`` is what people call it, "" where nobody does. ``stops`` are texts that end an answer where no end token
    does.
    """

    def __init__(self, renderer: Renderer, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._renderer = renderer
        self._tokenizer = tokenizer
        self.family = renderer if isinstance(renderer, Family) else None
        self.name = str(getattr(renderer, "name", ""))
        self.stops = tuple(stops)

    @classmethod
    def named(cls, name: str, tokenizer: Tokenizer) -> ChatTemplate:
        """A well-known format, whatever the file brings. Raises UsageError for a name that is none."""
        if name not in NAMED:
            raise UsageError(f"template: {name!r} is unknown; expected one of {', '.join(NAMED)}")
        renderer, stops = NAMED[name]
        return cls(renderer, tokenizer, stops)

    @classmethod
    def for_vocab(cls, vocab: Vocab, tokenizer: Tokenizer) -> ChatTemplate | None:
        """The template a file brings, or None where it brings none. A bad one is refused when it is first used, so
        that the model can still continue plain text.
        """
        if not vocab.chat_template:
            return None
        marks = Marks(
            bos="" if tokenizer.bos is None else tokenizer.piece(tokenizer.bos),
            eos="" if tokenizer.eos is None else tokenizer.piece(tokenizer.eos),
        )
        return cls(_choose(vocab.chat_template, marks), tokenizer)

    def encode(self, messages: Sequence[HasRoleContent], prefix: str = "") -> list[int]:
        """Token ids of the chat up to where the assistant goes on after ``prefix``.

        Equal to ``tokenizer.encode(self.render(messages, prefix), parse_special=True)`` unless somebody's words
        spell a control token: those stay words. Raises UsageError for messages the template does not know,
        BadFileError for a template that cannot be used.
        """
        return self._tokenizer.encode_parts(self._parts(messages, prefix))

    def render(self, messages: Sequence[HasRoleContent], prefix: str = "") -> str:
        """The same as text, for people to read; without the beginning-of-text token that encoding adds."""
        return _text(self._parts(messages, prefix))

    def _parts(self, messages: Sequence[HasRoleContent], prefix: str) -> list[Part]:
        if not messages:
            raise UsageError("chat: there are no messages; expected at least one")
        for message in messages:
            if message.role not in ROLES:
                raise UsageError(f"chat: role {message.role[:40]!r} is unknown; expected one of {', '.join(ROLES)}")
        parts = [*self._renderer.parts(messages), (prefix, False)]
        tokenizer = self._tokenizer
        if tokenizer.add_bos and tokenizer.bos is not None and parts[0][1]:
            parts[0] = (parts[0][0].removeprefix(tokenizer.piece(tokenizer.bos)), True)
        return parts


@dataclass(frozen=True)
class _Turn:
    role: str
    content: str


class FileTemplate:
    """A file's own Jinja template, run in a sandbox."""

    def __init__(self, source: str, marks: Marks) -> None:
        self._run = compile_template(source)
        self._names = {"bos_token": marks.bos, "eos_token": marks.eos}

    def parts(self, messages: Sequence[HasRoleContent]) -> list[Part]:
        """Markup apart from contents, found by rendering stand-ins for the contents first.

        Raises UsageError where the template refuses or leaves out a message, BadFileError where it changes contents
        beyond blanks around them, because then nobody can tell its words from theirs.
        """
        try:
            return self._split(messages)
        except (RefusedError, UsageError) as error:
            merged = _merge_system(messages)
            if merged is None:
                raise usage_refusal(error) if isinstance(error, RefusedError) else error from error
        # Many templates know no system: its words then begin the user's (in llama.cpp too, with one line break).
        try:
            return self._split(merged)
        except RefusedError as error:
            raise usage_refusal(error) from error

    def _split(self, messages: Sequence[HasRoleContent]) -> list[Part]:
        nonce = secrets.randbits(64)  # nobody can write a stand-in into a message
        names = [f"\ue000{nonce}-{number}\ue001" for number in range(len(messages))]
        roles = [message.role for message in messages]
        contents = dict(zip(names, (message.content for message in messages), strict=True))
        frame = self._render(roles, names)
        missing = [role for role, name in zip(roles, names, strict=True) if name not in frame]
        if missing:
            raise UsageError(
                f"chat template: it leaves out a message of the {missing[0]}; expected all to be used; send it without"
            )
        pieces = re.split("(" + "|".join(names) + ")", frame)
        return list(_align(pieces, contents, self._render(roles, list(contents.values()))))

    def _render(self, roles: Sequence[str], contents: Sequence[str]) -> str:
        turns = zip(roles, contents, strict=True)
        return self._run([{"role": role, "content": content} for role, content in turns], self._names)


def _merge_system(messages: Sequence[HasRoleContent]) -> Sequence[HasRoleContent] | None:
    """The chat with a leading system's words put before the first user's; None where it does not begin like that."""
    if [message.role for message in messages[:2]] != ["system", "user"]:
        return None
    return [_Turn("user", f"{messages[0].content}\n\n{messages[1].content}"), *messages[2:]]


def _align(pieces: Sequence[str], contents: dict[str, str], text: str) -> list[Part]:
    """Parts of ``text``, which is ``pieces`` with stand-ins replaced by contents, or by contents without blanks."""
    parts: list[Part] = []
    position = 0
    for piece, following in zip(pieces, [*pieces[1:], ""], strict=True):
        options = [piece]
        if piece in contents:
            content = contents[piece]
            options = [content, content.strip(), content.lstrip(), content.rstrip()]
            following = "" if following in contents else following
        for option in options:
            if text.startswith(option, position) and text.startswith(following, position + len(option)):
                break
            if piece not in contents and text.startswith(option, position):
                break
        else:
            raise _edits_contents()
        if option:
            parts.append((option, piece not in contents))
        position += len(option)
    if position != len(text):
        raise _edits_contents()
    return parts


def _edits_contents() -> BadFileError:
    return BadFileError(
        "tokenizer.chat_template: the file's chat template changes what people say; expected it to arrange messages; "
        "use the guided mode, which needs no template"
    )


@dataclass(frozen=True)
class _Unusable:
    """Stands for a template that was refused when the file was opened."""

    error: BadFileError

    def parts(self, messages: Sequence[HasRoleContent]) -> list[Part]:
        raise self.error


_PROBES = (
    (_Turn("user", "Ask 1."), _Turn("assistant", "Say 2."), _Turn("user", "Ask 3.")),
    (_Turn("system", "Be 0."), _Turn("user", "Ask 1."), _Turn("assistant", "Say 2."), _Turn("user", "Ask 3.")),
)


def _choose(source: str, marks: Marks) -> Renderer:
    """The first family that writes what the template writes; else the template; else, if it cannot be run, a family
    whose marks it shows.
    """
    families = list(candidates(source, marks))
    try:
        template = FileTemplate(source, marks)
        written = [_written(template, probe) for probe in _PROBES]
    except BadFileError as error:
        return families[0] if families else _Unusable(error)
    for family in families:
        alone, with_system = (_text(family.parts(probe)) for probe in _PROBES)
        if written[0] == alone and written[1] in (None, with_system):
            return family
    return template


def _written(template: FileTemplate, probe: Sequence[HasRoleContent]) -> str | None:
    try:
        return _text(template.parts(probe))
    except UsageError:
        return None


def _text(parts: Sequence[Part]) -> str:
    return "".join(text for text, _ in parts)
