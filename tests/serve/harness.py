"""A server on a loopback socket, over a script or the tiny model; and how its answers are read."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI

from selfee.chain.policy import RevisionPolicy
from selfee.engines.base import SamplingParams
from selfee.engines.scripted import Reply, Rule, ScriptedEngine
from selfee.serve.app import make_app
from selfee.serve.config import Access, Defaults, Limits, ServerConfig
from selfee.serve.engine.backend import Backend
from selfee.serve.engine.jobs import ModelInfo
from selfee.serve.engine.threads import ThreadBackend
from selfee.serve.http_protocol import protocol_with
from selfee.serve.service import Served, Service

QUESTION = {"role": "user", "content": "Why is the sky blue?"}
FIRST = "The sky reflects the ocean."
CRITICAL = "Reflection is not the cause. Revision is needed."
SECOND = "The air scatters blue light more than red."
CONTENT = "Correct and clear. Revision is not needed."
TARGET = f"{FIRST}\n\n### Feedback 1:\n{CRITICAL}\n\n### Revision 1:\n{SECOND}\n\n### Feedback 2:\n{CONTENT}"
LIMITS = Limits(heartbeat_seconds=0.2, grace_seconds=0.3, drain_seconds=2)


def scripted(*replies: Reply | str, delay: float = 0.0, text: str = TARGET) -> ScriptedEngine:
    """An engine that writes a whole chain, as a trained model does, for anyone who asks; or what it is told."""
    if replies:
        return ScriptedEngine(replies, strict=False)
    return ScriptedEngine(rules=[Rule(Reply(text, delay=delay))], strict=False)


def backend_of(engine: Any, *, name: str = "script", parallel: int = 4, mode: Any = "single-pass") -> ThreadBackend:
    """A backend over an engine."""
    length = getattr(engine, "context_length", None)
    end = getattr(engine, "end_text", None)
    return ThreadBackend(engine, ModelInfo(name, engine.name, length, parallel, mode, True, 1_700_000_000, end))


class QuickServer(uvicorn.Server):
    """Notices within milliseconds that it is to end, of which tests are full."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(0.005)


@dataclass
class Running:
    """A server under test."""

    url: str
    service: Service
    engine: Any
    port: int
    app: FastAPI
    client: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx2.Client(base_url=self.url, timeout=30, trust_env=False, verify=False)  # no TLS here

    def operations(self) -> set[tuple[str, str]]:
        """Path and method of every route that the server tells of."""
        return {(path, method.upper()) for path, methods in self.app.openapi()["paths"].items() for method in methods}

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        return self.client.post(path, json=body, headers={name.replace("_", "-"): v for name, v in headers.items()})

    def chat(self, **fields: Any) -> dict[str, Any]:
        """A chat completion as one object, which must come."""
        return ok(self.post("/v1/chat/completions", {"messages": [QUESTION]} | fields))

    def chunks(self, path: str = "/v1/chat/completions", **fields: Any) -> list[dict[str, Any]]:
        """The chunks of a stream that ends well."""
        body = {"messages": [QUESTION], "stream": True} | fields if path.endswith("chat/completions") else fields
        with self.client.stream("POST", path, json=body | {"stream": True}) as response:
            assert response.status_code == 200, response.read()
            rows = list(data_rows(response.iter_lines()))
        assert rows[-1] == "[DONE]"
        return [json.loads(row) for row in rows[:-1]]

    def events(self, **fields: Any) -> list[dict[str, Any]]:
        """The events of a native chain, to its end."""
        with self.client.stream("POST", "/v1/selfee/chat", json={"messages": [QUESTION]} | fields) as response:
            assert response.status_code == 200, response.read()
            return list(native_events(response.iter_lines()))

    def wait_idle(self, seconds: float = 5.0) -> None:
        """Until nothing computes or waits."""
        until = time.monotonic() + seconds
        while self.service.is_busy:
            assert time.monotonic() < until, "something still computes"
            time.sleep(0.01)

    def wait_running(self, count: int = 1, seconds: float = 5.0) -> None:
        """Until so many jobs compute."""
        until = time.monotonic() + seconds
        while self.service.models[0].admission.running < count:
            assert time.monotonic() < until, "nothing began"
            time.sleep(0.005)


def ok(response: httpx2.Response) -> dict[str, Any]:
    """The object of an answer that is no error."""
    assert response.status_code == 200, (response.status_code, response.text)
    row: dict[str, Any] = response.json()
    return row


def refused(response: httpx2.Response, status: int, param: str | None = None, code: str | None = None) -> str:
    """The message of an error in the one form that errors have."""
    assert response.status_code == status, (response.status_code, response.text)
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    if param is not None:
        assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code, error
    return str(error["message"])


def data_rows(lines: Iterator[str]) -> Iterator[str]:
    """What stands behind ``data:``."""
    for line in lines:
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


def native_events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Native events but pings, checked to have the number and name that their frame says."""
    number = name = ""
    for line in lines:
        if line.startswith("id: "):
            number = line.removeprefix("id: ")
        elif line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: ") and name != "ping":
            row = json.loads(line.removeprefix("data: "))
            assert (row["type"], str(row["seq"])) == (name, number)
            yield row


@contextmanager
def serving(
    engine: Any = None,
    *,
    backend: Backend | None = None,
    limits: Limits = LIMITS,
    access: Access | None = None,
    policy: RevisionPolicy | None = None,
    parallel: int = 4,
    models: Sequence[Served] = (),
    **config: Any,
) -> Iterator[Running]:
    """A server over an engine (default: a script that writes a chain with one revision)."""
    engine = engine or scripted()
    defaults = Defaults(policy or RevisionPolicy(), SamplingParams(temperature=0.0), mode="single-pass")
    if getattr(engine, "supports_chat", None) is not None:
        defaults = replace(defaults, mode="auto")
    served = models or [Served(backend or backend_of(engine, parallel=parallel, mode=defaults.mode), defaults)]
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        settings = ServerConfig("127.0.0.1", port, limits, access or Access(), **config)
        app = make_app(settings, served)
        uvicorn_config = uvicorn.Config(
            app,
            http=protocol_with(limits.header_seconds),
            ws="none",
            log_config=None,
            h11_max_incomplete_event_size=limits.header_bytes,
            timeout_graceful_shutdown=1,
        )
        server = QuickServer(uvicorn_config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        running = Running(f"http://127.0.0.1:{port}", app.state.service, engine, port, app)
        try:
            yield running
        finally:
            running.client.close()
            server.should_exit = True
            thread.join(15)
            assert not thread.is_alive(), "the server did not end"
