"""One word opens any engine; a wrong one is answered with the right forms."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from selfee.engines.base import Request
from selfee.engines.local import LocalEngine, Runtime
from selfee.engines.open import open_engine
from selfee.engines.remote import RemoteEngine
from selfee.engines.scripted import ScriptedEngine
from selfee.errors import BadFileError, UsageError
from selfee.llama.cells import CacheType


class Loads:
    """Remembers what it was asked to load."""

    def __init__(self) -> None:
        self.asked: list[tuple[Path, int | None, int | None, bool | None]] = []

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
    ) -> Runtime:
        self.asked.append((path, context_length, threads, repack))
        model = SimpleNamespace(name="model", context_length=64, new_session=None, quiet=None, close=lambda: None)
        return cast(Runtime, model)


def test_an_existing_file_is_loaded_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.anything"
    path.write_bytes(b"GGUF")
    load = Loads()
    with open_engine(str(path), load=load, context_length=99, threads=2, repack=False) as engine:
        assert isinstance(engine, LocalEngine)
    assert load.asked == [(path, 99, 2, False)]


def test_a_script_is_read(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"text": "Hi"}\n')
    with open_engine(f"script:{tmp_path / 's.jsonl'}", load=Loads()) as engine:
        assert isinstance(engine, ScriptedEngine)
        assert [chunk.text for chunk in engine.stream(Request("Q"))] == ["Hi", ""]


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("https://host/v1#org/model", "https://host/v1#org/model"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1#"),
        ("HTTP://host:1/api#m#n", "http://host:1/api#m#n"),
    ],
)
def test_an_address_is_a_server_and_what_follows_the_hash_its_model(spec: str, name: str) -> None:
    with open_engine(spec, load=Loads(), api_key="k", timeout=5, context_length=2048) as engine:
        assert isinstance(engine, RemoteEngine)
        assert (engine.name, engine.context_length) == (name, 2048)


@pytest.mark.parametrize("spec", ["", "nonsense", "ftp://host/x", "missing.gguf", "a\0b", "x" * 5000])
def test_anything_else_is_answered_with_the_accepted_forms(spec: str) -> None:
    with pytest.raises((UsageError, BadFileError), match=r"model\.gguf.*http://127.*script:") as caught:
        open_engine(spec, load=Loads())
    assert len(str(caught.value)) < 600


def test_a_folder_is_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="no regular file"):
        open_engine(str(tmp_path), load=Loads())


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="context_length: 0"):
        open_engine("http://host", load=Loads(), context_length=0)
    with pytest.raises(UsageError, match="threads: -1"):
        open_engine("http://host", load=Loads(), threads=-1)
