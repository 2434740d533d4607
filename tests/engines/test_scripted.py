"""The scripted engine behaves as a real one, and complains clearly about a script that does not fit."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

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
    Request,
    SamplingParams,
    chat_of,
    scoring_of,
)
from selfee.engines.scripted import Reply, Rule, ScriptedEngine, split_tokens
from selfee.errors import BadFileError, ContextOverflowError, EngineError, UsageError


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def ask(engine: ScriptedEngine, prompt: str = "Q", **fields: Any) -> list[Chunk]:
    return list(engine.stream(Request(prompt, **fields)))


def test_it_is_an_engine_of_every_kind() -> None:
    engine = ScriptedEngine(["x"], scores={"a": -1.0})
    assert isinstance(engine, Engine)
    assert isinstance(engine, ChatEngine)
    assert isinstance(engine, CountingEngine)
    assert chat_of(engine) is engine
    assert scoring_of(engine) is engine


def test_without_scores_it_does_not_claim_to_score() -> None:
    assert scoring_of(ScriptedEngine(["x"])) is None


def test_replies_come_in_order_and_requests_are_remembered() -> None:
    engine = ScriptedEngine(["one two", "three"])
    assert [text_of(ask(engine, "A")), text_of(ask(engine, "B"))] == ["one two", "three"]
    assert engine.requests == [Request("A"), Request("B")]
    engine.check_finished()


@given(st.text(), st.integers(1, 9))
def test_the_text_survives_every_cutting(text: str, size: int) -> None:
    engine = ScriptedEngine([Reply(text), Reply(text, chunks=size), Reply(text, chunks=list(text))])
    assert [text_of(ask(engine)) for _ in range(3)] == [text] * 3
    assert "".join(split_tokens(text)) == text


def test_only_the_last_chunk_has_a_reason_and_the_usage() -> None:
    chunks = ask(ScriptedEngine(["one two three"]), "Why is it?", params=SamplingParams(seed=7))
    assert [chunk.finish_reason for chunk in chunks] == [None, None, None, FinishReason.END]
    assert [chunk.usage is None for chunk in chunks] == [True, True, True, False]
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.seed) == (3, 3, 7)


def test_pieces_are_exactly_those_told() -> None:
    chunks = ask(ScriptedEngine([Reply("Hello", chunks=["He", "", "llo"])]))
    assert [chunk.text for chunk in chunks] == ["He", "llo", ""]


def test_a_stop_string_ends_the_stream_and_is_named() -> None:
    chunks = ask(ScriptedEngine([Reply("answer\n### Feedback: x", chunks=4)]), stop=["### F", "zzz"])
    assert text_of(chunks) == "answer\n"
    assert (chunks[-1].finish_reason, chunks[-1].stop) == (FinishReason.STOP, "### F")


def test_max_tokens_counts_words() -> None:
    chunks = ask(ScriptedEngine(["one two three"]), max_tokens=2)
    assert (text_of(chunks), chunks[-1].finish_reason) == ("one two", FinishReason.LENGTH)
    exact = ask(ScriptedEngine(["one two"]), max_tokens=2)
    assert (text_of(exact), exact[-1].finish_reason) == ("one two", FinishReason.END)
    nothing = ask(ScriptedEngine(["one"]), max_tokens=0)
    assert (text_of(nothing), nothing[-1].finish_reason) == ("", FinishReason.LENGTH)


def test_the_context_window_is_honoured() -> None:
    chunks = ask(ScriptedEngine(["one two three"], context_length=4), "a b", max_tokens=9)
    assert (text_of(chunks), chunks[-1].finish_reason) == ("one two", FinishReason.CONTEXT)
    with pytest.raises(ContextOverflowError, match="3 tokens; the context window holds 2"):
        ask(ScriptedEngine(["x"], context_length=2), "a b c")


def test_an_error_comes_after_the_pieces_told() -> None:
    stream = ScriptedEngine([Reply("a b c", error="line cut", error_after=2, retryable=True)]).stream(Request("Q"))
    assert [next(stream).text, next(stream).text] == ["a", " b"]
    with pytest.raises(EngineError, match="script: line cut") as caught:
        next(stream)
    assert caught.value.retryable


def test_an_error_told_for_later_than_the_end_still_comes() -> None:
    with pytest.raises(EngineError, match="late"):
        ask(ScriptedEngine([Reply("a b", error="late", error_after=9)]))


def test_closing_the_iterator_is_a_cancellation() -> None:
    engine = ScriptedEngine(["a b c", "next"])
    stream = engine.stream(Request("Q"))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert engine.cancelled == 1
    assert text_of(ask(engine)) == "next"
    assert engine.cancelled == 1


def test_no_reply_left_is_a_clear_error() -> None:
    engine = ScriptedEngine(["only"])
    ask(engine)
    with pytest.raises(EngineError, match=r"request 2 has no reply.*all 1 replies are used.*'Second\?'"):
        ask(engine, "Second?")


def test_unused_replies_are_a_clear_error() -> None:
    with pytest.raises(UsageError, match="1 of 2 replies were never asked for, the first is 'b'"):  # noqa: SIM117
        with ScriptedEngine(["a", "b"]) as engine:
            ask(engine)
    with ScriptedEngine(["a"], strict=False):
        pass


def test_an_error_inside_is_not_hidden_by_unused_replies() -> None:
    with pytest.raises(KeyError), ScriptedEngine(["a"]):
        raise KeyError


def test_rules_answer_by_prompt_and_may_be_used_again() -> None:
    rules = [Rule("is four", contains="2+2"), Rule("feedback", ends_with="Feedback:"), Rule("n", pattern=r"^\d+$")]
    engine = ScriptedEngine(["else"], rules=rules)
    prompts = ["2+2?", "x\nFeedback:", "17", "17", "other"]
    assert [text_of(ask(engine, p)) for p in prompts] == ["is four", "feedback", "n", "n", "else"]


def test_a_chat_is_matched_by_its_messages_and_prefix() -> None:
    engine = ScriptedEngine(rules=[Rule("yes", pattern=r"system: S\nuser: U\nBegin$")])
    request = ChatRequest([Message("system", "S"), Message("user", "U")], prefix="Begin")
    assert text_of(list(engine.stream_chat(request))) == "yes"
    assert engine.requests == [request]


def test_scores_are_those_told() -> None:
    engine = ScriptedEngine(scores={"a": -1.0, "b": -2.0})
    assert engine.score("P", ["b", "a"]) == [-2.0, -1.0]
    with pytest.raises(EngineError, match="no score for 'c'"):
        engine.score("P", ["c"])
    by_call = ScriptedEngine(scores=lambda prompt, choices: [-float(len(prompt + choice)) for choice in choices])
    assert by_call.score("PP", ["a", "bb"]) == [-3.0, -4.0]
    with pytest.raises(EngineError, match="no scores"):
        ScriptedEngine().score("P", ["a"])


def test_logprobs_join_to_the_delivered_text() -> None:
    chunks = ask(ScriptedEngine([Reply("a b ### c", logprob=-0.5)]), stop=[" ###"], logprobs=0)
    told = [logprob for chunk in chunks for logprob in chunk.logprobs]
    assert ("".join(logprob.text for logprob in told), {logprob.logprob for logprob in told}) == ("a b", {-0.5})


def test_threads_share_one_script_without_losing_a_reply() -> None:
    engine = ScriptedEngine([str(n) for n in range(40)])
    heard: list[str] = []

    def worker() -> None:
        heard.extend(text_of(ask(engine)) for _ in range(10))

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(heard, key=int) == [str(n) for n in range(40)]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_script_file_holds_everything(tmp_path: Path) -> None:
    rows: tuple[dict[str, Any], ...] = (
        {"engine": {"name": "demo", "context_length": 50, "strict": False}},
        {"text": "Hello there", "chunks": 3, "finish_reason": "length"},
        {"when": {"ends_with": "?"}, "text": "asked", "delay": 0.0},
        {"scores": {" not": -0.1, "": -2}},
    )
    engine = ScriptedEngine.from_file(write(tmp_path / "s.jsonl", *rows))
    assert (engine.name, engine.context_length) == ("demo", 50)
    assert text_of(ask(engine, "why?")) == "asked"
    chunks = ask(engine, "go")
    assert [chunk.text for chunk in chunks] == ["Hel", "lo ", "the", "re", ""]
    assert chunks[-1].finish_reason is FinishReason.LENGTH
    assert engine.score("", [""]) == [-2.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"txt": "x"}, "unknown field 'txt'"),
        ({"chunks": 1}, "no field 'text'"),
        ({"text": 5}, "field 'text' is a int; expected str"),
        ({"text": "x", "delay": True}, "field 'delay' is a bool"),
        ({"text": "x", "chunks": ["y"]}, "do not join"),
        ({"text": "x", "chunks": [1]}, "something else than strings"),
        ({"text": "x", "chunks": 0}, "expected 1 or more"),
        ({"text": "x", "finish_reason": "bored"}, "bored"),
        ({"when": {"regex": "x"}, "text": "x"}, "when: unknown field 'regex'"),
        ({"when": {"pattern": "("}, "text": "x"}, "not a regular expression"),
        ({"when": "x", "text": "x"}, "when: found a str"),
        ({"scores": {"a": "b"}}, "'a' has 'b'"),
        ({"scores": [1]}, "found a list"),
        ({"scores": {"a": 1}, "text": "x"}, "field 'text' beside 'scores'"),
        ({"engine": {"color": 1}}, "engine: unknown field 'color'"),
    ],
)
def test_a_damaged_script_names_file_line_and_field(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "bad.jsonl", {"text": "fine"}, row)
    with pytest.raises(BadFileError, match=r"bad\.jsonl:2: ") as caught:
        ScriptedEngine.from_file(path)
    assert message in str(caught.value)


def test_an_empty_or_missing_script_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="no replies"):
        ScriptedEngine.from_file(write(tmp_path / "empty.jsonl"))
    with pytest.raises(BadFileError, match="cannot be read"):
        ScriptedEngine.from_file(tmp_path / "missing.jsonl")


def test_a_string_instead_of_a_list_is_refused() -> None:
    with pytest.raises(UsageError, match="one string"):
        ScriptedEngine("reply")
    with pytest.raises(UsageError, match="one string"):
        Request("Q", stop="###")
