"""Room: in memory, on the disk of the models, and in the folders that are written to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from selfee.cli.doctoring.finding import Finding, Level
from selfee.engines.memory import memory_state
from selfee.weights.disk import human_size
from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL
from selfee.weights.printable import printable

_LITTLE_DISK = 2_000_000_000  # bytes: less than a useful model has
_SPARE = 64 << 20  # bytes of disk that stay free (weights/disk.py)
_LEAST = 300_000_000  # bytes of memory: the built-in model, its cache and the interpreter


def memory() -> Finding:
    """What there is, what is free, and what a container allows."""
    state = memory_state()
    facts = {
        "total": state.total,
        "available": state.available,
        "group_limit": state.group_limit,
        "group_free": state.group_free,
        "usable": state.usable,
    }
    if state.usable is None:
        text = "this system does not say; nothing is refused before it is loaded"
        return Finding("memory", text, Level.NOTE, "", facts)
    text = f"{human_size(state.usable)} can be used"
    if state.available is not None and state.total is not None:
        text += f"; {human_size(state.available)} of {human_size(state.total)} are free"
    if state.group_limit is not None and state.group_free is not None:
        text += f"; a control group allows {human_size(state.group_limit)}, {human_size(state.group_free)} more"
    if state.usable < _LEAST:
        advice = f"close other programs or raise the limit: {DEFAULT_MODEL} needs {human_size(_LEAST)}"
        return Finding("memory", text, Level.BROKEN, advice, facts)
    return Finding("memory", text, facts=facts)


def disk(folder: Path, environ: Mapping[str, str], *, has_default: bool) -> Finding:
    """Free space where models are kept; ``has_default``: the built-in model is there."""
    place = _existing(folder)
    facts = {"folder": str(folder), "exists": folder.is_dir(), "free": None, "total": None}
    try:
        usage = shutil.disk_usage(place)
    except OSError as error:
        return Finding("disk", f"{shown(place, environ)}: {error.strerror or error}", Level.BROKEN, "", facts)
    facts |= {"free": usage.free, "total": usage.total}
    text = f"{human_size(usage.free)} of {human_size(usage.total)} are free in {shown(folder, environ)}"
    advice = "free some space, or set SELFEE_MODELS to a folder on another disk"
    if not has_default and usage.free < BUILTIN_MODELS[DEFAULT_MODEL].size + _SPARE:
        return Finding("disk", text, Level.BROKEN, advice, facts)
    if usage.free < _LITTLE_DISK:
        return Finding("disk", text, Level.NOTE, advice, facts)
    return Finding("disk", text, facts=facts)


def folders(models: Path, chats: Path, environ: Mapping[str, str]) -> Finding:
    """Whether files can be written where they have to be."""
    places = {"models": models, "conversations": chats, "temporary": Path(tempfile.gettempdir())}
    troubles = {name: trouble for name, place in places.items() if (trouble := _trouble(place))}
    facts = {
        name: {"folder": str(place), "exists": place.is_dir(), "trouble": troubles.get(name)}
        for name, place in places.items()
    }
    if not troubles:
        listed = ", ".join(f"{name} in {shown(place, environ)}" for name, place in places.items())
        return Finding("folders", f"can be written: {listed}", facts=facts)
    text = "; ".join(f"{name}: {shown(places[name], environ)}: {trouble}" for name, trouble in troubles.items())
    level = Level.BROKEN if {"models", "temporary"} & set(troubles) else Level.NOTE
    variables = {"models": "SELFEE_MODELS", "conversations": "SELFEE_CHATS", "temporary": "TMPDIR"}
    advice = f"set {', '.join(variables[name] for name in troubles)} to folders of yours"
    return Finding("folders", text, level, advice, facts)


def shown(path: Path, environ: Mapping[str, str]) -> str:
    """A path as a person writes it: "~" for their own folder."""
    home = environ.get("HOME") or ""
    if len(home) > 1 and path.is_relative_to(home):
        return printable(str(Path("~") / path.relative_to(home)))
    return printable(str(path))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next((place for place in (folder, *folder.absolute().parents) if place.exists()), Path("/"))


def _trouble(folder: Path) -> str | None:
    """What stands against writing there; the folder is made when it is first needed, so one above it may do."""
    place = _existing(folder)
    if not place.is_dir():
        return f"{place} is a file; expected a folder" if place != folder else "is a file; expected a folder"
    try:
        if place == folder:
            with tempfile.TemporaryFile(dir=place):
                return None
    except OSError as error:
        return f"cannot be written ({error.strerror or error})"
    return None if os.access(place, os.W_OK | os.X_OK) else "cannot be made there"
