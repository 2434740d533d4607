"""F1, in earnest: worker processes are killed again and again in the middle of chains of a real model."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.serve.fleet.parts import SECRET, Part, config, free_port, registered, start_controller, wait_for
from tests.tiny import make_tiny

from selfee.chain.policy import RevisionPolicy
from selfee.chain.run import run_chain
from selfee.chain.types import Chain
from selfee.engines.base import SamplingParams
from selfee.engines.local import LocalEngine
from selfee.engines.runtime import load_runtime
from selfee.serve.app import make_app
from selfee.serve.config import Defaults
from selfee.serve.fleet.backend import FleetBackend
from selfee.serve.fleet.directory import Directory
from selfee.serve.fleet.settings import Patience
from selfee.serve.service import Served

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(3600)]

DEATHS = int(os.environ.get("SELFEE_TEST_DEATHS", "50"))
PATIENT = Patience(beat=0.5, expiry=10, refresh=0.2, connect=2, stall=20, status=3, worker=60, shunned=1)
POLICY = RevisionPolicy(2, 2)


class Process:
    """A worker as a user starts it."""

    def __init__(self, model: Path, controller: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "selfee.cli", "serve", "--role", "worker", "-m", f"tiny={model}"]
        command += ["--port", str(self.port), "--controller", controller, "--no-log-requests", "--mode", "guided"]
        self._process = subprocess.Popen(
            command,
            env=os.environ | {"SELFEE_FLEET_SECRET": SECRET},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)


@contextmanager
def processes(model: Path, controller: str, count: int) -> Iterator[list[Process]]:
    workers = [Process(model, controller) for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()


def events(client: httpx2.Client, seed: int, began: threading.Event) -> list[dict[str, Any]]:
    body = {"messages": [{"role": "user", "content": f"Say something about {seed}."}], "seed": seed}
    body |= {"max_answer_tokens": 40, "max_feedback_tokens": 20, "max_revision_tokens": 40}
    told = []
    with client.stream("POST", "/v1/selfee/chat", json=body) as answer:
        for row in answer.iter_lines():
            if row.startswith("data: ") and '"ping"' not in row:
                told.append(json.loads(row[6:]))
                if told[-1]["type"] == "segment.delta":
                    began.set()
    began.set()
    return told


def expected(engine: LocalEngine, seed: int) -> Chain:
    from selfee.chain.budgets import Budgets

    return run_chain(
        engine,
        f"Say something about {seed}.",
        POLICY,
        SamplingParams(temperature=0.8, seed=seed),
        mode="guided",
        budgets=Budgets(40, 20, 40),
    )


def test_fifty_deaths_in_the_middle_of_chains_change_none_of_them(tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "tiny.gguf", n_ctx=2048)
    engine = LocalEngine(load_runtime(model))
    dice = random.Random(1)
    controller = start_controller(patience=Patience())
    same = moved = 0
    with processes(model, controller.url, 3) as workers:
        wait_for(lambda: len(registered(controller)) == 3, 120)
        port = free_port()
        backend = FleetBackend(Directory(controller.url, SECRET, PATIENT), "tiny", 16)
        defaults = Defaults(POLICY, SamplingParams(temperature=0.8), mode="guided")
        web = Part(make_app(config(port, None), [Served(backend, defaults)]), port)
        client = httpx2.Client(base_url=web.url, timeout=180, trust_env=False)
        for seed in range(DEATHS):
            began, told = threading.Event(), list[dict[str, Any]]()
            asking = threading.Thread(
                target=lambda seed=seed, began=began, told=told: told.extend(events(client, seed, began))
            )
            asking.start()
            began.wait(120)
            time.sleep(dice.random() * 0.3)
            busy = max(workers, key=lambda worker: load(controller, worker))
            busy.kill()
            workers[workers.index(busy)] = Process(model, controller.url)
            asking.join(180)
            assert told[-1]["type"] == "chain.completed", told[-1]
            steps = [(step["answer"], step["feedback"]) for step in told[-1]["chain"]["steps"]]
            assert steps == [(step.answer, step.feedback) for step in expected(engine, seed).steps]
            same += 1
            print(f"{same} killed, {backend.moves} moved", flush=True)
            wait_for(lambda: len(registered(controller)) >= 2, 120)
        moved = backend.moves
        print(f"{DEATHS} workers killed, {moved} chains moved, {same} identical")
        assert moved > 0
        web.kill()
    controller.kill()
    engine.close()


def load(controller: Part, worker: Process) -> int:
    """Jobs that a worker has now."""
    try:
        headers = {"authorization": f"Bearer {SECRET}"}
        answer = httpx2.post(f"{worker.url}/worker_get_status", headers=headers, timeout=5, trust_env=False)
        return int(answer.json()["queue_length"])
    except httpx2.HTTPError:
        return -1
