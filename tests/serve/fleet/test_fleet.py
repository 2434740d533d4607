"""A whole fleet: jobs are shared out, and a chain whose worker dies goes on at another as if nothing had happened."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from tests.serve.fleet.parts import (
    QUICK,
    SECRET,
    Fleet,
    fleet,
    free_port,
    registered,
    start_controller,
    start_worker,
    wait_for,
)
from tests.serve.web.site import CONTENT, CRITIC, FIRST, SECOND, story

from selfee.engines.scripted import Reply, ScriptedEngine

QUESTION = {"role": "user", "content": "Why is the sky blue?"}
TEXTS = [FIRST, CRITIC, SECOND, CONTENT]


def native(running: Fleet, **fields: Any) -> list[dict[str, Any]]:
    """All events of a chain."""
    events = []
    with running.client.stream("POST", "/v1/selfee/chat", json={"messages": [QUESTION]} | fields) as answer:
        assert answer.status_code == 200, answer.read()
        for row in answer.iter_lines():
            if row.startswith("data: ") and '"ping"' not in row:
                events.append(json.loads(row[6:]))
    return events


def texts(events: list[dict[str, Any]]) -> list[str]:
    return [event["segment"]["text"] for event in events if event["type"] == "segment.completed"]


def deltas(events: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "segment.delta")


def test_a_fleet_answers_as_one_server_does_and_shares_jobs_out() -> None:
    engines = [story(0.001), story(0.001)]
    with fleet(engines) as running:
        threads = [threading.Thread(target=native, args=(running,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(len(engine.requests) for engine in engines) == 6
        events = native(running)
        assert texts(events) == TEXTS
        assert events[-1]["type"] == "chain.completed"
        assert events[-1]["stop_cause"] == "autonomous"
        models = running.client.get("/v1/models").json()
        assert [row["id"] for row in models["data"]] == ["model"]


@pytest.mark.parametrize(("tokens", "temperature"), [(1, 0.0), (60, 0.0), (60, 0.8)])
def test_a_worker_killed_after_so_many_tokens_is_not_noticed(tokens: int, temperature: float) -> None:
    engines = [story(0.003), story(0.003)]
    with fleet(engines, temperature=temperature) as running:
        killed: list[int] = []

        def kill() -> None:
            def busy() -> int:
                return next((n for n, engine in enumerate(engines) if engine.requests), -1)

            wait_for(lambda: busy() >= 0)
            time.sleep(0.003 * tokens)
            killed.append(busy())
            running.workers[busy()].kill()

        killer = threading.Thread(target=kill)
        killer.start()
        events = native(running, seed=5)
        killer.join()
        assert texts(events) == TEXTS
        assert deltas(events) == "".join(TEXTS)
        assert events[-1]["type"] == "chain.completed"
        assert running.backend.moves <= 1
        wait_for(lambda: len(registered(running.controller)) == 1)


def test_other_chains_go_on_while_a_worker_dies() -> None:
    engines = [story(0.004) for _ in range(3)]
    with fleet(engines) as running:
        told: list[list[dict[str, Any]]] = []
        threads = [threading.Thread(target=lambda: told.append(native(running))) for _ in range(9)]
        for thread in threads:
            thread.start()
        wait_for(lambda: all(engine.requests for engine in engines))
        running.workers[0].kill()
        for thread in threads:
            thread.join()
        assert [texts(events) for events in told] == [TEXTS] * 9


def test_where_no_worker_is_left_the_chain_ends_with_an_error() -> None:
    with fleet([story(0.01)], patience=replace(QUICK, worker=0.3)) as running:
        engine = running.workers[0].app.state.service.models[0].backend
        threading.Timer(0.3, running.workers[0].kill).start()
        events = native(running)
        assert engine is not None
        assert events[-1]["type"] == "error"
        assert events[-1]["error"]["code"] in ("worker_lost", "engine_failed")
        answer = running.ask("/v1/chat/completions", {"messages": [QUESTION]})
        assert answer.status_code in (502, 503)


def test_a_worker_that_says_something_else_is_no_replacement() -> None:
    first = ScriptedEngine([Reply(FIRST * 20, delay=0.003)], strict=False, name="one")
    other = ScriptedEngine([Reply("Something else. " * 50)] * 3, strict=False, name="other")
    with fleet([first]) as running:

        def replace() -> None:
            wait_for(lambda: first.requests)
            time.sleep(0.2)
            start_worker(other, running.controller.url)
            wait_for(lambda: len(registered(running.controller)) == 2)
            time.sleep(0.3)
            running.workers[0].kill()

        thread = threading.Thread(target=replace)
        thread.start()
        events = native(running)
        thread.join()
        assert events[-1]["type"] == "error"
        assert "another does not continue its text" in events[-1]["error"]["message"]


def test_stopping_a_chain_stops_its_worker_and_nobody_elses() -> None:
    engine = story(0.01)
    with fleet([engine]) as running:
        done: list[list[dict[str, Any]]] = []
        other = threading.Thread(target=lambda: done.append(native(running)))
        other.start()
        with running.client.stream("POST", "/v1/selfee/chat", json={"messages": [QUESTION]}) as answer:
            rows = answer.iter_lines()
            id_ = next(json.loads(row[6:])["chain_id"] for row in rows if row.startswith("data: "))
            wait_for(lambda: len(engine.requests) == 2)
            running.client.post(f"/v1/selfee/chat/{id_}/control", json={"action": "stop"})
            events = [json.loads(row[6:]) for row in rows if row.startswith("data: ")]
        assert events[-1]["stop_cause"] == "cancelled"
        other.join()
        assert texts(done[0]) == TEXTS


def test_a_client_that_goes_away_frees_the_worker() -> None:
    engine = story(0.02)
    with fleet([engine]) as running:
        for _ in range(3):
            with running.client.stream(
                "POST", "/v1/chat/completions", json={"messages": [QUESTION], "stream": True}
            ) as answer:
                next(answer.iter_lines())
        service = running.workers[0].app.state.service
        wait_for(lambda: not service.is_busy)
        assert engine.cancelled == 3


@pytest.mark.slow
def test_a_worker_that_stops_talking_counts_as_lost() -> None:
    slow, quick = story(0.004), story(0.004)
    with fleet([slow, quick]) as running:
        # The worker's event loop stands still, as if the process were stopped: no heartbeat comes.
        def freeze() -> None:
            wait_for(lambda: slow.requests or quick.requests)
            busy = 0 if slow.requests else 1
            loop = running.workers[busy]._loop
            assert loop is not None
            loop.call_soon_threadsafe(time.sleep, QUICK.stall + 3)

        thread = threading.Thread(target=freeze)
        thread.start()
        assert texts(native(running)) == TEXTS
        thread.join()


def test_f3_running_chains_do_not_need_the_controller_and_workers_find_a_new_one() -> None:
    engine = story(0.005)
    with fleet([engine]) as running:
        threading.Timer(0.3, running.controller.kill).start()
        assert texts(native(running)) == TEXTS
        assert texts(native(running)) == TEXTS  # remembered
        again = start_controller(port=running.controller.port)
        wait_for(lambda: len(registered(again)) == 1)
        again.kill()


def test_s3_without_the_secret_nothing_is_told_and_nobody_registers() -> None:
    controller = start_controller()
    worker = start_worker(story(), controller.url)
    try:
        wait_for(lambda: registered(controller))
        with httpx2.Client(trust_env=False) as stranger:
            for headers in ({}, {"authorization": "Bearer wrong-secret-here"}):
                for part, path in [
                    *((controller, path) for path in _paths(controller)),
                    *((worker, path) for path in _paths(worker)),
                ]:
                    for method in ("GET", "POST"):
                        answer = stranger.request(method, part.url + path, headers=headers, json={})
                        assert answer.status_code == 401, (path, method)
        outsider = start_worker(story(), controller.url, secret="another-secret-of-tests")
        time.sleep(0.5)
        assert registered(controller) == [worker.url]
        outsider.kill()
    finally:
        worker.kill()
        controller.kill()


def _paths(part: Any) -> list[str]:
    from fastapi.routing import APIRoute

    found = {route.path for route in part.app.routes if isinstance(route, APIRoute)}
    return sorted(
        path.replace("{", "").replace("}", "").replace(":path", "") for path in found - {"/health", "/v1/health"}
    )


@pytest.mark.parametrize(
    "address",
    ["http://169.254.169.254", "http://evil.example:80", "http://10.0.0.1:80", "http://127.0.0.1:1/x", "ftp://x"],
)
def test_s3_a_worker_with_an_address_that_is_not_allowed_is_refused(address: str) -> None:
    controller = start_controller()
    try:
        body = {"worker_name": address, "check_heart_beat": True, "worker_status": None}
        headers = {"authorization": f"Bearer {SECRET}"}
        answer = httpx2.post(controller.url + "/register_worker", json=body, headers=headers, trust_env=False)
        assert answer.status_code == 400
        assert registered(controller) == []
    finally:
        controller.kill()


def test_s3_the_controller_is_no_worker_of_itself_and_believes_no_stranger() -> None:
    controller = start_controller()
    headers = {"authorization": f"Bearer {SECRET}"}
    try:
        own = {"worker_name": controller.url, "check_heart_beat": True, "worker_status": {"model_names": ["m"]}}
        assert httpx2.post(controller.url + "/register_worker", json=own, headers=headers).status_code == 400
        gone = {"worker_name": f"http://127.0.0.1:{free_port()}", "check_heart_beat": True}
        assert httpx2.post(controller.url + "/register_worker", json=gone, headers=headers).status_code == 400
        assert registered(controller) == []
    finally:
        controller.kill()


def test_s3_a_worker_that_answers_with_a_redirect_is_not_followed(httpserver: Any) -> None:
    seen: list[str] = []

    def elsewhere(request: Any) -> Any:
        from werkzeug.wrappers import Response

        seen.append(request.path)
        return Response("", 307, {"location": httpserver.url_for("/metadata")})

    httpserver.expect_request("/worker_get_status").respond_with_handler(elsewhere)

    def followed(request: Any) -> Any:
        from werkzeug.wrappers import Response

        seen.append("followed")
        return Response("{}")

    httpserver.expect_request("/metadata").respond_with_handler(followed)
    controller = start_controller()
    try:
        body = {"worker_name": httpserver.url_for("").rstrip("/"), "check_heart_beat": True, "worker_status": None}
        headers = {"authorization": f"Bearer {SECRET}"}
        answer = httpx2.post(controller.url + "/register_worker", json=body, headers=headers, trust_env=False)
        assert answer.status_code == 400
        assert seen, "it was never asked"
        assert "followed" not in seen
        assert registered(controller) == []
    finally:
        controller.kill()


@pytest.mark.slow
def test_a_fleet_whose_workers_are_full_says_so_and_loses_none() -> None:
    with fleet([story(0.05)]) as running:
        admission = running.workers[0].app.state.service.models[0].admission
        admission.is_closed = True  # as while it is told to end
        answer = running.ask("/v1/chat/completions", {"messages": [QUESTION]})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert len(registered(running.controller)) == 1
        admission.is_closed = False
        assert running.ask("/v1/chat/completions", {"messages": [QUESTION]}).status_code == 200
