"""What one engine has read, another goes on with: the same text, fewer tokens read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import make_tiny

from selfee.engines.base import Request, SamplingParams, Usage
from selfee.engines.local import LocalEngine
from selfee.engines.open import open_engine
from selfee.engines.runtime import load_runtime
from selfee.errors import BadFileError, ContextOverflowError, UnsupportedFileError, UsageError

PROMPT = "the blue light of the sky scatters because " * 20
PARAMS = SamplingParams(temperature=1.0, seed=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", n_ctx=700)


@pytest.fixture
def engine(path: Path) -> Iterator[LocalEngine]:
    with engine_of(path) as opened:
        yield opened


def engine_of(path: Path, context_length: int = 700) -> LocalEngine:
    return LocalEngine(load_runtime(path, context_length=context_length, threads=1, repack=False))


def ask(engine: LocalEngine, prompt: str, limit: int = 12) -> tuple[str, Usage]:
    chunks = list(engine.stream(Request(prompt, PARAMS, max_tokens=limit)))
    usage = chunks[-1].usage
    assert usage is not None
    return "".join(chunk.text for chunk in chunks), usage


def test_a_prompt_is_read_once_and_the_text_is_the_same(path: Path, tmp_path: Path, engine: LocalEngine) -> None:
    _, usage = ask(engine, PROMPT)
    tokens = engine.save_session(tmp_path / "s")
    assert usage.prompt_tokens <= tokens < usage.prompt_tokens + 12
    expected, all_read = ask(engine_of(path), PROMPT + "and")
    with engine_of(path) as fresh:
        assert fresh.restore_session(tmp_path / "s") == tokens
        text, usage = ask(fresh, PROMPT + "and")
    assert text == expected
    assert all_read.cached_tokens == 0
    assert usage.prompt_tokens - 5 < usage.cached_tokens < usage.prompt_tokens


@settings(max_examples=15)
@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 60), st.integers(0, 12))
def test_whenever_it_is_saved_what_follows_is_as_if_nothing_had_been(
    path: Path, tmp_path_factory: pytest.TempPathFactory, words: int, steps: int, then: int, limit: int
) -> None:
    file = tmp_path_factory.mktemp("session") / "s"
    first, second = ("light " * count + "sky" for count in (words, then))
    with engine_of(path) as engine, engine_of(path) as restored, engine_of(path) as fresh:
        stream = engine.stream(Request(first, PARAMS, max_tokens=12))
        for _ in zip(range(steps), stream):
            pass
        saved = engine.save_session(file)  # also in the middle of a stream
        assert restored.restore_session(file) == saved > 0
        assert ask(restored, second, limit)[0] == ask(fresh, second, limit)[0]
        assert "".join(chunk.text for chunk in stream) is not None


def test_a_stream_closed_early_is_saved_as_far_as_it_came(path: Path, tmp_path: Path, engine: LocalEngine) -> None:
    stream = engine.stream(Request(PROMPT, PARAMS))
    for _ in range(5):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    saved = engine.save_session(tmp_path / "s")
    assert saved == engine.count_tokens(PROMPT) + 4  # nothing begins a text of this vocabulary; the fifth was not read
    with engine_of(path) as fresh:
        assert fresh.restore_session(tmp_path / "s") == saved


def test_nothing_read_is_nothing_saved(tmp_path: Path, engine: LocalEngine) -> None:
    assert engine.save_session(tmp_path / "s") == 0
    assert not (tmp_path / "s").exists()


def test_what_cannot_be_restored_leaves_what_is_kept(path: Path, tmp_path: Path, engine: LocalEngine) -> None:
    ask(engine, PROMPT)
    saved = engine.save_session(tmp_path / "s")
    (tmp_path / "damaged").write_bytes((tmp_path / "s").read_bytes()[:-1])
    with pytest.raises(BadFileError):
        engine.restore_session(tmp_path / "damaged")
    assert engine.save_session(tmp_path / "again") == saved
    with engine_of(make_tiny(tmp_path / "other.gguf", seed=1)) as other, pytest.raises(UnsupportedFileError):
        other.restore_session(tmp_path / "s")
    with engine_of(path, saved - 1) as short, pytest.raises(ContextOverflowError):
        short.restore_session(tmp_path / "s")


def test_an_engine_that_reads_nothing_itself_says_so(tmp_path: Path) -> None:
    from tests.engines.test_local import ToyRuntime

    engine = LocalEngine(ToyRuntime())
    for action in (engine.save_session, engine.restore_session):
        with pytest.raises(UsageError, match="toy: its sessions cannot be saved"):
            action(tmp_path / "s")


def test_reuse_false_reads_everything_also_after_a_restored_session(path: Path, tmp_path: Path) -> None:
    with engine_of(path) as engine:
        text, _ = ask(engine, PROMPT)
        engine.save_session(tmp_path / "s")
    with LocalEngine(load_runtime(path, threads=1, repack=False), reuse=False) as plain:
        plain.restore_session(tmp_path / "s")
        again, usage = ask(plain, PROMPT)
    assert (again, usage.cached_tokens) == (text, 0)


def test_it_works_for_what_open_engine_gives_out(path: Path, tmp_path: Path) -> None:
    with open_engine(str(path), context_length=700, threads=1) as engine:
        assert isinstance(engine, LocalEngine)
        ask(engine, PROMPT)
        assert engine.save_session(tmp_path / "s", remembered=tmp_path / "memory.json") > 0
