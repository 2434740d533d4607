"""A teacher on a real socket that fails in every way servers fail, and counts what it would have charged for.

Its replies depend on the question alone, so that two runs can be compared byte for byte. Faults are drawn for each
question by its hash: the first few attempts fail, then the reply comes. It knows no Idempotency-Key: a reply that it
begins to make is charged, whether anybody still listens or not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

MODEL = "teacher-1"
FAULTS = ("rate", "server", "drop", "cut", "malformed", "endless", "drip", "wrong-model")


@dataclass
class Plan:
    """How a teacher behaves."""

    faults: Sequence[str] = ()  # kinds to draw from
    share: float = 0.0  # of the questions that meet any
    most: int = 2  # faults in a row for one question
    latency: float = 0.02  # seconds to make a reply
    revisions: int = 3  # at most wanted for a question
    streams: bool = True
    limit_headers: dict[str, str] = field(default_factory=dict)
    bad_keys: dict[str, int] = field(default_factory=dict)  # key -> status


class FaultyTeacher:
    """Serves from a ``with`` block; ``url`` is its address with the model's name."""

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.lock = threading.Lock()
        self.paid: Counter[str] = Counter()  # question -> replies that were made
        self.attempts: Counter[str] = Counter()
        self.served: Counter[str] = Counter()  # kind of fault, or "reply"
        self.arrivals: list[float] = []
        self.tokens = 0
        self.keys: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keeps_bodies = False
        self.in_flight = self.most_in_flight = 0
        self.stopping = threading.Event()
        teacher = self

        class Handler(_Handler):
            owner = teacher

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def url(self) -> str:
        return f"{self.address}#{MODEL}"

    @property
    def requests(self) -> int:
        return len(self.arrivals)

    def __enter__(self) -> FaultyTeacher:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def fault_of(self, question: str, attempt: int) -> str | None:
        """What goes wrong with the attempt (from 0) at this question."""
        number = int(hashlib.sha256(f"fault {question}".encode()).hexdigest()[:8], 16)
        plan = self.plan
        if not plan.faults or number % 1000 >= plan.share * 1000 or attempt > number // 1000 % plan.most:
            return None
        return plan.faults[(number // 100_000 + attempt) % len(plan.faults)]


def reply_to(body: dict[str, Any], revisions: int = 3) -> str:
    """What the teacher says: an answer or a critique, by the question alone."""
    text = json.dumps(body.get("messages") or body.get("prompt"))
    number = int(hashlib.sha256(f"{text} {body.get('seed')}".encode()).hexdigest()[:8], 16)
    last = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    if "Critique:" not in last[-12:]:
        return f"Answer {number % 1000}: the sum of all parts. " + "It follows from the text. " * (number % 4)
    # Longer conversations are further on; the more rounds, the likelier the teacher is content.
    if number % (revisions + 1) == 0 or (last.count("revised proposed") and number % 2):
        return f"Well done, point {number % 50} is clear. Score: 9/10. Revision is not needed."
    return f"Point {number % 50} is not shown. Score: {number % 7 + 2}/10. Revision is needed."


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    owner: FaultyTeacher
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        self._json({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        teacher = self.owner
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        key = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        with teacher.lock:
            teacher.arrivals.append(time.monotonic())
            teacher.keys[key] += 1
            if teacher.keeps_bodies:
                teacher.bodies.append(body)
            bad = teacher.plan.bad_keys.get(key)
            attempt = teacher.attempts[question]
            fault = "key" if bad else teacher.fault_of(question, attempt)
            if not bad:
                teacher.attempts[question] += 1
            teacher.served[fault or "reply"] += 1
            if fault is None:
                teacher.paid[question] += 1
            teacher.in_flight += 1
            teacher.most_in_flight = max(teacher.most_in_flight, teacher.in_flight)
        try:
            if bad:
                self._json({"error": {"message": f"bad key {key}", "code": "invalid_api_key"}}, bad)
            elif fault is not None:
                getattr(self, f"_{fault.replace('-', '_')}")(body)
            else:
                time.sleep(teacher.plan.latency)
                self._reply(body)
        finally:
            with teacher.lock:
                teacher.in_flight -= 1

    def _reply(self, body: dict[str, Any], model: str = MODEL) -> None:
        text = reply_to(body, self.owner.plan.revisions)
        usage = usage_of(body, text)
        with self.owner.lock:
            self.owner.tokens += usage["prompt_tokens"] + usage["completion_tokens"]
        if not (self.owner.plan.streams and body.get("stream")):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            self._json({"model": model, "choices": [choice], "usage": usage})
            return
        half = len(text) // 2
        self._open_stream()
        for piece in (text[:half], text[half:]):
            self._event({"model": model, "choices": [{"index": 0, "delta": {"content": piece}}]})
        self._event({"model": model, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._event({"model": model, "choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _rate(self, body: dict[str, Any]) -> None:
        self._json({"error": {"message": "slow down"}}, 429, {"retry-after": "0.1"})

    def _server(self, body: dict[str, Any]) -> None:
        self._json({"error": {"message": "out of order"}}, 500)

    def _drop(self, body: dict[str, Any]) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _cut(self, body: dict[str, Any]) -> None:
        self._open_stream()
        self._event({"model": MODEL, "choices": [{"index": 0, "delta": {"content": "Half of an ans"}}]})
        self.close_connection = True

    def _malformed(self, body: dict[str, Any]) -> None:
        self._open_stream()
        self._chunk(b'data: {"choices": [{"delta": {"content": "x}]\n\n')
        self._chunk(b"")

    def _endless(self, body: dict[str, Any]) -> None:
        self._open_stream()
        with contextlib.suppress(OSError):
            while not self.owner.stopping.is_set():
                piece = {"content": "and on and on and on and on " * 40}
                self._event({"model": MODEL, "choices": [{"index": 0, "delta": piece}]})
        self.close_connection = True

    def _drip(self, body: dict[str, Any]) -> None:
        self._open_stream()
        with contextlib.suppress(OSError):
            while not self.owner.stopping.wait(0.1):
                self._chunk(b": still here\n\n")
        self.close_connection = True

    def _wrong_model(self, body: dict[str, Any]) -> None:
        self._reply(body, "somebody-else")

    def _json(self, payload: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        for name, value in (self.owner.plan.limit_headers | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def _open_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        for name, value in self.owner.plan.limit_headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _event(self, payload: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(payload).encode() + b"\n\n")

    def _chunk(self, raw: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))


def usage_of(body: dict[str, Any], text: str) -> dict[str, int]:
    """Tokens as the teacher counts them: words."""
    asked = " ".join(message["content"] for message in body["messages"]) if "messages" in body else body["prompt"]
    return {"prompt_tokens": len(asked.split()), "completion_tokens": len(text.split())}
