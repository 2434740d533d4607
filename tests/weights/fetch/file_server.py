"""A file server at a real socket that resumes, and misbehaves exactly as told."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class File:
    """What lies at a path and how it is served."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    failures: list[int] = field(default_factory=list)  # statuses of the next answers, before it works
    cut_at: list[int] = field(default_factory=list)  # close the connection after so many bytes, once each
    ignores_range: bool = False
    lies_about_length: int | None = None
    is_chunked: bool = False  # no Content-Length, closed at the end
    bytes_per_second: int | None = None
    silent_seconds: float = 0.0  # between the headers and the body
    then: bytes | None = None  # the body from the second answer on


@dataclass
class Server:
    """``files`` by path; ``asked`` holds (path, headers) of every request."""

    address: str
    files: dict[str, File]
    asked: list[tuple[str, dict[str, str]]]

    def add(self, path: str, file: File) -> str:
        self.files[path] = file
        return f"{self.address}{path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.server_state
        path = self.path.split("?")[0]
        state.asked.append((path, {name.lower(): value for name, value in self.headers.items()}))
        file = state.files.get(path, File(b"not here", status=404))
        self.close_connection = True
        if file.failures:
            self._head(file.failures.pop(0), {"content-length": "0"} | file.headers)
            return
        body, status, extra = file.body, file.status, {"etag": f'"{hash(file.body)}"', "accept-ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        etag = (extra | file.headers).get("etag")
        if wanted and not file.ignores_range and self.headers.get("if-range", etag) == etag:
            start = int(wanted[1])
            if start >= len(body):
                self._head(416, {"content-range": f"bytes */{len(body)}", "content-length": "0"})
                return
            extra["content-range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        length = len(body) if file.lies_about_length is None else file.lies_about_length
        extra |= {"connection": "close"} if file.is_chunked else {"content-length": str(length)}
        self._head(status, extra | file.headers)
        if file.then is not None:
            file.body, file.then = file.then, None
        self._send(file, body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, file: File, body: bytes) -> None:
        time.sleep(file.silent_seconds)
        if file.cut_at:
            body = body[: file.cut_at.pop(0)]
        with contextlib.suppress(ConnectionError):
            if file.bytes_per_second is None:
                self.wfile.write(body)
                return
            step = max(1, file.bytes_per_second // 20)
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                self.wfile.flush()
                time.sleep(0.05)


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """A running server; stops with the block."""

    class Handler(_Handler):
        pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    state = Server(f"http://127.0.0.1:{http.server_port}", {}, [])
    Handler.server_state = state
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
