"""Open an engine by what a user writes: an address, a script, or a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from selfee.engines.connection import Limits, Timeouts
from selfee.engines.local import LocalEngine, Runtime
from selfee.engines.remote import RemoteEngine
from selfee.engines.scripted import ScriptedEngine
from selfee.errors import BadFileError, UsageError
from selfee.weights.fetch.model_names import is_model_url, parse_model_name
from selfee.weights.fetch.store import ModelStore, StoreConfig, default_folder

if TYPE_CHECKING:
    from selfee.llama.cells import CacheType

_FORMS = (
    "expected a model file (model.gguf, model.bin), the name of a model (see `selfee models list`), an address "
    "(http://127.0.0.1:8080/v1#model) or a script (script:replies.jsonl)"
)

AnyEngine = LocalEngine | RemoteEngine | ScriptedEngine
"""What ``open_engine`` gives out: each a context manager with ``close``."""


class Loader(Protocol):
    """Makes a model file ready to run; raises BadFileError, ResourceError, UsageError."""

    def __call__(
        self,
        path: Path,
        *,
        context_length: int | None,
        threads: int | None,
        repack: bool | None,
        parallel: int,
        drafting: bool,
        cache_type: CacheType,
    ) -> Runtime: ...


def open_engine(
    spec: str,
    *,
    load: Loader | None = None,
    models: Path | None = None,
    context_length: int | None = None,
    threads: int | None = None,
    repack: bool | None = None,
    parallel: int = 1,
    drafting: bool = True,
    cache_type: CacheType = "f16",
    api_key: str | None = None,
    timeout: float | None = None,
    total_timeout: float | None = None,
    proxy: str | None = None,
) -> AnyEngine:
    """Open ``spec``; close what comes back. Nothing is sent to a server yet.

    A model's name means the file that ``selfee models pull`` brought here (into the folder ``models``); nothing is
    downloaded. ``load`` opens model files (None: with this process's own engine). ``context_length`` (tokens) limits a
    local model and describes a remote one. For local models: ``threads``; ``repack``, where False leaves weights as
    they lie in the file, which starts sooner and computes more slowly (None: where memory is short); ``parallel``, how
    many requests of different threads go through the model together; ``drafting``, where False computes every token on
    its own (the same text, slower); ``cache_type``, where "q8_0" stores what the model has read in about half the
    memory (heads of a multiple of 32 values; the text may change). For servers: ``api_key``, ``timeout`` (seconds
    without a byte), ``total_timeout`` (seconds a request) and ``proxy``. Raises UsageError naming the accepted forms,
    BadFileError for a bad file.
    """
    for name, value in (("context_length", context_length), ("threads", threads), ("parallel", parallel)):
        if value is not None and value < 1:
            raise UsageError(f"{name}: {value}; expected 1 or more")
    if spec.startswith("script:"):
        return ScriptedEngine.from_file(spec.removeprefix("script:"))
    if spec.lower().startswith(("http://", "https://")) and not is_model_url(spec):
        address, _, model = spec.partition("#")
        stall = Timeouts().stall if timeout is None else timeout
        limits = Limits(Timeouts(stall=stall, total=total_timeout))
        return RemoteEngine(
            address, model or None, api_key=api_key, limits=limits, proxy=proxy, context_length=context_length
        )
    path = _model_path(spec, models)
    runtime = (load or _load_here)(
        path,
        context_length=context_length,
        threads=threads,
        repack=repack,
        parallel=parallel,
        drafting=drafting,
        cache_type=cache_type,
    )
    return LocalEngine(runtime, parallel=parallel)


# What shows that a folder is a model, Hugging Face's or Meta's.
_CONFIGS = ("config.json", "params.json")


def _load_here(
    path: Path,
    *,
    context_length: int | None,
    threads: int | None,
    repack: bool | None,
    parallel: int,
    drafting: bool,
    cache_type: CacheType,
) -> Runtime:
    """Open a model file with this process's own engine."""
    from selfee.engines.runtime import load_runtime  # NumPy and the kernels: servers and scripts do without

    return load_runtime(
        path,
        context_length=context_length,
        threads=threads,
        repack=repack,
        parallel=parallel,
        drafting=drafting,
        cache_type=cache_type,
    )


def _model_path(spec: str, models: Path | None) -> Path:
    if (model := parse_model_name(spec)) is not None:
        stored = ModelStore(StoreConfig(models or default_folder())).find(model)
        if stored is None:
            raise UsageError(
                f"{spec}: not on this machine; expected a downloaded model; run `selfee models pull {spec}`"
            )
        return stored.path
    path = Path(spec)
    try:
        if path.is_file() or any((path / name).is_file() for name in _CONFIGS):
            return path
        is_other = path.exists()
    except (OSError, ValueError) as error:  # a name too long, a NUL character
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{spec[:200]!r}: cannot be a file ({reason}); {_FORMS}") from error
    if is_other:
        raise BadFileError(f"{spec}: no regular file; {_FORMS}")
    raise UsageError(f"{spec[:200]!r}: no such file, and no address or script; {_FORMS}")
