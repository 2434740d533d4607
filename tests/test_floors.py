"""Rooms are nouns, floors are law: a module imports its own room and lower floors, never up, never sideways."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "selfee"

FLOORS = {
    "errors": 0,
    "files": -1,
    "jsonl": 0,
    "journal": 0,
    "parallel": 0,
    "lazy": 0,
    "weights": 1,
    "llama": 2,
    "engines": 3,
    "chain": 4,
    "data": 5,
    "train": 5,
    "eval": 5,
    "api": 6,
    "serve": 6,
    "cli": 7,
}
"""Room or ground module -> floor. A new room must be given a floor here."""

NATIVE_DOORS = {"weights/quantize.py", "llama/model.py", "llama/sampling.py"}
"""The only modules that may call selfee._native."""

GATE = "__init__.py"
"""The package's own front door: hands out public names lazily, so it may reach every floor."""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module a file imports, also inside functions: (line, dotted name)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write it absolute"
            yield node.lineno, node.module or ""
            if node.module == "selfee":
                yield from ((node.lineno, f"selfee.{alias.name}") for alias in node.names)


def violations() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).as_posix()
        room = inside.split("/")[0].removesuffix(".py")
        if inside == GATE:
            continue
        if room not in FLOORS:
            yield f"{inside}: room '{room}' has no floor; give it one in tests/test_floors.py"
            continue
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] != "selfee" or len(parts) == 1 or parts[1] == "__version__":
                continue
            target = parts[1]
            if target == "_native":
                if inside not in NATIVE_DOORS:
                    yield f"{inside}:{line}: calls selfee._native; only {sorted(NATIVE_DOORS)} may"
            elif target not in FLOORS:
                yield f"{inside}:{line}: imports selfee.{target}, which has no floor"
            elif target not in (room, "errors") and FLOORS[target] >= FLOORS[room]:
                yield f"{inside}:{line}: floor {FLOORS[room]} ({room}) imports floor {FLOORS[target]} ({target})"


def test_no_module_imports_upwards_or_sideways() -> None:
    assert list(violations()) == []


def test_every_room_of_the_tree_has_a_floor() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(FLOORS)


def test_modules_and_functions_stay_small() -> None:
    too_long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        inside = path.relative_to(PACKAGE).as_posix()
        if (lines := text.count("\n")) > 400:
            too_long.append(f"{inside}: {lines} lines; the house allows 400")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno:
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = node.end_lineno - body[0].lineno + 1 if body else 0
                if length > 50:
                    too_long.append(f"{inside}:{node.lineno}: {node.name} has {length} lines; the house allows 50")
    assert too_long == []


def test_only_the_command_line_reads_the_environment() -> None:
    readers = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "os.environ" in (text := path.read_text(encoding="utf-8")) or "os.getenv" in text
    ]
    assert [name for name in readers if not name.startswith("cli/")] == []
