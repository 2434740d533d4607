"""What a user may write to name a model file, and what it means."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from selfee.errors import UsageError
from selfee.weights.fetch.builtin import BUILTIN_MODELS, BuiltinModel

MODEL_FORMS = (
    "expected a file (model.gguf, model.bin), a built-in name (" + ", ".join(BUILTIN_MODELS) + "), "
    "a file of a model hub (hf:org/repo/file.gguf, hf:org/repo@revision/file.gguf) or an address that ends in "
    ".gguf or .bin"
)
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_HUB = re.compile(rf"hf:(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}))?/(?P<file>{_PART}(?:/{_PART})*)")
_MODEL_SUFFIXES = (".gguf", ".bin")


@dataclass(frozen=True)
class HubFile:
    """One file of a repository on a model hub."""

    repo: str  # "org/name"
    file: str  # path inside the repository
    revision: str = "main"

    @property
    def name(self) -> str:
        """As a user writes it."""
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf:{self.repo}{revision}/{self.file}"


@dataclass(frozen=True)
class UrlFile:
    """A file at an address."""

    url: str

    @property
    def name(self) -> str:
        """As a user writes it."""
        return self.url

    @property
    def file(self) -> str:
        """The last part of the address, made fit for a file name."""
        last = unquote(urlsplit(self.url).path).rsplit("/", 1)[-1]
        return re.sub(r"[^A-Za-z0-9._-]", "_", last).lstrip(".")[-120:] or "model.gguf"


RemoteModel = BuiltinModel | HubFile | UrlFile
"""A model that can be downloaded."""


def is_model_url(text: str) -> bool:
    """Whether an address is that of a model file (ends in .gguf or .bin) and not that of a server."""
    if not text.lower().startswith(("http://", "https://")):
        return False
    try:
        return urlsplit(text).path.lower().endswith(_MODEL_SUFFIXES)
    except ValueError:
        return False


def parse_model_name(text: str) -> RemoteModel | None:
    """What ``text`` names for download; None if it has none of the forms, so that it can only be a file here.

    Raises UsageError for a name that starts like one of the forms and is not.
    """
    if text in BUILTIN_MODELS:
        return BUILTIN_MODELS[text]
    if text.startswith("hf:"):
        match = _HUB.fullmatch(text)
        if match is None or ".." in text:
            raise UsageError(
                f"{text[:200]!r}: no file of a model hub; expected hf:org/repo/file.gguf or "
                "hf:org/repo@revision/file.gguf; look for the file's name at the model's page"
            )
        return HubFile(match["repo"], match["file"], match["revision"] or "main")
    if is_model_url(text):
        return UrlFile(text)
    return None


def unknown_model(text: str) -> UsageError:
    """The error for a name that nothing answers to."""
    close = difflib.get_close_matches(text.lower(), BUILTIN_MODELS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    if re.match(r"[\w.-]+:\d+(?:/|$)", text):
        hint = "; a server's address begins with http:// or https://"
    return UsageError(f"{text[:200]!r}: no such file, and no name of a model; {MODEL_FORMS}{hint}")
