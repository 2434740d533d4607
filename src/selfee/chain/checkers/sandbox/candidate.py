"""The process that holds a model's program: it is confined, loads the program, and answers calls of its functions."""

from __future__ import annotations

import builtins
import json
import os
import sys
from typing import IO, Any

from selfee.chain.checkers.sandbox.confinement import confine
from selfee.chain.checkers.sandbox.values import NotPlainError, decode, encode, receive, send

_LONGEST_TEXT = 300  # characters of an error


def main() -> None:
    """Read the program on standard input, requests from one pipe, and answer into another."""
    job = json.loads(sys.stdin.buffer.read())
    requests, replies = (os.fdopen(int(number), mode) for number, mode in zip(sys.argv[1:3], ("rb", "wb")))
    confine(job["memory"], job["cpu_seconds"], parent=job["parent"])
    _serve(_Program(job["source"]), requests, replies)
    os._exit(0)  # whatever the program wanted done at the end


class _Program:
    def __init__(self, source: str) -> None:
        self.names: dict[str, Any] = {"__name__": "answer", "__builtins__": builtins}
        self.failure: str | None = None
        try:
            exec(compile(source, "<answer>", "exec", dont_inherit=True), self.names)
        except BaseException as error:
            self.failure = describe(error)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a request asks for."""
        if "kinds" in request:
            return {"kinds": {name: self._kind(name) for name in request["kinds"]}, "failure": self.failure}
        if "inside" in request:
            return self._inside(request["inside"])
        return self._call(request)

    def _kind(self, name: str) -> str:
        if name not in self.names:
            return "missing"
        value = self.names[name]
        return "class" if isinstance(value, type) else "function" if callable(value) else "value"

    def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            value = self.names[request["call"]]
            if request["is_call"]:
                positional, named = decode(request["arguments"])
                value = value(*positional, **named)
            return {"value": encode(value)}
        except NotPlainError as error:
            return {"not_plain": str(error)[:_LONGEST_TEXT]}
        except BaseException as error:
            return {"error": type(error).__name__, "text": message(error)}

    def _inside(self, lines: list[str]) -> dict[str, Any]:
        """Run a test in this very process: needed where it makes objects of the program's own classes."""
        try:
            for line in lines:
                exec(compile(line, "<test>", "exec", dont_inherit=True), self.names)
        except BaseException as error:
            return {"error": type(error).__name__, "text": message(error)}
        return {"value": None}


def _serve(program: _Program, requests: IO[bytes], replies: IO[bytes]) -> None:
    while (message := receive(requests)) is not None:
        reply = program.answer(json.loads(message))
        send(replies, json.dumps(reply).encode())


def describe(error: BaseException) -> str:
    """An error as one line; the program may have made it, and making its text may do anything."""
    text = message(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def message(error: BaseException) -> str:
    """What an error says, as one line."""
    try:
        return " ".join(str(error).split())[:_LONGEST_TEXT]
    except BaseException:
        return ""
