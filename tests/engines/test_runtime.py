"""Real files behind a LocalEngine: what the cache remembers never changes a text, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import make_tiny

from selfee.engines import runtime
from selfee.engines.base import ChatRequest, FinishReason, Message, Request, SamplingParams, chat_of, scoring_of
from selfee.engines.local import LocalEngine
from selfee.engines.runtime import load_runtime
from selfee.errors import BadFileError, ContextOverflowError, ResourceError, UsageError
from selfee.weights.adapter import TRAINED_ON_CHAINS
from selfee.weights.quants import QuantType

SAMPLED = SamplingParams(temperature=0.9, top_k=40, seed=7)
EDITS = st.lists(
    st.tuples(
        st.text(alphabet="the sky is blue\n#", min_size=1, max_size=40),
        st.integers(0, 60),
        st.integers(0, 12),
    ),
    min_size=2,
    max_size=5,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("model") / "tiny.gguf", type=QuantType.Q8_0, n_head_kv=2)


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[LocalEngine]:
    with LocalEngine(load_runtime(model, threads=2)) as opened:
        yield opened


@pytest.fixture(scope="module")
def forgetful(model: Path) -> Iterator[LocalEngine]:
    with LocalEngine(load_runtime(model, threads=1), reuse=False) as opened:
        yield opened


def text_of(engine: LocalEngine, request: Request | ChatRequest) -> str:
    chunks = engine.stream(request) if isinstance(request, Request) else engine.stream_chat(request)
    return "".join(chunk.text for chunk in chunks)


@settings(max_examples=25)
@given(EDITS)
def test_edited_texts_are_continued_as_by_an_engine_that_remembers_nothing(
    engine: LocalEngine, forgetful: LocalEngine, edits: list[tuple[str, int, int]]
) -> None:
    text = "Why is the sky blue?"
    for addition, keep, length in edits:
        text = text[:keep] + addition
        request = Request(text, SAMPLED, max_tokens=length)
        grown = text_of(engine, request)
        assert grown == text_of(forgetful, request)
        text += grown


def test_log_probabilities_are_the_same_to_the_bit_after_truncation_and_fresh(
    engine: LocalEngine, forgetful: LocalEngine
) -> None:
    long, short = "The sky is blue because the light is", "The sky is red"
    text_of(engine, Request(long, SAMPLED, max_tokens=20))
    request = Request(short, SAMPLED, max_tokens=20, logprobs=5)
    assert [c.logprobs for c in engine.stream(request)] == [c.logprobs for c in forgetful.stream(request)]
    assert engine.score(short, (" and", " or not")) == forgetful.score(short, (" and", " or not"))


def test_asking_again_with_an_edited_end_pays_only_for_the_edit(engine: LocalEngine) -> None:
    prompt = "Why is the sky blue? " * 6
    text_of(engine, Request(prompt, SAMPLED, max_tokens=4))
    *_, last = engine.stream(Request(prompt + "Because", SAMPLED, max_tokens=1))
    assert last.usage is not None
    assert last.usage.prompt_tokens - last.usage.cached_tokens < 12


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_every_architecture_chats_and_scores(tmp_path: Path, architecture: str) -> None:
    path = make_tiny(tmp_path / "m.gguf", architecture=architecture)  # type: ignore[arg-type]
    with LocalEngine(load_runtime(path)) as engine:
        chat = chat_of(engine)
        assert chat is not None
        messages = [Message("user", "the sky")]
        assert "".join(chunk.text for chunk in chat.stream_chat(ChatRequest(messages, SAMPLED, max_tokens=8)))
        scorer = scoring_of(engine)
        assert scorer is not None
        assert all(score < 0 for score in scorer.score("the sky is", (" blue", " red")))


@pytest.mark.parametrize("container", ["gguf2", "gguf1", "ggjt3", "ggjt1", "ggmf", "ggml"])
def test_every_container_gives_a_model_that_writes(tmp_path: Path, container: str) -> None:
    path = make_tiny(tmp_path / "m.bin", container=container)  # type: ignore[arg-type]
    with LocalEngine(load_runtime(path)) as engine:
        *_, last = engine.stream(Request("the sky", SAMPLED, max_tokens=8))
        assert last.usage is not None
        assert last.usage.completion_tokens > 0


def test_parameters_larger_than_any_vocabulary_mean_everything(engine: LocalEngine) -> None:
    requests = [
        Request("the sky", SamplingParams(seed=1, top_k=top_k, repeat_last_n=last, repeat_penalty=1.2), max_tokens=9)
        for top_k, last in ((0, -1), (1 << 70, 1 << 70))
    ]
    assert text_of(engine, requests[0]) == text_of(engine, requests[1])


def test_a_file_without_a_template_says_that_it_cannot_chat(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.bin", container="ggjt3")
    with LocalEngine(load_runtime(path)) as engine:
        assert chat_of(engine) is None
        with pytest.raises(UsageError, match="template"):
            engine.stream_chat(ChatRequest([Message("user", "hi")]))


def test_what_a_user_writes_never_becomes_a_control_token(engine: LocalEngine) -> None:
    plain = engine.count_tokens("<|im_end|>")
    assert plain > 1
    assert engine.count_tokens("<|im_end|>", parse_special=True) == 1
    *_, last = engine.stream_chat(ChatRequest([Message("user", "<|im_end|>")], SAMPLED, max_tokens=1))
    *_, empty = engine.stream_chat(ChatRequest([Message("user", "")], SAMPLED, max_tokens=1))
    assert last.usage is not None
    assert empty.usage is not None
    assert last.usage.prompt_tokens - empty.usage.prompt_tokens == plain


def test_the_file_says_whether_its_model_was_trained_on_chains(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf", metadata={TRAINED_ON_CHAINS: True})
    with LocalEngine(load_runtime(path)) as engine:
        assert engine.trained_on_chains
        assert 10_000 < engine.num_parameters < 1_000_000


def test_a_full_context_window_ends_a_text_and_too_long_a_prompt_is_refused(model: Path) -> None:
    with LocalEngine(load_runtime(model, context_length=16)) as engine:
        no_end = SamplingParams(temperature=0.0, logit_bias=dict.fromkeys(engine._runtime.end_tokens, -1e9))
        *_, last = engine.stream(Request("the sky", no_end))
        assert last.finish_reason is FinishReason.CONTEXT
        with pytest.raises(ContextOverflowError, match="16"):
            engine.stream(Request("the sky is blue " * 9))


def test_a_cache_that_does_not_fit_is_refused_before_loading(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "available_memory", lambda: 1 << 20)
    with pytest.raises(ResourceError, match=r"needs .* GiB of memory, have .* context_length"):
        load_runtime(model, context_length=1 << 20)


def test_without_a_wish_the_context_window_shrinks_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tiny(tmp_path / "m.gguf", n_ctx=1 << 20)
    monkeypatch.setattr(runtime, "available_memory", lambda: 1 << 26)
    with LocalEngine(load_runtime(path)) as engine:
        assert engine.context_length is not None
        assert 512 <= engine.context_length < 1 << 20


@pytest.mark.parametrize("repack", [None, True, False])
def test_packing_changes_no_text(model: Path, forgetful: LocalEngine, repack: bool | None) -> None:
    request = Request("the sky is", SAMPLED, max_tokens=40, logprobs=3)
    with LocalEngine(load_runtime(model, repack=repack)) as engine:
        assert [c.logprobs for c in engine.stream(request)] == [c.logprobs for c in forgetful.stream(request)]


def test_a_damaged_file_is_refused_and_let_go(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(BadFileError, match=r"cut\.gguf"):
        load_runtime(path)
