"""The server under load, beside llama.cpp's: how many tokens a second, how soon, how evenly, and what it refuses.

    python -m benchmarks.serve --model FILE --peer PYTHON-WITH-XLLAMACPP --clients 8 --rounds 3 --seconds 8
    python -m benchmarks.serve --model FILE --peer PYTHON-WITH-XLLAMACPP --only selfee --only llama.cpp --seconds 7
    python -m benchmarks.serve --model FILE --open-loop 300
    python -m benchmarks.serve --aborts 10000

Closed loop: so many clients, each asking again as soon as it is answered, for streamed greedy completions of the same
prompts (end tokens banned, so that all servers write the same number of tokens). Servers: ours and llama.cpp's, each
with and without guesses at several tokens a pass, with the same threads, places and context a place; they take turns
in every round, and the median over the rounds is told. Open loop: requests come twice as fast as the server can answer,
whatever it answers. Aborts: clients that connect, ask and go away, on a server that answers from a script.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
from benchmarks.concurrency import QUESTIONS
from benchmarks.results import record

CONTEXT = 2048
CLIENTS = (1, 2, 4, 8, 16, 32, 64)


@dataclass
class Sample:
    """One request: when its pieces came, or how it was refused."""

    began: float
    pieces: list[float] = field(default_factory=list)
    tokens: int = 0
    status: int = 0
    error: str = ""
    again: int = 0  # connections that the server had closed when the request came, which then took another

    @property
    def first(self) -> float:
        """Seconds to the first piece."""
        return self.pieces[0] - self.began

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces."""
        return [later - earlier for earlier, later in zip(self.pieces, self.pieces[1:], strict=False)]


def main() -> None:
    """Measure what was asked for."""
    given = arguments()
    figures: dict[str, float] = {}
    if given.aborts:
        with ours_scripted() as (url, pid):
            figures |= asyncio.run(aborts(url, pid, given.aborts))
    elif given.open_loop:
        with ours(given) as (url, pid):
            figures |= asyncio.run(open_loop(url, pid, given))
    else:
        figures |= closed_loops(given)
    for name, value in figures.items():
        print(f"{name:50} {value:10.4g}")
    if not given.no_record:
        record("serve", figures, isa="auto")


def closed_loops(given: argparse.Namespace) -> dict[str, float]:
    """Every server with every number of clients; the median over the rounds."""
    told: dict[str, list[float]] = {}
    for number in range(given.rounds):
        for name, serve in SERVERS.items():
            if name not in given.only or (serve in (peer, peer_guessing) and given.peer is None):
                continue
            with serve(given) as (url, pid):
                for clients in given.clients:
                    print(f"  round {number + 1}: {name}, {clients} clients", file=sys.stderr, flush=True)
                    for what, value in asyncio.run(closed_loop(url, pid, clients, given)).items():
                        told.setdefault(f"{name} {clients} clients {what}", []).append(value)
    return {name: statistics.median(values) for name, values in told.items()}


def arguments() -> argparse.Namespace:
    """What is to be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--peer", help="a Python that has the package xllamacpp")
    parser.add_argument("--clients", type=int, action="append", help=f"default: {', '.join(map(str, CLIENTS))}")
    parser.add_argument("--only", action="append", choices=SERVERS, help="default: all")
    parser.add_argument("--rounds", type=int, default=1, help="the median over them is told")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each closed loop")
    parser.add_argument("--tokens", type=int, default=64, help="that each request asks for")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--open-loop", type=float, help="seconds of requests at twice the capacity")
    parser.add_argument("--aborts", type=int, help="so many clients that go away")
    parser.add_argument("--no-record", action="store_true", help="print only")
    given = parser.parse_args()
    given.clients = given.clients or list(CLIENTS)
    given.only = given.only or list(SERVERS)
    if not given.aborts and given.model is None:
        parser.error("--model: missing; expected a model file")
    return given


@contextlib.contextmanager
def ours(given: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Our server; its address and process."""
    with _selfee(_words(given)) as found:
        yield found


