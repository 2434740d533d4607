"""Table F of the catalogue: whatever breaks, the others go on, and whoever is concerned is told."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.cli.story import Shell
from tests.serve.harness import QUESTION, SECOND, TARGET, Running, ok, refused, scripted, serving
from tests.serve.processes import backend_of, send_signal, served_process, wait_for
from tests.tiny import make_tiny

from selfee.chain.types import Chain, ChainEnd, Instruction, Step
from selfee.engines.scripted import Reply
from selfee.errors import BadFileError, ResourceError, SelfeeError
from selfee.serve.chain_log import ChainLog
from selfee.serve.config import Limits
from selfee.serve.protocol.errors import BackendLostError
from selfee.serve.running import bind

CHAT = "/v1/chat/completions"
LONG: dict[str, Any] = {
    "prompt": "the sky is",
    "max_tokens": 4000,
    "temperature": 0,
    "logit_bias": {"0": -100, "2": -100},
}


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", n_ctx=8192)


@pytest.fixture(scope="module")
def process_server(tiny_path: Path) -> Iterator[Running]:
    """A server whose model is computed with in a process of its own."""
    with serving(models=[served_process(tiny_path)]) as running:
        yield running


def usable(server: Running) -> bool:
    return server.client.get("/health").status_code == 200


def stream_lines(server: Running, body: dict[str, Any], lines: list[str], began: threading.Event) -> None:
    with server.client.stream("POST", "/v1/completions", json=body | {"stream": True}) as response:
        lines.append(str(response.status_code))
        for line in response.iter_lines():
            lines.append(line)
            began.set()


@pytest.mark.parametrize("moment", ["before", "during"])
def test_f1_a_killed_process_is_told_at_once_and_started_anew(process_server: Running, moment: str) -> None:
    server, served = process_server, process_server.service.models[0]
    wait_for(lambda: usable(server))
    deaths, lines, began = backend_of(served).deaths, list[str](), threading.Event()
    body = LONG if moment == "during" else LONG | {"prompt": "the sky is blue " * 900}
    thread = threading.Thread(target=stream_lines, args=(server, body, lines, began))
    thread.start()
    if moment == "during":
        assert began.wait(10)
    else:
        server.wait_running()
    at = time.monotonic()
    send_signal(served, signal.SIGKILL)
    thread.join(10)
    assert not thread.is_alive()
    assert time.monotonic() - at < 5
    text = "\n".join(lines)
    assert "[DONE]" not in text
    if moment == "during":
        assert "worker_lost" in text
        assert "SIGKILL" in text
    else:
        assert lines[0] == "502"
    wait_for(lambda: usable(server))
    assert backend_of(served).deaths == deaths + 1
    assert ok(server.post("/v1/completions", LONG | {"max_tokens": 4}))
    assert f'selfee_process_deaths{{model="tiny"}} {deaths + 1}.0' in server.client.get("/metrics").text


def test_f1_while_there_is_no_process_clients_are_told_to_come_again(process_server: Running) -> None:
    served = process_server.service.models[0]
    wait_for(lambda: usable(process_server))
    send_signal(served, signal.SIGKILL)
    wait_for(lambda: not served.backend.is_ready)
    response = process_server.post("/v1/completions", LONG | {"max_tokens": 2})
    if response.status_code != 200:  # it may be back already
        assert response.status_code in (502, 503)
        assert response.headers["retry-after"]
    wait_for(lambda: usable(process_server))


def test_f2_a_process_that_answers_no_more_is_given_up(process_server: Running) -> None:
    server, served = process_server, process_server.service.models[0]
    wait_for(lambda: usable(server))
    lines, began = list[str](), threading.Event()
    thread = threading.Thread(target=stream_lines, args=(server, LONG, lines, began))
    thread.start()
    assert began.wait(10)
    send_signal(served, signal.SIGSTOP)
    thread.join(15)
    assert not thread.is_alive()
    assert "worker_lost" in "\n".join(lines)
    assert any(line.startswith(": ping") for line in lines)
    wait_for(lambda: usable(server))


@pytest.mark.slow
def test_f1_chains_of_others_do_not_notice(tiny_path: Path) -> None:
    other = served_process(tiny_path, name="other")
    with serving(models=[served_process(tiny_path), other]) as server:
        body = LONG | {"max_tokens": 60, "model": "other"}
        alone = ok(server.post("/v1/completions", body))["choices"]
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(ok(server.post("/v1/completions", body))["choices"]))
        thread.start()
        send_signal(server.service.models[0], signal.SIGKILL)
        thread.join(20)
    assert found == [alone]


def test_m7_a_fault_of_the_memory_is_the_process_s_own(process_server: Running) -> None:
    """SIGBUS is what a file gives that is cut short while it is mapped."""
    server = process_server
    wait_for(lambda: usable(server))
    lines, began = list[str](), threading.Event()
    thread = threading.Thread(target=stream_lines, args=(server, LONG, lines, began))
    thread.start()
    assert began.wait(10)
    send_signal(server.service.models[0], signal.SIGBUS)
    thread.join(10)
    assert "SIGBUS" in "\n".join(lines)
    wait_for(lambda: usable(server))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + b"\xff" * 400, b"<html>404</html>"])
def test_m1_a_bad_file_is_told_and_nothing_is_left_running(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    served = served_process(path)

    async def load() -> None:
        try:
            await served.backend.start()
        finally:
            await served.backend.close()

    with pytest.raises((BadFileError, BackendLostError)):
        asyncio.run(load())


class Raw:
    """A connection that can be treated badly."""

    def __init__(self, server: Running, body: bytes, path: str = CHAT) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self.socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


STREAMED = b'{"messages": [{"role": "user", "content": "x"}], "stream": true}'
WHOLE = b'{"messages": [{"role": "user", "content": "x"}]}'


@pytest.mark.parametrize("body", [STREAMED, WHOLE], ids=["streamed", "whole"])
@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_f4_a_client_that_goes_away_stops_the_computing(body: bytes, how: str) -> None:
    with serving(scripted(delay=0.1)) as server:
        connection = Raw(server, body)
        server.wait_running()
        time.sleep(0.15)
        at = time.monotonic()
        if how == "reset":
            connection.reset()
        elif how == "half":
            connection.socket.shutdown(socket.SHUT_WR)
        else:
            connection.socket.close()
        server.wait_idle(3)
        assert time.monotonic() - at < 1.5
        assert server.engine.cancelled == 1


def test_f4_who_waits_in_line_and_leaves_makes_room() -> None:
    with serving(scripted(delay=0.05), parallel=1, limits=Limits(queue=1)) as server:
        first = Raw(server, STREAMED)
        server.wait_running()
        second = Raw(server, WHOLE)
        wait_for(lambda: server.service.models[0].admission.waiting == 1)
        assert server.post(CHAT, {"messages": [QUESTION]}).status_code == 429
        second.socket.close()
        wait_for(lambda: server.service.models[0].admission.waiting == 0)
        first.reset()
        server.wait_idle()
        assert len(server.engine.requests) == 1  # the one that left never began
        assert ok(server.post(CHAT, {"messages": [QUESTION]}))


def test_f4_a_client_that_goes_away_while_its_prompt_is_read(tiny_path: Path) -> None:
    with serving(models=[served_process(tiny_path)]) as server:
        prompt = "the sky is blue because " * 1400
        connection = Raw(server, b'{"max_tokens": 5, "prompt": "%s"}' % prompt.encode(), "/v1/completions")
        server.wait_running()
        connection.reset()
        server.wait_idle(5)
        assert ok(server.post("/v1/completions", {"prompt": "light", "max_tokens": 3}))


@pytest.mark.minutes
def test_f4_a_hundred_clients_that_go_away_leave_nothing_behind() -> None:
    with serving(scripted(delay=0.005), limits=Limits(queue=8)) as server:
        process = psutil.Process()
        for number in range(110):
            if number == 10:
                before = (process.num_fds(), process.num_threads(), process.memory_info().rss)
            connection = Raw(server, STREAMED if number % 2 else WHOLE)
            time.sleep(0.003 * (number % 7))
            connection.reset()
        server.wait_idle()
        wait_for(lambda: process.num_fds() <= before[0] + 2)
        wait_for(lambda: process.num_threads() <= before[1] + 2)
        assert process.memory_info().rss - before[2] < 10 << 20
        assert ok(server.post(CHAT, {"messages": [QUESTION]}))


def test_f5_a_reader_that_never_reads_is_dropped_and_others_go_on() -> None:
    text = "and so on " * 400_000
    engine = scripted(Reply(text, chunks=65536), Reply(TARGET))
    with serving(engine, limits=Limits(send_seconds=0.5)) as server:
        body = b'{"prompt": "x", "max_tokens": 1000000, "stream": true}'
        connection = Raw(server, body, "/v1/completions")
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.wait_running()
        assert ok(server.post(CHAT, {"messages": [QUESTION]}))["choices"][0]["message"]["content"] == SECOND
        server.wait_idle(20)
        connection.socket.close()


def test_f6_headers_and_bodies_that_do_not_come_are_not_waited_for() -> None:
    with serving(limits=Limits(header_seconds=0.3, body_seconds=0.3)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
            slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127")
            for _ in range(3):
                time.sleep(0.05)
                slow.sendall(b".")
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            slow.sendall(head + b"Content-Length: 100\r\n\r\n{")
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_f7_a_full_disk_costs_nobody_an_answer() -> None:
    with serving(chain_log=Path("/dev/full")) as server:
        assert ok(server.post(CHAT, {"messages": [QUESTION]}))["choices"][0]["message"]["content"] == SECOND


def test_f7_chains_are_kept_only_where_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "chains.jsonl"
    with serving(chain_log=path) as server:
        ok(server.post(CHAT, {"messages": [QUESTION]}))
        ok(server.post("/v1/responses", {"input": "Why?"}))
        server.events()
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3
    assert path.stat().st_mode & 0o077 == 0
    log = ChainLog(path)
    log.add("m", Chain(Instruction("x"), (Step("y"),), ChainEnd.ACCEPTED))
    log.close()
    assert len(path.read_text(encoding="utf-8").splitlines()) == 4


def test_f10_an_address_that_cannot_be_listened_on() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(ResourceError, match="--port"):
        bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(SelfeeError):
        bind("192.0.2.1", 0)
    with pytest.raises(SelfeeError):
        bind("no.such.host.invalid", 0)


def start(shell: Shell, *words: str) -> tuple[subprocess.Popen[bytes], int]:
    """``selfee serve`` as a process, and its port once it serves."""
    process = shell.start("serve", "--port", "0", *words)
    assert process.stderr is not None
    for line in process.stderr:
        if b" at http://127.0.0.1:" in line:
            return process, int(line.split(b" at http://127.0.0.1:")[1].split()[0])
    raise AssertionError("it did not start")


def script_at(folder: Path, delay: float) -> str:
    path = folder / "replies.jsonl"
    rows = [{"engine": {"strict": False}}, *[{"text": TARGET, "delay": delay} for _ in range(20)]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"script:{path}"


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_f11_told_to_end_it_finishes_what_is_under_way(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    process, port = start(Shell(tmp_path), "-m", script_at(tmp_path, 0.03), "--mode", "single-pass")
    body = WHOLE
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.3)
        process.send_signal(sent)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert SECOND.encode() in answer
    assert process.wait(20) == code


@pytest.mark.slow
def test_f11_what_takes_too_long_is_cut_and_told(tmp_path: Path) -> None:
    words = ("-m", script_at(tmp_path, 1.0), "--mode", "single-pass", "--drain-seconds", "0.2")
    process, port = start(Shell(tmp_path), *words)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(STREAMED)}\r\n\r\n".encode() + STREAMED)
        assert b"200" in connection.recv(1000)
        process.send_signal(signal.SIGTERM)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert b"shutting_down" in answer
    assert b"[DONE]" not in answer
    assert process.wait(20) == 0


@pytest.mark.slow
def test_f11_a_process_that_computes_ends_with_the_server(tmp_path: Path, tiny_path: Path) -> None:
    process, port = start(Shell(tmp_path), "-m", str(tiny_path))
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 1
    assert port
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


def test_the_loop_of_events_stays_free_while_a_prompt_is_read(process_server: Running) -> None:
    """L7: whoever asks for the health of a server that computes waits for next to nothing."""
    wait_for(lambda: usable(process_server))
    thread = threading.Thread(
        target=lambda: process_server.post("/v1/completions", {"prompt": "the sky is blue " * 1200, "max_tokens": 4})
    )
    thread.start()
    process_server.wait_running()
    lags = []
    for _ in range(20):
        began = time.monotonic()
        assert usable(process_server)
        lags.append(time.monotonic() - began)
    thread.join(60)
    assert sorted(lags)[len(lags) // 2] < 0.25


def test_a_bounded_line_sends_away_who_comes_too_late() -> None:
    with serving(scripted(delay=0.005), parallel=1, limits=Limits(queue=2)) as server:
        statuses: list[int] = []

        def ask() -> None:
            response = server.post(CHAT, {"messages": [QUESTION]})
            statuses.append(response.status_code)
            if response.status_code == 429:
                refused(response, 429, code="rate_limit_exceeded")
                assert 1 <= int(response.headers["retry-after"]) <= 120

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ok(server.post(CHAT, {"messages": [QUESTION]}))
    assert sorted(statuses) == [200] * 3 + [429] * 5


def test_one_client_cannot_take_all_places() -> None:
    with serving(scripted(delay=0.05), limits=Limits(per_key=2)) as server:
        first = [Raw(server, STREAMED) for _ in range(2)]
        server.wait_running(2)
        told = refused(server.post(CHAT, {"messages": [QUESTION]}), 429)
        assert "of this client" in told
        for connection in first:
            connection.reset()
        server.wait_idle()
