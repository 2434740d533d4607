"""A request to another server is given up at once, whatever it waits for, and its socket is closed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from selfee.engines.base import FinishReason, Request, SamplingParams
from selfee.engines.cancelling import Cancellation
from selfee.engines.connection import Limits, Timeouts
from selfee.engines.remote import RemoteEngine

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORD = b'data: {"choices": [{"index": 0, "text": "blue", "finish_reason": null}]}\n\n'
WHOLE = b'{"choices": [{"index": 0, "text": "blue.", "finish_reason": "length"}]}'
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"
LONG = 60.0  # seconds that nobody waits


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Upstream:
    """Reads requests, says what it is told to, and notes when a client hangs up."""

    def __init__(self) -> None:
        self.says = b""
        self.asked, self.left = threading.Event(), threading.Event()
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                head, _, body = data.partition(b"\r\n\r\n")
                length = int(next(line for line in head.lower().split(b"\r\n") if b"content-length" in line)[15:])
                while len(body) < length:
                    body += connection.recv(65536)
                connection.sendall(self.says)
                self.asked.set()
            self.left.set()

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.mark.parametrize(
    "says",
    [b"", HEAD, HEAD + chunk(WORD), BUSY],
    ids=["before the head", "before the first word", "between words", "while it waits to ask again"],
)
def test_a_request_that_waits_ends_as_cancelled_at_once(upstream: Upstream, says: bytes) -> None:
    upstream.says, cancellation = says, Cancellation()
    with RemoteEngine(upstream.url, "m", limits=Limits(Timeouts(stall=LONG))) as engine:
        request = Request("The sky is", SamplingParams(temperature=0.0), max_tokens=9, cancellation=cancellation)
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.extend(engine.stream(request)))
        thread.start()
        assert upstream.asked.wait(10)
        time.sleep(0.1)  # so that it waits
        assert thread.is_alive()
        began = time.monotonic()
        cancellation.set()
        thread.join(10)
        assert not thread.is_alive()
        assert time.monotonic() - began < 5
    assert getattr(found[-1], "finish_reason", None) is FinishReason.CANCELLED
    assert upstream.left.wait(10)
    assert upstream.connections == 1  # nobody asked again


def test_a_request_given_up_before_it_begins_is_never_sent(upstream: Upstream) -> None:
    cancellation = Cancellation()
    cancellation.set()
    with RemoteEngine(upstream.url, "m") as engine:
        only = list(engine.stream(Request("The sky is", cancellation=cancellation)))
    assert [each.finish_reason for each in only] == [FinishReason.CANCELLED]
    assert upstream.connections == 0


def test_requests_that_could_be_given_up_share_their_connection(upstream: Upstream) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(WHOLE)
    upstream.says = head + WHOLE
    with RemoteEngine(upstream.url, "m", streaming=False) as engine:
        for _ in range(3):
            request = Request("The sky is", max_tokens=9, cancellation=Cancellation())
            assert "".join(each.text for each in engine.stream(request)) == "blue."
    assert upstream.connections == 1


def test_hanging_up_on_one_leaves_the_others_alone(upstream: Upstream) -> None:
    upstream.says = HEAD + chunk(WORD)
    given_up, other = Cancellation(), Cancellation()
    with RemoteEngine(upstream.url, "m", limits=Limits(Timeouts(stall=LONG))) as engine:
        streams = [engine.stream(Request("The sky is", max_tokens=9, cancellation=each)) for each in (given_up, other)]
        assert [next(stream).text for stream in streams] == ["blue", "blue"]
        given_up.set()
        assert next(streams[0]).finish_reason is FinishReason.CANCELLED
        assert upstream.left.wait(10)
        upstream.left.clear()
        assert not upstream.left.wait(0.2)
        other.set()
        assert next(streams[1]).finish_reason is FinishReason.CANCELLED
