"""What a local engine says depends on the request alone: not on the cache, the order, or who hung up before.

The model here is a toy of a few dozen lines: its next logits are a hash of every token its session holds, so that any
mistake in what a session holds changes the text. Two pieces, "ab" and "##", span two characters, the bytes of "é" are
single tokens, token 0 begins and token 1 ends a text.
"""

from __future__ import annotations

import codecs
import math
import threading
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.engines.base import (
    ChatEngine,
    ChatRequest,
    Chunk,
    CountingEngine,
    Engine,
    FinishReason,
    Message,
    Prediction,
    Request,
    SamplingParams,
    chat_of,
    scoring_of,
)
from selfee.engines.cancelling import Cancellation
from selfee.engines.growing import log_softmax
from selfee.engines.local import Generated, LocalEngine
from selfee.engines.sessions import Session, SessionPool
from selfee.errors import ContextOverflowError, UsageError

PIECES: tuple[bytes, ...] = (
    b"",
    b"",
    b"ab",
    b"##",
    *[bytes([c]) for c in b"ab#c \n"],
    *[bytes([c]) for c in "é".encode()],
)
BOS, END = 0, 1


class ToySession:
    """Holds tokens and remembers how many it evaluated."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.evaluated = 0

    @property
    def length(self) -> int:
        return len(self.tokens)

    def truncate(self, length: int) -> None:
        assert 0 <= length <= len(self.tokens)
        del self.tokens[length:]

    def copy_from(self, other: ToySession, length: int) -> None:
        assert 0 <= length <= len(other.tokens)
        self.tokens = other.tokens[:length]

    def forward(
        self, tokens: Sequence[int], logits_for: Literal["last", "all"] | int = "last"
    ) -> npt.NDArray[np.float32]:
        assert tokens
        rows = []
        for token in tokens:
            self.tokens.append(token)
            self.evaluated += 1
            seed = crc32(bytes(self.tokens))
            rows.append(np.random.default_rng(seed).normal(size=len(PIECES)) * 2)
        wanted = {"last": 1, "all": len(rows)}[logits_for] if isinstance(logits_for, str) else logits_for
        return np.array(rows[len(rows) - wanted :], dtype=np.float32)


class ToyDecoder:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        return self._decoder.decode(PIECES[token])

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class ToyRuntime:
    """A Runtime; ``sessions`` keeps every session made."""

    name = "toy"
    vocab_size = len(PIECES)
    end_tokens: Collection[int] = (END,)
    num_parameters = 12
    trained_on_chains = False
    template = "toy"
    chat_stops: Sequence[str] = ()

    def __init__(self, context_length: int = 64, supports_chat: bool = True) -> None:
        self.context_length = context_length
        self.supports_chat = supports_chat
        self.sessions: list[ToySession] = []
        self.closed = False

    def use_template(self, name: str) -> None:
        self.template, self.chat_stops = name, ("##",)

    def encode(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        data, tokens = text.encode(), [BOS] if add_bos else []
        while data:
            if parse_special and data.startswith(b"</s>"):
                tokens, data = [*tokens, END], data[4:]
                continue
            size = 2 if data[:2] in (b"ab", b"##") else 1
            tokens.append(PIECES.index(data[:size]))
            data = data[size:]
        return tokens

    def encode_chat(self, messages: Sequence[Message], prefix: str) -> list[int]:
        tokens = [BOS]
        for message in messages:
            tokens += [*self.encode(message.content, add_bos=False, parse_special=False), END]
        return tokens + self.encode(prefix, add_bos=False, parse_special=False)

    def piece(self, token: int) -> str:
        return PIECES[token].decode("utf-8", "replace")

    def decoder(self) -> ToyDecoder:
        return ToyDecoder()

    def new_session(self) -> ToySession:
        self.sessions.append(ToySession())
        return self.sessions[-1]

    def quiet(self) -> AbstractContextManager[None]:
        return nullcontext()

    def forward_many(self, parts: Sequence[tuple[Session, Sequence[int], int]]) -> list[npt.NDArray[np.float32]]:
        self.passes = getattr(self, "passes", 0) + 1
        return [session.forward(tokens, rows) for session, tokens, rows in parts]

    def generate(
        self,
        session: Session,
        tokens: Sequence[int],
        params: SamplingParams,
        seed: int,
        max_tokens: int,
        prediction: Prediction | None,
        cancellation: Cancellation | None = None,
        schema: str | None = None,
    ) -> Generator[Generated, None, None]:
        rng = np.random.default_rng(seed)
        pending = list(tokens[session.length :])
        for _ in range(max_tokens):
            logits = session.forward(pending)[0]
            biased = logits.copy()
            for token, bias in params.logit_bias.items():
                biased[token] += bias
            if params.temperature:
                biased = biased / params.temperature + rng.gumbel(size=biased.size)
            pending = [int(biased.argmax())]
            yield Generated(pending[0], logits)

    def close(self) -> None:
        self.closed = True


GREEDY = SamplingParams(temperature=0.0)
NO_END = SamplingParams(temperature=1.0, seed=1, logit_bias={BOS: -100.0, END: -100.0})
TEXT = st.text(alphabet="ab#c \né", max_size=20)
REQUESTS = st.builds(
    Request,
    TEXT,
    st.builds(SamplingParams, temperature=st.sampled_from([0.0, 1.0]), seed=st.integers(0, 5)),
    max_tokens=st.one_of(st.none(), st.integers(0, 30)),
    stop=st.lists(st.text(alphabet="ab# \né", min_size=1, max_size=3), max_size=2).map(tuple),
    logprobs=st.one_of(st.none(), st.integers(0, 3)),
)


def local(reuse: bool = True, **fields: Any) -> tuple[LocalEngine, ToyRuntime]:
    runtime = ToyRuntime(**fields)
    return LocalEngine(runtime, reuse=reuse), runtime


def ask(engine: LocalEngine, prompt: str = "ab", params: SamplingParams = NO_END, **fields: Any) -> list[Chunk]:
    return list(engine.stream(Request(prompt, params, **fields)))


def text_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def essence(chunks: Sequence[Chunk]) -> object:
    """Everything but times and what was cached."""
    last = chunks[-1]
    assert last.usage is not None
    counted = (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.seed)
    told = [entry for chunk in chunks for entry in chunk.logprobs]
    return text_of(chunks), last.finish_reason, last.stop, counted, told


def alone(request: Request) -> object:
    return essence(list(local()[0].stream(request)))


def close(stream: Iterator[Chunk]) -> None:
    stream.close()  # type: ignore[attr-defined]


def test_it_is_an_engine_of_every_kind() -> None:
    engine, _ = local()
    assert isinstance(engine, Engine)
    assert isinstance(engine, ChatEngine)
    assert isinstance(engine, CountingEngine)
    assert scoring_of(engine) is engine
    assert chat_of(engine) is engine
    assert chat_of(local(supports_chat=False)[0]) is None


@given(st.lists(st.tuples(REQUESTS, st.integers(0, 12)), max_size=6), REQUESTS)
def test_a_request_says_the_same_whatever_was_asked_or_cancelled_before(
    before: list[tuple[Request, int]], request: Request
) -> None:
    engine, _ = local()
    for earlier, steps in before:
        stream = engine.stream(earlier)
        for _ in zip(range(steps), stream):
            pass
        close(stream)
        engine.score("a" + earlier.prompt, ["ab", "c"])
    assert essence(list(engine.stream(request))) == alone(request)


@given(st.lists(REQUESTS, min_size=2, max_size=4), st.lists(st.integers(0, 3), max_size=80))
def test_open_streams_taking_turns_say_what_each_says_alone(requests: list[Request], turns: list[int]) -> None:
    engine, _ = local()
    streams = [engine.stream(request) for request in requests]
    heard: list[list[Chunk]] = [[] for _ in requests]
    for turn in turns:
        number = turn % len(streams)
        heard[number].extend(chunk for chunk in [next(streams[number], None)] if chunk is not None)
    for number, stream in enumerate(streams):
        heard[number].extend(stream)
    assert [essence(chunks) for chunks in heard] == [alone(request) for request in requests]


@given(st.lists(REQUESTS, min_size=1, max_size=5))
def test_reuse_changes_nothing_but_the_time(requests: list[Request]) -> None:
    for_real, without = local()[0], local(reuse=False)[0]
    for request in requests:
        assert essence(list(for_real.stream(request))) == essence(list(without.stream(request)))


@given(REQUESTS)
def test_the_text_holds_no_stop_string_and_is_whole_characters(request: Request) -> None:
    chunks = list(local()[0].stream(request))
    for stop in request.stop:
        assert stop not in text_of(chunks)
    text_of(chunks).encode()
    assert [chunk.finish_reason is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]


def test_only_what_changed_is_evaluated() -> None:
    engine, runtime = local()
    ask(engine, "a b a b c", GREEDY, max_tokens=1)
    before = runtime.sessions[0].evaluated
    usage = ask(engine, "a b a b #", GREEDY, max_tokens=1)[-1].usage
    assert runtime.sessions[0].evaluated - before == 1
    assert usage is not None
    assert (usage.prompt_tokens, usage.cached_tokens) == (10, 9)


def test_the_same_prompt_again_still_evaluates_its_last_token() -> None:
    engine, runtime = local()
    first = ask(engine, "abc", GREEDY, max_tokens=1)
    before = runtime.sessions[0].evaluated
    assert text_of(ask(engine, "abc", GREEDY, max_tokens=1)) == text_of(first)
    assert runtime.sessions[0].evaluated - before == 1


def test_the_answer_just_given_is_not_evaluated_again() -> None:
    engine, _ = local()
    whole = SamplingParams(seed=1, logit_bias=dict.fromkeys((BOS, END, 10, 11), -100.0))
    answer = text_of(ask(engine, "c ", whole, max_tokens=10))
    usage = ask(engine, "c " + answer + "c", max_tokens=1)[-1].usage
    assert usage is not None
    assert usage.cached_tokens >= 8


def test_a_stream_can_be_closed_after_every_single_token() -> None:
    engine, runtime = local()
    stream = engine.stream(Request("ab", NO_END, stop=["zzz"]))
    for count in range(1, 6):
        next(stream)
        assert runtime.sessions[0].evaluated == 1 + count
    close(stream)
    assert runtime.sessions[0].evaluated == 6


def test_limits_end_a_stream_and_say_which() -> None:
    engine, _ = local(context_length=10)
    for limit, reason, count in (
        (3, "length", 3),
        (8, "length", 8),
        (9, "context", 8),
        (None, "context", 8),
        (0, "length", 0),
    ):
        last = ask(engine, "a", max_tokens=limit)[-1]
        assert last.usage is not None
        assert (last.finish_reason, last.usage.completion_tokens) == (FinishReason(reason), count)


def test_the_models_own_end_is_not_shown() -> None:
    params = SamplingParams(temperature=0.0, logit_bias={END: 100.0})
    chunks = ask(local()[0], "a", params, logprobs=1)
    assert [(chunk.text, chunk.finish_reason, chunk.logprobs) for chunk in chunks] == [("", FinishReason.END, ())]


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_computed() -> None:
    engine, runtime = local(context_length=5)
    with pytest.raises(ContextOverflowError, match="the prompt has 6 tokens; the context window of 5 allows 4"):
        engine.stream(Request("a a a"))
    with pytest.raises(ContextOverflowError, match="prompt and choice have 6 tokens"):
        engine.score("a a", [" a"])
    assert runtime.sessions == []


def test_a_seed_left_open_is_reported_and_gives_the_same_text_again() -> None:
    engine, _ = local()
    first = ask(engine, "a", SamplingParams(temperature=1.0, logit_bias=NO_END.logit_bias))
    assert first[-1].usage is not None
    seed = first[-1].usage.seed
    assert seed is not None
    again = ask(engine, "a", SamplingParams(temperature=1.0, logit_bias=NO_END.logit_bias, seed=seed))
    assert essence(again) == essence(first)


@pytest.mark.parametrize("token", [-1, 12])
def test_a_bias_on_a_token_that_does_not_exist_is_refused(token: int) -> None:
    with pytest.raises(UsageError, match=f"token {token} does not exist; toy has 0 to 11"):
        local()[0].stream(Request("a", SamplingParams(logit_bias={token: 1.0})))


def test_log_probabilities_are_those_of_the_raw_logits() -> None:
    engine, runtime = local()
    chunks = ask(engine, "a", logprobs=3, max_tokens=8)
    told = [entry for chunk in chunks for entry in chunk.logprobs]
    session, held = ToySession(), runtime.encode("a", add_bos=True, parse_special=False)
    for entry in told:
        logprobs = log_softmax(session.forward(held)[0])
        assert entry.logprob == pytest.approx(logprobs[entry.token])
        assert [token for token, _, _ in entry.top] == list(np.argsort(-logprobs)[:3])
        held = [entry.token]
    assert len(told) == 8


def test_probabilities_of_all_tokens_sum_to_one() -> None:
    logits = np.array([1000.0, 999.0, -1000.0], dtype=np.float32)
    assert float(np.exp(log_softmax(logits)).sum()) == pytest.approx(1.0)


@given(TEXT, st.lists(TEXT, min_size=1, max_size=4))
def test_a_score_is_the_sum_over_the_tokens_that_the_choice_adds(prompt: str, choices: list[str]) -> None:
    engine, runtime = local(context_length=200)
    ask(engine, "a" + prompt, GREEDY, max_tokens=5)
    scores = engine.score(prompt, choices)
    for choice, score in zip(choices, scores, strict=True):
        base = runtime.encode(prompt, add_bos=True, parse_special=False)
        whole = runtime.encode(prompt + choice, add_bos=True, parse_special=False)
        start = next((n for n, (x, y) in enumerate(zip(base, whole)) if x != y), min(len(base), len(whole)))
        session, total = ToySession(), 0.0
        for index, token in enumerate(whole[:-1]):
            row = log_softmax(session.forward([token])[0])
            if index + 1 >= start:
                total += row[whole[index + 1]]
        assert math.isclose(score, total, rel_tol=1e-12, abs_tol=1e-12)


def test_a_choice_that_merges_with_the_prompt_counts_the_merged_token() -> None:
    engine, _ = local()
    session = ToySession()
    assert engine.score("a", ["b"]) == [float(log_softmax(session.forward([BOS])[0])[2])]
    assert engine.score("a", [""]) == [0.0]


def test_special_tokens_are_read_only_where_they_are_meant() -> None:
    engine, runtime = local()
    with pytest.raises(ValueError, match="not in tuple"):
        engine.count_tokens("</s>")
    assert engine.count_tokens("ab</s>", parse_special=True) == 2
    assert runtime.encode_chat([Message("user", "ab")], "") == [BOS, 2, END]


def test_a_chat_goes_through_the_template_and_its_prefix_is_not_repeated() -> None:
    engine, runtime = local()
    request = ChatRequest([Message("user", "ab")], NO_END, max_tokens=4, prefix="c")
    direct = ToySession()
    tokens = list(runtime.generate(direct, [BOS, 2, END, 7], NO_END, 1, 4, None))
    decoder = runtime.decoder()
    expected = "".join(decoder.feed(step.token) for step in tokens) + decoder.finish()
    assert text_of(list(engine.stream_chat(request))) == expected


def test_a_chat_tells_log_probabilities_like_a_completion() -> None:
    engine, _ = local()
    chunks = list(engine.stream_chat(ChatRequest([Message("user", "ab")], NO_END, max_tokens=4, logprobs=2)))
    told = [entry for chunk in chunks for entry in chunk.logprobs]
    assert len(told) == 4
    assert "".join(entry.text for entry in told) == text_of(chunks)
    assert all(len(entry.top) == 2 for entry in told)


@pytest.mark.parametrize("seed", range(5))
def test_the_texts_that_end_a_template_end_a_message_like_an_end_token(seed: int) -> None:
    params = replace(NO_END, seed=seed)
    chat = ChatRequest([Message("user", "ab")], params, max_tokens=40)
    asked, by_itself = local()[0], local()[0]
    by_itself.use_template("toy")
    stopped = list(asked.stream_chat(replace(chat, stop=("##",))))
    ended = list(by_itself.stream_chat(chat))
    assert (stopped[-1].finish_reason, stopped[-1].stop) == (FinishReason.STOP, "##")
    assert (ended[-1].finish_reason, ended[-1].stop) == (FinishReason.END, None)
    assert text_of(ended) == text_of(stopped)
    assert list(by_itself.stream_chat(replace(chat, stop=("##",))))[-1].stop == "##"
    assert "##" in text_of(list(by_itself.stream(Request("ab", params, max_tokens=200)))), "only chats have templates"


def test_a_model_without_a_template_names_the_mode_that_needs_none() -> None:
    with pytest.raises(UsageError, match=r"no chat template.*guided mode"):
        local(supports_chat=False)[0].stream_chat(ChatRequest([Message("user", "ab")]))


def test_threads_wait_for_each_other_and_share_one_session() -> None:
    engine, runtime = local()
    requests = [Request("a" * n, NO_END, max_tokens=20) for n in range(1, 7)]
    heard: dict[int, object] = {}

    def worker(number: int) -> None:
        heard[number] = essence(list(engine.stream(requests[number])))

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [heard[number] for number in range(6)] == [alone(request) for request in requests]
    assert len(runtime.sessions) <= 2  # one in use, one kept


def test_a_stream_may_end_in_another_thread() -> None:
    engine, _ = local()
    stream = engine.stream(Request("a", NO_END, max_tokens=5))
    next(stream)
    thread = threading.Thread(target=close, args=(stream,))
    thread.start()
    thread.join(5)
    assert text_of(ask(engine, "a", max_tokens=5)) == text_of(ask(local()[0], "a", max_tokens=5))


def test_a_failure_in_the_middle_leaves_the_next_request_right() -> None:
    class Failing(ToySession):
        fail_at = 4

        def forward(self, tokens: Sequence[int], logits_for: Any = "last") -> Any:
            if self.evaluated == self.fail_at:
                self.evaluated += 1
                raise MemoryError
            return super().forward(tokens, logits_for)

    class Runtime(ToyRuntime):
        def new_session(self) -> ToySession:
            return Failing()

    engine = LocalEngine(Runtime())
    with pytest.raises(MemoryError):
        ask(engine, "a")
    assert essence(ask(engine, "a")) == essence(ask(local()[0], "a"))


def test_closing_gives_the_model_back() -> None:
    engine, runtime = local()
    with engine:
        ask(engine, "a", max_tokens=1)
    assert runtime.closed


def test_a_second_loan_of_the_same_thread_gets_its_own_session() -> None:
    pool = SessionPool(ToySession)
    with pool.borrow() as outer, pool.borrow() as inner:
        assert inner.session is not outer.session
    with pool.borrow() as later:
        assert later in (outer, inner)
