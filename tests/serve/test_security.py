"""Table S of the catalogue: who may ask, from where, and what must never be told."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path

import pytest
from tests.engines.test_local import ToyRuntime
from tests.serve.harness import QUESTION, Running, ok, refused, serving
from tests.serve.processes import served_process
from tests.tiny import make_tiny

from selfee.engines.base import Request
from selfee.engines.local import LocalEngine
from selfee.engines.scoring import ScoringRequest
from selfee.errors import UsageError
from selfee.serve.config import Access, ServerConfig
from selfee.serve.logs import log_to

KEY, OTHER = "sk-test-0123456789", "sk-test-9876543210"
PACKAGE = Path(__file__).resolve().parents[2] / "src" / "selfee" / "serve"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "127.8.9.1", "LOCALHOST"])
def test_s1_names_of_this_machine_are_let_in(server: Running, host: str) -> None:
    for name in (host, f"{host}:{server.port}", f"{host}:1"):
        assert server.client.get("/health", headers={"host": name}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.com", "192.168.1.7", "127.0.0.1.evil.com", "127.0.0.1@evil", "", "a b", "[::"],
)
def test_s1_other_names_are_refused(server: Running, host: str) -> None:
    for path in ("/health", "/v1/models", "/", "/metrics"):
        response = server.client.get(path, headers={"host": host})
        assert response.status_code in (400, 403), host


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://localhost", "http://localhost.evil.com", "file://", "x"]
)
def test_s1_pages_of_others_are_refused(server: Running, origin: str) -> None:
    response = server.post("/v1/chat/completions", {"messages": [QUESTION]}, origin=origin)
    refused(response, 403, "origin", "origin_not_allowed")
    assert "access-control-allow-origin" not in response.headers
    assert server.client.options("/v1/models", headers={"origin": origin}).status_code == 403


def test_s1_its_own_page_and_those_that_are_named_may_ask() -> None:
    access = Access(origins=("http://good.example",), hosts=("box.lan",))
    with serving(access=access) as server:
        own = f"http://127.0.0.1:{server.port}"
        assert server.client.get("/health", headers={"origin": own}).status_code == 200
        response = server.client.get("/health", headers={"origin": "http://good.example"})
        assert response.headers["access-control-allow-origin"] == "http://good.example"
        preflight = server.client.options("/v1/chat/completions", headers={"origin": "http://good.example"})
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert server.client.get("/health", headers={"host": f"box.lan:{server.port}"}).status_code == 200


ROUTES = (
    ("GET", "/"),
    ("GET", "/index.html"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/script"),
    ("GET", "/models"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/tokenizer_info"),
    ("GET", "/v1/selfee/chat/chain_x"),
    ("GET", "/v1/selfee/chat/chain_x/events"),
    ("POST", "/v1/selfee/chat/chain_x/control"),
    ("POST", "/v1/selfee/chat"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/nothing"),
)


def test_s2_without_the_key_nothing_but_health_is_told() -> None:
    with serving(access=Access(keys=(KEY, OTHER))) as server:
        for method, path in ROUTES:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": KEY}, {"x-api-key": KEY[:-1]}):
                response = server.client.request(method, path, headers=headers)
                refused(response, 401, code="invalid_api_key")
                assert KEY not in response.text
        assert server.client.get("/health").status_code == 200
        for key in (KEY, OTHER):
            assert ok(server.client.get("/v1/models", headers={"authorization": f"Bearer {key}"}))
            assert ok(server.client.get("/v1/models", headers={"x-api-key": key}))
            basic = base64.b64encode(f"me:{key}".encode()).decode()
            assert ok(server.client.get("/v1/models", headers={"authorization": f"Basic {basic}"}))
        told = {path for path, _ in server.operations() if "{" not in path} - {"/health"}
        assert told
        assert told <= {path for _, path in ROUTES}, "a route that this test does not ask"


def test_s2_a_browser_asks_the_person_for_the_key() -> None:
    with serving(access=Access(keys=(KEY,))) as server:
        page = server.client.get("/", headers={"accept": "text/html"})
        assert page.headers["www-authenticate"].startswith("Basic")
        assert server.client.get("/", headers={"accept": "*/*"}).headers["www-authenticate"] == "Bearer"


def test_s2_keys_are_compared_in_constant_time() -> None:
    assert "compare_digest" in (PACKAGE / "guard.py").read_text(encoding="utf-8")


def test_s2_a_chain_of_one_key_is_hidden_from_another() -> None:
    with serving(access=Access(keys=(KEY, OTHER))) as server:
        mine, theirs = ({"authorization": f"Bearer {key}"} for key in (KEY, OTHER))
        body = {"messages": [QUESTION], "stream": False}
        name = ok(server.client.post("/v1/selfee/chat", json=body, headers=mine))["id"]
        assert ok(server.client.get(f"/v1/selfee/chat/{name}", headers=mine))
        refused(server.client.get(f"/v1/selfee/chat/{name}", headers=theirs), 404)
        refused(server.client.get(f"/v1/selfee/chat/{name}/events", headers=theirs), 404)
        wish = {"action": "one_more"}
        refused(server.client.post(f"/v1/selfee/chat/{name}/control", json=wish, headers=theirs), 404)


def test_s2_a_server_that_others_can_reach_wants_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.7", "example.com"):
        with pytest.raises(UsageError, match="no key is set"):
            ServerConfig(host)
        assert ServerConfig(host, access=Access(keys=(KEY,)))
    for host in ("127.0.0.1", "::1", "localhost"):
        assert ServerConfig(host)
    for key in ("short", "with blanks in it", "with\nline breaks in it", "gräßlich-lang-genug"):
        with pytest.raises(UsageError):
            Access(keys=(key,))


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/%00",
        "/\uff0e\uff0e/x",
    ],
)
def test_s4_no_path_leads_out_of_the_page(server: Running, path: str) -> None:
    response = server.client.get(path)
    assert response.status_code in (400, 404)
    assert "root:" not in response.text
    assert "[project]" not in response.text


def test_s5_neither_keys_nor_texts_are_logged_or_counted() -> None:
    stream = io.StringIO()
    log_to(stream, "json", requests=True)
    secret = "the colour of my grandmother's house"
    with serving(access=Access(keys=(KEY,))) as server:
        headers = {"authorization": f"Bearer {KEY}"}
        body = {"messages": [{"role": "user", "content": secret}]}
        ok(server.client.post("/v1/chat/completions", json=body, headers=headers))
        server.client.post("/v1/chat/completions", json=body | {"n": secret}, headers=headers)
        server.client.get("/v1/models", headers={"authorization": "Bearer sk-wrong-key-here"})
        metrics = server.client.get("/metrics", headers=headers).text
    lines = stream.getvalue()
    logging.getLogger("selfee.serve").handlers = []
    assert '"status": 200' in lines
    assert '"status": 401' in lines
    for told in (lines, metrics):
        assert KEY not in told
        assert "sk-wrong-key-here" not in told
        assert secret not in told
    assert 'selfee_requests_total{route="/v1/chat/completions",status="200"} 1.0' in metrics
    assert 'selfee_chains_total{cause="autonomous",model="script"} 1.0' in metrics


def test_s6_what_was_read_for_one_key_saves_another_no_time_if_isolated(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_ctx=1024)
    prompt = "the sky is blue because the light of the sun scatters and " * 4
    for isolate in (False, True):
        access = Access(keys=(KEY, OTHER))
        with serving(models=[served_process(path)], access=access, isolate=isolate) as server:
            cached: list[list[int]] = []
            chat = {"messages": [{"role": "user", "content": "and then " + prompt}], "max_tokens": 4}
            for path_, body in (
                ("/v1/completions", {"prompt": prompt, "max_tokens": 2}),
                ("/v1/chat/completions", chat | {"selfee": {"mode": "off"}}),
            ):
                counts = []
                for key in (KEY, OTHER, KEY):
                    answer = ok(server.post(path_, body, authorization=f"Bearer {key}"))
                    usage = answer["usage"]
                    details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
                    counts.append(details["cached_tokens"])
                cached.append(counts)
            for _, other, again in cached:
                assert again > 40, "one's own is used again"
                assert (other < again / 2) if isolate else (other > again / 2), (isolate, cached)


def test_s6_scores_of_one_key_are_computed_anew_for_another() -> None:
    engine = LocalEngine(ToyRuntime())
    tokens = tuple([4, 5, 6] * 10)
    evaluated = [engine.score_tokens([ScoringRequest(tokens, scope=scope)])[0].evaluated for scope in "aabab"]
    assert evaluated == [30, 0, 30, 0, 0]


def test_s6_no_session_is_copied_from_another_key_s() -> None:
    runtime = ToyRuntime()
    engine = LocalEngine(runtime, parallel=2)
    tokens = tuple([4, 5, 6] * 10)
    streams = [engine.stream(Request("", tokens=tokens, max_tokens=4, scope=scope)) for scope in "ab"]
    for stream in streams:
        next(iter(stream))
    assert sum(session.evaluated for session in runtime.sessions) >= 60


def test_s7_nothing_that_runs_what_it_reads() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for word in ("pickle", "marshal", "eval(", "exec(", "yaml.load", "shell=True"):
            assert word not in text.replace("create_subprocess_exec(", ""), f"{path}: {word}"


def test_s8_the_page_may_load_nothing_from_elsewhere(server: Running) -> None:
    page = server.client.get("/")
    if page.status_code == 200:
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["x-content-type-options"] == "nosniff"
