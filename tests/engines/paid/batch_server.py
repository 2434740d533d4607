"""A server with OpenAI's Batch API on a real socket: files, batches that take a few looks, replies in another order."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from tests.engines.paid.faulty_teacher import MODEL, reply_to, usage_of


class BatchServer:
    """Serves from a ``with`` block. ``looks`` is how often a batch is looked at before it is complete."""

    def __init__(self, looks: int = 1, fail_once: int = 0) -> None:
        self.looks = looks
        self.fail_once = fail_once  # every so manieth request fails in its first batch
        self.lock = threading.Lock()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.paid: Counter[str] = Counter()
        self.failed: set[str] = set()
        self.touched = threading.Event()
        owner = self

        class Handler(_Handler):
            server_ = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1#{MODEL}"

    def __enter__(self) -> BatchServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def keep(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """A batch: all its replies are made, and charged, here."""
        batch_id = f"batch_{len(self.batches)}"
        output, errors = [], []
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        for number, line in enumerate(lines):
            key = line["custom_id"]
            if self.fail_once and number % self.fail_once == 0 and key not in self.failed:
                self.failed.add(key)
                response = {"status_code": 500, "body": {"error": {"message": "out of order"}}}
                errors.append({"custom_id": key, "response": response})
                continue
            self.paid[key] += 1
            text = reply_to(line["body"])
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            answer = {"model": MODEL, "choices": [choice], "usage": usage_of(line["body"], text)}
            output.append({"custom_id": key, "response": {"status_code": 200, "body": answer}})
        done = {"completed": len(output), "failed": len(errors), "total": len(lines)}
        batch = {"id": batch_id, "status": "in_progress", "metadata": body["metadata"], "request_counts": done}
        batch["output_file_id"] = self.keep("\n".join(json.dumps(row) for row in reversed(output)).encode())
        batch["error_file_id"] = self.keep("\n".join(json.dumps(row) for row in errors).encode()) if errors else None
        self.batches[batch_id] = batch | {"looks": self.looks}
        self.touched.set()
        return batch

    def look(self, batch_id: str) -> dict[str, Any]:
        batch = self.batches[batch_id]
        batch["looks"] -= 1
        self.touched.set()
        if batch["looks"] < 0:
            batch["status"] = "completed"
        return batch


class _Handler(BaseHTTPRequestHandler):
    server_: BatchServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        with self.server_.lock:
            if self.path == "/v1/files":
                self._json({"id": self.server_.keep(file_in(raw, self.headers)), "object": "file"})
            elif self.path == "/v1/batches":
                self._json(self.server_.create(json.loads(raw)))
            else:
                self._json({"error": {"message": "no such route"}}, 404)

    def do_GET(self) -> None:
        with self.server_.lock:
            if match := re.fullmatch(r"/v1/files/(.+)/content", self.path):
                self._raw(self.server_.files[match[1]])
            elif self.path.startswith("/v1/batches?"):
                self._json({"object": "list", "data": list(self.server_.batches.values())})
            elif match := re.fullmatch(r"/v1/batches/(.+)", self.path):
                self._json(self.server_.look(match[1]))
            else:
                self._json({"error": {"message": "no such route"}}, 404)

    def _json(self, payload: dict[str, Any], status: int = 200) -> None:
        self._raw(json.dumps(payload).encode(), status)

    def _raw(self, raw: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def file_in(raw: bytes, headers: Message) -> bytes:
    """The file's content in a multipart form."""
    boundary = headers["content-type"].partition("boundary=")[2].encode()
    for part in raw.split(b"--" + boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n")
    raise AssertionError("no file in the form")
