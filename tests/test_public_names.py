"""The names other people's programs use: each exists, and none changes without this file's golden list changing."""

from __future__ import annotations

import enum
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import selfee

GOLDEN = Path(__file__).parent / "golden" / "public_names.txt"
"""Written by ``python -m tests.test_public_names``."""

ROOMS = (
    "selfee",
    *(f"selfee.{room}" for room in ("chain", "data", "engines", "eval", "llama", "train", "weights")),
)


def describe(room: str) -> list[str]:
    """One line for each public name of a room."""
    module = importlib.import_module(room)
    return [f"{room}.{name}{call_of(getattr(module, name))}" for name in sorted(module.__all__)]


def call_of(value: object) -> str:
    """How something is called: names of its parameters, "=" where one has a default."""
    is_data = isinstance(value, type) and issubclass(value, enum.Enum | BaseException)
    if is_data or not callable(value) or getattr(value, "_is_protocol", False):
        return ""
    shown, keyword_only = [], False
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            shown.append("*")
        shown.append(parameter.name + ("" if parameter.default is parameter.empty else "="))
    return f"({', '.join(shown)})"


def public_names() -> str:
    return "".join(line + "\n" for room in ROOMS for line in describe(room))


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_exists(room: str) -> None:
    module = importlib.import_module(room)
    assert module.__doc__
    assert module.__all__
    for name in module.__all__:
        value = getattr(module, name)
        assert value is not None
        assert not inspect.ismodule(value), f"{room}.{name}: a module of that name hides it"


def test_public_names_and_signatures_change_only_on_purpose() -> None:
    assert public_names() == GOLDEN.read_text(encoding="utf-8"), "run: python -m tests.test_public_names"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = getattr(selfee, "no_such_name")  # noqa: B009


def test_importing_selfee_loads_no_heavy_package() -> None:
    code = (
        "import selfee, sys; dir(selfee);"
        "print([name for name in ('numpy', 'httpx2', 'tokenizers', 'jinja2', 'rich', 'typer') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(public_names(), encoding="utf-8")
