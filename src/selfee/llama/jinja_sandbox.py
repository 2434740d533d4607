"""Run a chat template that came with a file as what it is: a stranger's program.

Jinja's own sandbox keeps a template away from Python's internals (CVE-2024-34359 was a template without it). This one
also bounds what a template may cost: its length, the text it makes, the values it builds, its steps and its time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from selfee.errors import BadFileError, UsageError

MAX_TEMPLATE = 128 * 1024  # characters; the longest published templates have some 30,000
MAX_VALUE = 1 << 20  # characters of a text, entries of a list, beyond what the messages themselves have
MAX_WORK = 1 << 26  # characters of template passed over by loops and calls
MAX_SECONDS = 5.0

_BUDGET = "the budget"  # no template can say a name with a space in it
_NODE = 16  # characters that one value inside a list counts for
_FILTERS = (
    "abs capitalize count d default e escape first float int items last length list lower map reject rejectattr "
    "reverse round safe select selectattr string title trim upper"
)
_METHODS = {
    str: "strip lstrip rstrip startswith endswith split rsplit splitlines upper lower title capitalize find rfind "
    "count index isdigit isalpha isalnum isspace isupper islower removeprefix removesuffix partition rpartition",
    dict: "get items keys values",
    list: "index count",
    tuple: "index count",
}
_ALLOWED_METHODS = {(kind, name) for kind, names in _METHODS.items() for name in names.split()}


class RefusedError(Exception):
    """The template called ``raise_exception``: it does not know such a conversation."""


class _LimitError(Exception):
    """The template costs more than any honest one."""


class _Budget:
    """What one rendering may still cost."""

    def __init__(self, template_length: int, content_length: int) -> None:
        self._step = max(template_length, 1024)
        self._work = MAX_WORK
        self._text = MAX_VALUE + 8 * content_length
        self.value = MAX_VALUE + 2 * content_length
        self._deadline = time.monotonic() + MAX_SECONDS

    def step(self) -> None:
        """One turn of a loop or one call: it may pass over the whole template once."""
        self._work -= self._step
        if self._work < 0 or time.monotonic() > self._deadline:
            raise _LimitError("runs too long")

    def emit(self, length: int) -> None:
        self._text -= length
        if self._text < 0:
            raise _LimitError("makes too long a text")

    def check(self, size: float) -> None:
        if size > self.value:
            raise _LimitError("builds too large a value")

    def weigh(self, *values: Any) -> None:
        """Check how large values are when written out: a list of the same list is small only in memory."""
        total, waiting = 0, list(values)
        while waiting:
            value = waiting.pop()
            total += _NODE
            if isinstance(value, str):
                total += len(value)
            elif isinstance(value, dict):
                waiting += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple):
                waiting += value
            self.check(total + _NODE * len(waiting))


def _budget(context: Context) -> _Budget:
    budget = context.parent[_BUDGET]
    assert isinstance(budget, _Budget)
    return budget


class _Guards(NodeTransformer):
    """Puts checks where Jinja compiles to plain Python: on loops, on ``~``, on lists and the like written out."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 (the visitor's naming)
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        items = nodes.List(list(node.nodes), lineno=node.lineno)
        return nodes.Filter(items, "join", [], [], None, None, lineno=node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return nodes.Filter(node, "_built", [], [], None, None, lineno=node.lineno)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return nodes.Filter(node, "_built", [], [], None, None, lineno=node.lineno)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(node, "_built", [], [], None, None, lineno=node.lineno) if node.ctx == "load" else node


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            finalize=_emitted,
            cache_size=0,
        )
        wanted = set(_FILTERS.split())
        self.filters = {name: function for name, function in self.filters.items() if name in wanted}
        self.filters |= {"tojson": _to_json, "join": _join, "replace": _replace, "_counted": _counted, "_built": _built}
        self.globals = {"range": _range, "namespace": Namespace, "raise_exception": _raise_exception}

    def _generate(self, source: nodes.Template, *args: Any, **more: Any) -> str:
        return super()._generate(_Guards().visit(source), *args, **more)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget = _budget(__context)
        budget.step()
        if not __self._is_known(__obj):
            if isinstance(getattr(__obj, "__self__", None), str) and __obj.__name__ == "replace":
                return _replace(__context, __obj.__self__, *args, **kwargs)
            raise _LimitError(f"calls {getattr(__obj, '__name__', 'something')}, which is not allowed")
        result = super().call(__context, __obj, *args, **kwargs)
        budget.weigh(result)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = _budget(context)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if numbers and operator != "**":
            budget.check(max(abs(left), abs(right)) // (1 << 40))
        elif operator == "+":
            budget.weigh(left, right)
        elif operator == "*" and isinstance(left, str) and isinstance(right, int):
            budget.check(len(left) * right)
        else:
            raise _LimitError(f"uses {operator} on {type(left).__name__} and {type(right).__name__}")
        return super().call_binop(context, operator, left, right)

    def _is_known(self, function: Any) -> bool:
        if isinstance(function, Macro) or function in (_range, _raise_exception, Namespace):
            return True
        owner = type(getattr(function, "__self__", None))
        return (owner, getattr(function, "__name__", "")) in _ALLOWED_METHODS


@pass_context
def _emitted(context: Context, value: Any) -> Any:
    text = value if isinstance(value, str) else str(value)
    _budget(context).emit(len(text))
    return text


@pass_context
def _built(context: Context, value: Any) -> Any:
    budget = _budget(context)
    budget.step()
    budget.weigh(value)
    return value


@pass_context
def _counted(context: Context, values: Any) -> Any:
    budget = _budget(context)
    for value in values:
        budget.step()
        yield value


@pass_context
def _join(context: Context, values: Any, d: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        values = [context.environment.getitem(value, attribute) for value in values]
    texts = [value if isinstance(value, str) else str(value) for value in values]
    separator = str(d)
    _budget(context).check(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


@pass_context
def _replace(context: Context, text: Any, old: str, new: str, count: int = -1) -> str:
    whole, old, new = str(text), str(old), str(new)
    count = -1 if count is None else count
    places = whole.count(old) if old else len(whole) + 1
    _budget(context).check(len(whole) + places * len(new))
    return whole.replace(old, new, count)


@pass_context
def _to_json(context: Context, value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=None if indent is None else max(0, min(int(indent), 8)))


@pass_context
def _range(context: Context, *bounds: int) -> range:
    values = range(*bounds)
    _budget(context).check(_NODE * len(values))
    return values


def _raise_exception(message: object) -> None:
    raise RefusedError(str(message)[:300])


def compile_template(source: str) -> Callable[[Sequence[Mapping[str, str]], Mapping[str, str]], str]:
    """Make a function (messages, names) -> text of a template.

    It raises RefusedError where the template says it does not know such a conversation. Raises BadFileError, at once
    or when called, for a template that is too long, no Jinja, too costly, or after what is none of its business.
    """
    if len(source) > MAX_TEMPLATE:
        raise _bad(f"has {len(source)} characters", f"at most {MAX_TEMPLATE}")
    try:
        template = _Environment().from_string(source)
    # A stranger's program may fail in any way Python has (nested too deeply, numbers too long, ...).
    except Exception as error:
        raise _bad(f"is no template ({_told(error)})", "a Jinja template") from error

    def render(messages: Sequence[Mapping[str, str]], names: Mapping[str, str]) -> str:
        budget = _Budget(len(source), sum(len(text) for message in messages for text in message.values()))
        given = {"messages": list(messages), "add_generation_prompt": True, "tools": None, "documents": None}
        pieces = []
        try:
            for piece in template.generate({**given, **names, _BUDGET: budget}):
                budget.check(len(piece))
                pieces.append(piece)
        except RefusedError:
            raise
        except Exception as error:
            raise _bad(f"fails ({_told(error)})", "one that only arranges messages") from error
        return "".join(pieces)

    return render


def _told(error: Exception) -> str:
    """What went wrong, in one short line that is safe to print."""
    text = error.message or "" if isinstance(error, TemplateError) else str(error)
    name = "" if isinstance(error, _LimitError) else f"{type(error).__name__}: "
    return "".join(letter if letter.isprintable() else "?" for letter in (name + text)[:200])


def _bad(found: str, expected: str) -> BadFileError:
    return BadFileError(
        f"tokenizer.chat_template: the file's chat template {found}; expected {expected}; use the guided mode, which "
        "needs no template"
    )


def usage_refusal(error: RefusedError) -> UsageError:
    """The template's own words as an error the user can act on."""
    return UsageError(
        f"chat template: the model does not know such a conversation ({_told(error)}); expected the turns it was "
        "trained on: a user's first, then assistant and user in turn"
    )
