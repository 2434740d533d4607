"""Python, the packages that selfee needs, and those that its extras add."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from dataclasses import dataclass

from selfee.cli.doctoring.finding import Finding, Level

_OLDEST = (3, 11)
_EXTRAS = {
    "data": "collecting questions and having chains written about them",
    "train": "training a model on chains",
    "trl": "TRL as a second engine of training",
    "eval": "judging answers",
    "serve": "an HTTP server",
    "web": "the web page",
    "gptq": "GPTQ files made from a folder of weights",
    "dev": "working on selfee itself",
}


@dataclass(frozen=True)
class Requirement:
    """A package that is wanted; ``installed`` is its version here."""

    package: str
    least: str  # the oldest version that will do; empty for any
    extra: str  # empty: always
    installed: str | None

    @property
    def is_met(self) -> bool:
        """It is here, and new enough."""
        return self.installed is not None and _parts(self.installed) >= _parts(self.least)

    @property
    def words(self) -> str:
        """For pip's command line."""
        return self.package + (f">={self.least}" if self.least else "")


def version() -> Finding:
    """selfee's and Python's versions, and the platform."""
    from selfee import __version__

    python, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    facts = {"selfee": __version__, "python": python, "system": platform.system(), "machine": platform.machine()}
    text = f"selfee {__version__}, Python {python}, {system}"
    if sys.version_info < _OLDEST:
        return Finding("version", text, Level.BROKEN, f"install Python {'.'.join(map(str, _OLDEST))} or newer", facts)
    return Finding("version", text, facts=facts)


def packages(found: list[Requirement] | None) -> Finding:
    """Whether what selfee cannot do without is here."""
    if found is None:
        text = "selfee is not installed as a package here: what it needs cannot be listed"
        return Finding("packages", text, Level.NOTE, "run `make setup` in a checkout, or install it with pip")
    needed = [each for each in found if not each.extra]
    missing = [each for each in needed if not each.is_met]
    facts = {each.package: {"installed": each.installed, "needed": each.least or None} for each in needed}
    if not missing:
        return Finding("packages", f"all {len(needed)} that are needed are here", facts=facts)
    text = ", ".join(f"{each.words} ({each.installed or 'missing'})" for each in missing)
    words = " ".join(f"'{each.words}'" for each in missing)
    return Finding("packages", text, Level.BROKEN, f"pip install {words}", facts)


def extras(found: list[Requirement] | None) -> Finding:
    """Which optional packages are here, and how to get the others."""
    names = _extra_names() if found is not None else []
    facts = {}
    parts, lacking = [], []
    for name in names:
        wanted = [each for each in found or [] if each.extra == name]
        if not wanted:
            continue  # nothing more is needed for it
        here = all(each.is_met for each in wanted)
        facts[name] = {
            "installed": here,
            "purpose": _EXTRAS.get(name, ""),
            "packages": {each.package: each.installed for each in wanted},
        }
        parts.append(f"{name} ({_EXTRAS.get(name, 'optional')}) {'installed' if here else 'not installed'}")
        lacking += [] if here or name == "dev" else [name]
    advice = "; ".join(f"pip install 'selfee[{name}]'" for name in lacking)
    return Finding("extras", "; ".join(parts) or "none", Level.OK, advice, facts)


def requirements() -> list[Requirement] | None:
    """What the installed package says that it needs; None where there is no installed package."""
    try:
        listed = importlib.metadata.requires("selfee") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return [_requirement(line) for line in listed]


def _extra_names() -> list[str]:
    return importlib.metadata.metadata("selfee").get_all("Provides-Extra") or []


def _requirement(line: str) -> Requirement:
    """Of a line such as 'gptqmodel>=7.6; extra == "gptq"'."""
    words, _, marker = line.partition(";")
    package = re.split(r"[\s\[(<>=!~]", words.strip(), maxsplit=1)[0]
    least = re.search(r">=\s*([\w.]+)", words)
    extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
    try:
        installed = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    return Requirement(package, least[1] if least else "", extra[1] if extra else "", installed)


def _parts(version: str) -> tuple[int, ...]:
    """The numbers at the front of a version, for comparing."""
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()
