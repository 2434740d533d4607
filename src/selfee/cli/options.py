"""Dataclass field -> flag: its name is the flag's, its comment is the flag's help, its default the flag's default."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, get_args, get_type_hints

import typer

from selfee.errors import UsageError


@dataclasses.dataclass(frozen=True)
class FlagGroup:
    """Flags for the fields of ``kind``, a dataclass; ``fields`` names them, None = all.

    ``prefix`` and ``suffix`` surround the flag's name (``--max-answer-tokens`` for the field ``answer``).
    """

    kind: type
    fields: Collection[str] | None = None
    omit: Collection[str] = ()
    prefix: str = ""
    suffix: str = ""
    has_variables: bool = True  # whether SELFEE_SOME_FLAG sets --some-flag
    help: str = ""  # for every flag; "{field}" is its name; empty = the field's comment
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)  # field -> help, where the comment is for Python
    only_given: bool = False  # hand over what was given, by field, and make no instance of it

    def names(self) -> dict[str, str]:
        """Field -> parameter name."""
        return {
            field.name: f"{self.prefix}{field.name}{self.suffix}"
            for field in dataclasses.fields(self.kind)
            if field.name not in self.omit and (self.fields is None or field.name in self.fields)
        }


def with_flags(*groups: FlagGroup) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of ``groups``; it receives the instances as its first arguments, in order.

    A flag that was not given keeps the field's default.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(*args: Any, **values: Any) -> None:
            built = [_build(group, values) for group in groups]
            function(*built, *args, **values)

        own = list(inspect.signature(function, eval_str=True).parameters.values())[len(groups) :]
        flags = [parameter for group in groups for parameter in _parameters(group)]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [parameter.replace(kind=keyword) for parameter in (*own, *flags)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del command.__wrapped__  # or typer looks at the annotations behind it
        return command

    return decorate


@functools.cache
def field_comments(kind: type) -> Mapping[str, str]:
    """The comment behind each field of a dataclass: the one place that says what it means."""
    source = textwrap.dedent(inspect.getsource(kind))
    comments = {
        token.start[0]: token.string.lstrip("# ").rstrip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    body = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)).body
    return {
        node.target.id: comments[node.end_lineno]
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno in comments
    }


def _parameters(group: FlagGroup) -> list[inspect.Parameter]:
    hints = get_type_hints(group.kind)
    comments = field_comments(group.kind)
    parameters = []
    for field, name in group.names().items():
        text = group.words.get(field) or group.help.format(field=field) or comments.get(field, "")
        annotation, default = _flag_type(hints[field], _default(group.kind, field))
        flag = f"--{name.replace('_', '-')}"
        declared = f"{flag}/--no-{flag[2:]}" if annotation is bool else flag
        help_text = _sentence(text) + ("" if default in (None, (), "") else f"  [default: {_shown(default)}]")
        variable = f"SELFEE_{name.upper()}" if group.has_variables else None
        option = typer.Option(declared, help=help_text, envvar=variable, show_envvar=False, show_default=False)
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation | None, option]
            )
        )
    return parameters


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _shown(default: object) -> str:
    if isinstance(default, enum.Enum):
        return str(default.value)
    return ("yes" if default else "no") if isinstance(default, bool) else str(default)


def _default(kind: type, name: str) -> Any:
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _flag_type(hint: Any, default: Any) -> tuple[Any, Any]:
    """What a person types for a field: plain values and names as they are, mappings and sequences as a text."""
    kinds: list[Any] = [bool, int, float, str, *_enums(hint)]
    for plain in kinds:
        if hint in (plain, plain | None):
            return plain, default
    return str, ",".join(default) if isinstance(default, tuple) else None


def _enums(hint: Any) -> list[type[enum.Enum]]:
    """The kinds of names in a field's type."""
    return [kind for kind in (hint, *get_args(hint)) if isinstance(kind, type) and issubclass(kind, enum.Enum)]


def _build(group: FlagGroup, values: dict[str, Any]) -> Any:
    hints = get_type_hints(group.kind)
    given = {field: values.pop(name) for field, name in group.names().items()}
    fields = {
        field: _parse(field, hints[field], value) if isinstance(value, str) else value
        for field, value in given.items()
        if value is not None
    }
    return fields if group.only_given else group.kind(**fields)


def _parse(field: str, hint: Any, text: str) -> Any:
    if hint in (str, str | None):
        return text
    if "Mapping" in str(hint):
        return parse_biases(text, f"--{field.replace('_', '-')}")
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_biases(text: str, where: str) -> dict[int, float]:
    """``"42=-1.5,7=2"`` -> {42: -1.5, 7: 2.0}. Raises UsageError naming the part that is wrong."""
    biases: dict[int, float] = {}
    for part in text.split(","):
        token, _, bias = part.partition("=")
        try:
            biases[int(token)] = float(bias)
        except ValueError as error:
            raise UsageError(f"{where}: {part!r} is no bias; expected TOKEN=NUMBER, for example 42=-1.5") from error
    return biases
