"""What the environment says, read once and handed down as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from selfee.cli.pip_config import read_pip_config
from selfee.errors import UsageError
from selfee.weights.fetch.store import HUB, HubConfig, ModelStore, StoreConfig, default_folder

OPENAI = "https://api.openai.com"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MAX_KEY = 16_384  # bytes of a key file


def models_folder(environ: Mapping[str, str]) -> Path:
    """Where downloaded models lie: ``SELFEE_MODELS``, else the default folder."""
    named = environ.get("SELFEE_MODELS")
    return Path(named).expanduser() if named else default_folder()


def model_store(environ: Mapping[str, str]) -> ModelStore:
    """The models on this machine, and the ways to more that the environment and pip's configuration allow."""
    index = read_pip_config(environ)
    hub = HubConfig(environ.get("HF_ENDPOINT") or HUB, environ.get("HF_TOKEN") or None)
    return ModelStore(StoreConfig(models_folder(environ), index, hub, index.network))


def remembered_fingerprints(environ: Mapping[str, str]) -> Path:
    """The file in which fingerprints of models are kept, so that a model is hashed once only."""
    return models_folder(environ) / "fingerprints.json"


def api_key(environ: Mapping[str, str], model: str, key_file: Path | None) -> str | None:
    """The key for the server that ``model`` names: from the file, else SELFEE_API_KEY, else OPENAI_API_KEY.

    OPENAI_API_KEY goes to OpenAI, or the server that OPENAI_BASE_URL names, and to no other: it lies in many
    environments, and an address typed here may be anybody's. Raises UsageError for a file without a key.
    """
    if not model.lower().startswith(("http://", "https://")):
        return None
    if key_file is not None:
        return _read_key(key_file)
    if key := environ.get("SELFEE_API_KEY"):
        return key
    own = {_server(OPENAI), _server(environ.get("OPENAI_BASE_URL", ""))} - {None}
    return environ.get("OPENAI_API_KEY") or None if _server(model) in own else None


def server_proxy(model: str) -> str | None:
    """The proxy between here and a server, as HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say.

    None for this machine's own addresses: no proxy could reach them.
    """
    from urllib.request import getproxies, proxy_bypass

    try:
        parts = urlsplit(model)
        host = parts.hostname or ""
    except ValueError:
        return None  # the engine says what is wrong with the address
    proxies = getproxies()
    if host in _LOOPBACK or host.endswith(".localhost") or proxy_bypass(host):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


def _server(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port of an address; None if it is none."""
    try:
        parts = urlsplit(url)
        return (parts.scheme, parts.hostname, parts.port) if parts.hostname else None
    except ValueError:
        return None


def _read_key(path: Path) -> str:
    try:
        with path.open("rb") as file:
            key = file.read(_MAX_KEY).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not plain text"
        raise UsageError(f"{path}: no key can be read ({reason}); expected a file with the key alone") from error
    if not key or any(character.isspace() for character in key):
        raise UsageError(f"{path}: {'empty' if not key else 'more than a key'}; expected a file with the key alone")
    return key
