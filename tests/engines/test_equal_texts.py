"""The law of the engine: a text depends on its request alone.

Not on drafting, on company, on what was asked before, on how a prompt was cut into calls, on a session that was saved
and restored, on repacked weights. Proved on small real models with every kind of sampling.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import make_tiny

from selfee.chain import Budgets, RevisionPolicy, run_chain
from selfee.chain.run import Mode
from selfee.engines.base import Chunk, Prediction, Request, SamplingParams
from selfee.engines.local import LocalEngine
from selfee.engines.runtime import load_runtime
from selfee.llama.model import Session
from selfee.weights.quants import QuantType

TYPES = (QuantType.F16, QuantType.Q4_0, QuantType.Q5_1, QuantType.Q8_0, QuantType.Q4_K, QuantType.Q6_K)
WORDS = "the sky is blue because light scatters and revision is needed answer feedback"
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for type in TYPES:
        make_tiny(
            folder / f"{type.name}.gguf",
            type=type,
            n_head_kv=2,
            n_ctx=4096,
            n_layer=1,
            metadata={"tokenizer.chat_template": TEMPLATE},
        )
    return folder


@pytest.fixture(scope="module")
def engines(folder: Path) -> Iterator[dict[tuple[QuantType, str], LocalEngine]]:
    """Of each type one engine that does everything the plain way, and one that does everything the fast way."""
    opened = {}
    for type in TYPES:
        path = folder / f"{type.name}.gguf"
        plain = load_runtime(path, context_length=600, threads=1, repack=False, drafting=False)
        fast = load_runtime(path, context_length=600, threads=2, repack=True, parallel=3)
        opened[type, "plain"] = LocalEngine(plain, reuse=False)
        opened[type, "fast"] = LocalEngine(fast, parallel=3)
    yield opened
    for engine in opened.values():
        engine.close()


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.8, 1.5]),
    top_k=st.sampled_from([0, 5, 40]),
    top_p=st.sampled_from([0.5, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.1]),
    typical_p=st.sampled_from([1.0, 0.7]),
    tail_free_z=st.sampled_from([1.0, 0.8]),
    repeat_penalty=st.sampled_from([1.0, 1.3]),
    repeat_last_n=st.sampled_from([-1, 8, 64]),
    frequency_penalty=st.sampled_from([0.0, 0.4]),
    presence_penalty=st.sampled_from([0.0, 0.4]),
    penalize_newline=st.booleans(),
    mirostat=st.sampled_from([0, 0, 1, 2]),
    logit_bias=st.sampled_from([{}, {5: 3.0, 7: float("-inf")}]),
    seed=st.integers(0, 3),
    samplers=st.permutations(SamplingParams().samplers),
)
REQUESTS = st.builds(
    Request,
    st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=40).map(" ".join),
    PARAMS,
    st.integers(1, 60),
    st.sampled_from([(), (" is",), ("re", "\n")]),
    st.sampled_from([None, 2]),
    prediction=st.none() | st.sampled_from([WORDS, f"{WORDS} {WORDS}"]).map(Prediction),
)


def essence(chunks: list[Chunk]) -> object:
    """What must be equal: text, why it ended, log-probabilities."""
    last = chunks[-1]
    told = [(p.token, p.logprob, p.top) for chunk in chunks for p in chunk.logprobs]
    return "".join(chunk.text for chunk in chunks), last.finish_reason, last.stop, told


@settings(max_examples=40)
@given(st.sampled_from(TYPES), st.lists(REQUESTS, min_size=1, max_size=4))
def test_plain_and_fast_say_the_same(
    engines: dict[tuple[QuantType, str], LocalEngine], type: QuantType, requests: list[Request]
) -> None:
    plain = [essence(list(engines[type, "plain"].stream(request))) for request in requests]
    fast = engines[type, "fast"]
    assert [essence(list(fast.stream(request))) for request in requests] == plain
    results: list[object] = [None] * len(requests)

    def one(index: int) -> None:
        results[index] = essence(list(fast.stream(requests[index])))

    threads = [threading.Thread(target=one, args=(index,), daemon=True) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == plain, "in company"


def test_texts_that_copy_from_each_other_while_they_are_written_are_the_same(
    engines: dict[tuple[QuantType, str], LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside each other, some closed early, some scored, on beginnings that they share in part."""
    plain, fast = engines[QuantType.Q8_0, "plain"], engines[QuantType.Q8_0, "fast"]
    prompts = [" ".join([WORDS] * shared + [word] * 3) for shared in (2, 3, 4) for word in ("sky", "light", "needed")]
    requests = [
        Request(prompt, SamplingParams(temperature=1.0, seed=number), 30) for number, prompt in enumerate(prompts)
    ]
    expected = ["".join(chunk.text for chunk in plain.stream(request)) for request in requests]
    scores = [plain.score(prompt, [" blue", " answer"]) for prompt in prompts]
    copies: list[bool] = []
    copy = Session.copy_from

    def copy_from(self: Session, other: Session, length: int) -> None:
        copies.append(any(held.session is other for held in list(fast._sessions._lent)))
        copy(self, other, length)

    monkeypatch.setattr(Session, "copy_from", copy_from)
    wrong: list[object] = []

    def work(worker: int) -> None:
        rng = random.Random(worker)
        try:
            for _ in range(12):
                number, what = rng.randrange(len(requests)), rng.random()
                if what < 0.2:
                    if fast.score(prompts[number], [" blue", " answer"]) != scores[number]:
                        wrong.append(("score", number))
                    continue
                stream = fast.stream(requests[number])
                chunks = list(islice(stream, rng.randrange(30))) if what < 0.5 else list(stream)
                stream.close()  # type: ignore[attr-defined]
                text = "".join(chunk.text for chunk in chunks)
                if not expected[number].startswith(text) or (what >= 0.5 and text != expected[number]):
                    wrong.append((number, text))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert any(copies), "of sessions in use"