@contextlib.contextmanager
def ours_plain(given: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """The same without guesses."""
    with _selfee([*_words(given), "--no-drafting"]) as found:
        yield found


def _words(given: argparse.Namespace) -> list[str]:
    words = ["-m", f"bench={given.model}", "--threads", str(given.threads), "--parallel", str(given.parallel)]
    return [*words, "--context", str(CONTEXT), "--queue", "64"]


@contextlib.contextmanager
def ours_scripted() -> Iterator[tuple[str, int]]:
    """Our server answering from a script."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "replies.jsonl"
        rows = [{"engine": {"strict": False}}, {"text": "and so on " * 200, "delay": 0.01, "when": {"pattern": ""}}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        with _selfee(["-m", f"bench=script:{path}", "--mode", "single-pass"]) as found:
            yield found


@contextlib.contextmanager
def _selfee(words: Sequence[str]) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "selfee.cli", "serve", "--port", "0", "--no-log-requests", "--per-client", "1000"]
    process = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if " at http" in line:
                yield line.split(" at ")[1].split()[0], process.pid
                return
        raise SystemExit("selfee serve did not start")
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def peer(given: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """llama.cpp's server; its address and process."""
    with _peer(given, "") as found:
        yield found


@contextlib.contextmanager
def peer_guessing(given: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """The same with its own guesses from earlier text, as ours are."""
    with _peer(given, "ngram_simple") as found:
        yield found


@contextlib.contextmanager
def _peer(given: argparse.Namespace, guesses: str) -> Iterator[tuple[str, int]]:
    script = Path(__file__).with_name("peer_server.py")
    numbers = [str(number) for number in (given.threads, given.parallel, CONTEXT)]
    process = subprocess.Popen(
        [given.peer, str(script), str(given.model), *numbers, guesses],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.stdin.close()
        process.wait(60)


SERVERS = {"selfee": ours, "selfee plain": ours_plain, "llama.cpp": peer, "llama.cpp guessing": peer_guessing}
"""What can be measured; "plain" and "llama.cpp" compute every token on its own."""


async def ask(client: httpx2.AsyncClient, tokens: int, number: int) -> Sample:
    """One streamed completion."""
    body: dict[str, Any] = {
        "prompt": f"Question {number}: {QUESTIONS[number % len(QUESTIONS)]}\nAnswer:",
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logit_bias": {"0": -100, "2": -100},
        "ignore_eos": True,
    }
    sample = Sample(time.perf_counter())
    while True:
        try:
            async with client.stream("POST", "/v1/completions", json=body) as response:
                sample.status = response.status_code
                if sample.status == 200:
                    async for line in response.aiter_lines():
                        _note(sample, line)
        except httpx2.HTTPError as error:
            if not sample.status and isinstance(error, httpx2.RemoteProtocolError) and sample.again < 3:
                sample.again += 1  # as OpenAI's own client does
                continue
            sample.error = type(error).__name__
        return sample


def _note(sample: Sample, line: str) -> None:
    if not line.startswith("data: ") or line == "data: [DONE]":
        return
    row = json.loads(line.removeprefix("data: "))
    if "error" in row:
        sample.error = str(row["error"])
    if row.get("usage"):
        sample.tokens = row["usage"]["completion_tokens"]
    if any(choice.get("text") for choice in row.get("choices", ())):
        sample.pieces.append(time.perf_counter())


def _client(url: str) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx2.AsyncClient(base_url=url, timeout=600, trust_env=False, limits=limits)


def memory_of(pid: int) -> float:
    """Resident megabytes of a process and those that it started."""
    process = psutil.Process(pid)
    found = 0.0
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            found += each.memory_info().rss / 1e6
    return found


async def closed_loop(url: str, pid: int, clients: int, given: argparse.Namespace) -> dict[str, float]:
    """So many clients, each asking again as soon as it is answered."""
    samples: list[Sample] = []
    async with _client(url) as client:
        await ask(client, 4, 0)
        before, began = memory_of(pid), time.perf_counter()

        async def keep_asking(number: int) -> None:
            asked = 0
            while time.perf_counter() - began < given.seconds or not asked:
                samples.append(await ask(client, given.tokens, number + clients * asked))
                asked += 1

        memory: list[tuple[float, float]] = []
        watching = asyncio.create_task(_watch(pid, memory))
        await asyncio.gather(*(keep_asking(number) for number in range(clients)))
        watching.cancel()
        seconds = time.perf_counter() - began
    grown = {"memory grown MB": memory_of(pid) - before, "memory slope MB/min": slope(memory)}
    return summary(samples, seconds) | grown


async def _watch(pid: int, memory: list[tuple[float, float]]) -> None:
    """Note a server's memory every half second: (seconds, megabytes)."""
    while True:
        memory.append((time.perf_counter(), memory_of(pid)))
        await asyncio.sleep(0.5)


def slope(memory: Sequence[tuple[float, float]]) -> float:
    """Megabytes a minute over the second half, when what is taken once has been taken; 0 where too little is known."""
    late = memory[len(memory) // 2 :]
    if len(late) < 3:
        return 0.0
    return 60 * statistics.linear_regression([at for at, _ in late], [size for _, size in late]).slope


def summary(samples: Sequence[Sample], seconds: float) -> dict[str, float]:
    """Figures of many requests."""
    done = [sample for sample in samples if sample.status == 200 and not sample.error and sample.pieces]
    firsts = sorted(sample.first for sample in done) or [0.0]
    gaps = sorted(gap for sample in done for gap in sample.gaps) or [0.0]
    refused = sum(sample.status in (429, 503) for sample in samples)
    return {
        "tokens/s": sum(sample.tokens for sample in done) / seconds,
        "first piece p50 s": statistics.median(firsts),
        "first piece p99 s": firsts[math.ceil(0.99 * len(firsts)) - 1],
        "between pieces p50 ms": 1000 * statistics.median(gaps),
        "between pieces p99 ms": 1000 * gaps[math.ceil(0.99 * len(gaps)) - 1],
        "answered": len(done),
        "refused": refused,
        "errors": len(samples) - len(done) - refused,
        "closed connections": sum(sample.again for sample in samples),
    }


async def open_loop(url: str, pid: int, given: argparse.Namespace) -> dict[str, float]:
    """Requests at twice the pace at which the server, with all its places taken, answers them."""
    peak = await closed_loop(url, pid, 2 * given.parallel, given)
    pace = 2 * peak["tokens/s"] / given.tokens
    print(f"  peak {peak['tokens/s']:.1f} tokens/s; {pace:.2f} requests/s follow", file=sys.stderr, flush=True)
    samples: list[Sample] = []
    memory: list[tuple[float, float]] = []
    watching = asyncio.create_task(_watch(pid, memory))
    async with _client(url) as client, asyncio.TaskGroup() as group:

        async def one(number: int) -> None:
            samples.append(await ask(client, given.tokens, number))

        began = time.perf_counter()
        number = 0
        while (now := time.perf_counter() - began) < given.open_loop:
            if number <= now * pace:
                group.create_task(one(number))
                number += 1
            else:
                await asyncio.sleep(0.005)
    watching.cancel()
    seconds = time.perf_counter() - began
    found = summary(samples, seconds)
    return {f"open loop {name}": value for name, value in found.items()} | {
        "open loop peak tokens/s": peak["tokens/s"],
        "open loop goodput of peak": found["tokens/s"] / peak["tokens/s"],
        "open loop memory grown MB": memory[-1][1] - memory[0][1],
        "open loop memory slope MB/min": slope(memory),
    }


async def aborts(url: str, pid: int, count: int) -> dict[str, float]:
    """Clients that ask, and go away before, or while, they are answered."""
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    data = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    host, _, port = url.removeprefix("http://").rpartition(":")
    process = psutil.Process(pid)
    places = asyncio.Semaphore(32)

    async def one(number: int) -> None:
        async with places:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(data)
            await writer.drain()
            if number % 3:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(100), 0.02 * (number % 3))
            writer.transport.abort()

    async def jobs_left() -> float:
        async with _client(url) as client:
            lines = (await client.get("/metrics")).text.splitlines()
        kinds = ("selfee_jobs_running{", "selfee_jobs_waiting{")
        return sum(float(line.split()[-1]) for line in lines if line.startswith(kinds))

    async def settled() -> tuple[float, int, int]:
        for _ in range(120):
            await asyncio.sleep(0.5)
            if not await jobs_left():
                break
        await asyncio.sleep(1.0)
        return process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()

    await asyncio.gather(*(one(number) for number in range(count // 10)))
    before, began = await settled(), time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(count)))
    seconds = time.perf_counter() - began
    after = await settled()
    return {
        "aborts a second": count / seconds,
        "aborts memory grown MB": after[0] - before[0],
        "aborts descriptors grown": after[1] - before[1],
        "aborts threads grown": after[2] - before[2],
        "aborts jobs left": await jobs_left(),
    }


if __name__ == "__main__":
    main()
