"""The process that computes: opens the model, does jobs in threads, and says what comes of them over a socket.

A damaged file, a fault in the arithmetic or too little memory ends this process and not the server. Messages are JSON
objects, one a line. To here: ``{"open": {…}}`` first, then ``{"id", "job"}``, ``{"cancel": id}``, ``{"id", "call",
"words"}`` and ``{"ping": n}``; back: ``{"ready": {…}}`` or ``{"failed": {…}}``, then ``{"id", …an outcome}``, ``{"id",
"end": true}``, ``{"id", "error"}``, ``{"id", "result"}`` and ``{"pong": n}``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
from typing import Any, BinaryIO

from selfee.engines.cancelling import Cancellation
from selfee.engines.open import open_engine
from selfee.serve.engine.wire import error_to_json, job_from_json, outcome_to_json, sequence_to_json
from selfee.serve.engine.work import call, outcomes

CALLS = ("count_tokens", "tokenize", "detokenize", "score")
"""What may be called."""


class _Child:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines: BinaryIO = connection.makefile("rb")
        self._lock = threading.Lock()
        self._jobs: dict[int, Cancellation] = {}
        self._engine: Any = None

    def run(self) -> None:
        """Until the server hangs up."""
        options = json.loads(self._lines.readline())["open"]
        try:
            self._engine = open_engine(**options)
        except BaseException as error:
            self._say({"failed": error_to_json(error)})
            return
        engine = self._engine
        names = (
            "name",
            "context_length",
            "parallel",
            "num_parameters",
            "trained_on_chains",
            "supports_chat",
            "end_text",
        )
        self._say({"ready": {name: getattr(engine, name, None) for name in names}})
        for line in self._lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "cancel" in message:
            cancellation = self._jobs.get(message["cancel"])
            if cancellation is not None:
                cancellation.set()
        elif "ping" in message:
            self._say({"pong": message["ping"]})
        else:
            number = message["id"]
            self._jobs[number] = Cancellation()
            target = self._call if "call" in message else self._work
            threading.Thread(target=target, args=(number, message), daemon=True).start()

    def _work(self, number: int, message: dict[str, Any]) -> None:
        try:
            for outcome in outcomes(self._engine, job_from_json(message["job"]), self._jobs[number]):
                self._say({"id": number} | outcome_to_json(outcome))
            last: dict[str, Any] = {"id": number, "end": True}
        except BaseException as error:
            last = {"id": number, "error": error_to_json(error)}
        del self._jobs[number]
        self._say(last)

    def _call(self, number: int, message: dict[str, Any]) -> None:
        try:
            name = message["call"]
            assert name in CALLS, "the server asks for nothing else"
            result = call(self._engine, name, self._jobs[number], **message["words"])
            if name == "score":
                result = [sequence_to_json(sequence) for sequence in result]
            last: dict[str, Any] = {"id": number, "result": result}
        except BaseException as error:
            last = {"id": number, "error": error_to_json(error)}
        del self._jobs[number]
        self._say(last)

    def _say(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode("ascii") + b"\n"
        with self._lock:
            try:
                self._connection.sendall(data)
            except OSError:
                os._exit(0)  # the server is gone; nobody wants an answer


_M_ARENA_MAX = -8  # of malloc.h


def use_one_pool() -> None:
    """One pool of memory for all threads to come, where glibc would make one for each.

    A pass's logits are made in one thread and freed in another: with many pools the process grew from 0.2 to 0.8 GB
    within a minute of eight clients.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def main() -> None:
    """Speak on the socket whose number is the first argument."""
    use_one_pool()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to hear; it hangs up when it is done
    _Child(socket.socket(fileno=int(sys.argv[1]))).run()
    os._exit(0)  # threads may be in the middle of something that nobody waits for


if __name__ == "__main__":
    main()