@settings(max_examples=15)
@given(st.sampled_from(TYPES), REQUESTS, REQUESTS, st.integers(0, 10))
def test_a_restored_session_goes_on_with_the_same_text(
    engines: dict[tuple[QuantType, str], LocalEngine],
    folder: Path,
    type: QuantType,
    first: Request,
    second: Request,
    heard: int,
) -> None:
    plain = engines[type, "plain"]
    later = Request(first.prompt + " " + second.prompt, second.params, second.max_tokens, second.stop, second.logprobs)
    expected = essence(list(plain.stream(later)))
    saving, file = engines[type, "fast"], folder / "kept.session"
    stream = saving.stream(first)
    for _, _ in zip(range(heard), stream, strict=False):
        pass
    stream.close()  # type: ignore[attr-defined]
    if saving.save_session(file):
        fresh = LocalEngine(load_runtime(folder / f"{type.name}.gguf", context_length=600))
        with fresh:
            assert fresh.restore_session(file) > 0
            assert essence(list(fresh.stream(later))) == expected


@pytest.mark.parametrize("mode", ["guided", "turns", "single-pass"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_chain_is_the_same_with_and_without_drafting(folder: Path, mode: Mode, temperature: float) -> None:
    chains = []
    for drafting in (False, True):
        runtime = load_runtime(folder / "Q8_0.gguf", context_length=2048, drafting=drafting)
        with LocalEngine(runtime) as engine:
            for seed in (1, 2):
                chain = run_chain(
                    engine,
                    WORDS,
                    RevisionPolicy(2, 2, stop_repeats=False),
                    SamplingParams(temperature=temperature, seed=seed),
                    mode=mode,
                    budgets=Budgets(40, 20, 40),
                )
                chains.append([(step.answer, step.feedback, step.overruled) for step in chain.steps])
    assert chains[:2] == chains[2:]
