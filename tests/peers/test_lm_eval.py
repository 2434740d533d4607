"""lm-evaluation-harness scores a model through us as it does with its own Hugging Face backend.

Its client for completion servers talks over a real socket to a server of a few lines, which hands tokens to the engine;
the protocol itself belongs to ``selfee serve``. Skipped without lm-eval (``pip install "lm-eval[api]"``).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import make_tiny

from selfee.engines.local import LocalEngine
from selfee.engines.runtime import load_runtime
from selfee.engines.scoring import ScoredSequence, ScoringRequest

api_models = pytest.importorskip("lm_eval.models.openai_completions", reason="lm-eval is not installed")

QUESTIONS = [
    ("The sky is", " blue"),
    ("The sky is", " not blue"),
    ("Answer: the light scatters because", " the sky is blue"),
    ("Answer: the light scatters because", " it was"),
    ("Each word of the", " of the of"),
    ("", "Answer"),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    path = make_tiny(tmp_path_factory.mktemp("lm-eval") / "tiny.gguf")
    with LocalEngine(load_runtime(path, parallel=2), parallel=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(engine: LocalEngine) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
            assert body["echo"] is True
            scored = engine.score_tokens([ScoringRequest(tuple(each), top=body["logprobs"]) for each in prompts])
            choices = [_choice(index, each) for index, each in enumerate(scored)]
            data = json.dumps({"choices": choices, "usage": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/completions"
        server.shutdown()


def _choice(index: int, scored: ScoredSequence) -> dict[str, Any]:
    """As servers write it: prompt and generated token with their log-probabilities."""
    tokens = [*scored.tokens, scored.next]
    return {
        "index": index,
        "text": "".join(each.text for each in tokens),
        "logprobs": {
            "tokens": [each.text for each in tokens],
            "token_logprobs": [each.logprob for each in tokens],
            "top_logprobs": [{str(token): logprob for token, _, logprob in each.top} or None for each in tokens],
        },
    }


def _client(engine: LocalEngine, address: str, **more: Any) -> Any:
    class Client(api_models.LocalCompletionsAPI):  # type: ignore[misc, name-defined]
        """Takes its tokens from the engine: the tiny model has no tokenizer on any hub."""

        def tok_encode(self, string: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(string, str):
                return engine.encode_text(string)[1:]
            return [engine.encode_text(each)[1:] for each in string]

        @property
        def eot_token_id(self) -> int:
            return engine.encode_text("")[0]

        prefix_token_id = eot_token_id

    client = Client(model="tiny", base_url=address, tokenizer_backend="none", **more)
    client.tokenizer, client.tokenized_requests = object(), True  # it only asks whether there is one
    return client


@pytest.mark.parametrize(("batch", "concurrent"), [(1, 1), (4, 1), (1, 4)])
def test_loglikelihoods_are_those_of_the_engine(engine: LocalEngine, address: str, batch: int, concurrent: int) -> None:
    from lm_eval.api.instance import Instance  # type: ignore[import-not-found]

    client = _client(engine, address, batch_size=batch, num_concurrent=concurrent)
    requests = [
        Instance("loglikelihood", {}, arguments=pair, idx=number, metadata=("task", number, 1))
        for number, pair in enumerate(QUESTIONS)
    ]
    found = client.loglikelihood(requests, disable_tqdm=True)
    for pair, (total, is_greedy) in zip(QUESTIONS, found, strict=True):
        context, continuation = (
            client._encode_pair(*pair) if pair[0] else ([client.prefix_token_id], client.tok_encode(pair[1]))
        )
        expected = _alone(engine, context, continuation)
        assert total == pytest.approx(expected[0], abs=1e-9)
        assert is_greedy == expected[1]


def _alone(engine: LocalEngine, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
    scored = engine.score_tokens([ScoringRequest((*context, *continuation))])[0]
    return scored.total(len(context))


def test_a_tiny_task_of_multiple_choice_is_scored(engine: LocalEngine, address: str, tmp_path: Path) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    rows = [{"question": context, "choices": [one, other], "gold": 0} for context, one, other in _TASK]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "task": "tiny_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    client = _client(engine, address, batch_size=2)
    result = lm_eval.simple_evaluate(model=client, tasks=[config], bootstrap_iters=0)
    expected = 0
    for context, one, other in _TASK:
        sums = []
        for choice in (one, other):
            before, after = client._encode_pair(context, choice)
            sums.append(_alone(engine, before, after)[0])
        expected += sums[0] > sums[1]
    assert result["results"]["tiny_choice"]["acc,none"] == pytest.approx(expected / len(_TASK))


_TASK = [
    ("The sky is", " blue", " the"),
    ("Answer: the light", " scatters", " was blue"),
    ("Each of the", " word", " for it was"),
    ("It was not", " that", " blue light"),
]
