"""The process that runs the tests of a task: the program's functions are calls into the candidate's process."""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import IO, Any

from selfee.chain.checkers.sandbox.candidate import describe
from selfee.chain.checkers.sandbox.confinement import confine
from selfee.chain.checkers.sandbox.values import NotPlainError, decode, encode, receive, send


class _GoneError(Exception):
    """The candidate's process has ended."""


class _NotPlainResultError(Exception):
    """A function returned something that only its own process could look at."""


def main() -> None:
    """Read the tests on standard input, run them, write what came of them as JSON."""
    job = json.loads(sys.stdin.buffer.read())
    replies, requests = (os.fdopen(int(number), mode) for number, mode in zip(sys.argv[1:3], ("rb", "wb")))
    missing = confine(job["memory"], job["cpu_seconds"], parent=job["parent"])
    found = run(job["setup"], job["tests"], Candidate(requests, replies))
    sys.stdout.write(json.dumps(found | {"missing": missing}))
    sys.stdout.flush()
    os._exit(0)


class Candidate:
    """The other process."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._requests = requests
        self._replies = replies

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the reply. Raises _GoneError."""
        try:
            send(self._requests, json.dumps(request).encode())
            reply = receive(self._replies)
            found = None if reply is None else json.loads(reply)
        except (OSError, ValueError, RecursionError) as error:
            raise _GoneError from error
        if not isinstance(found, dict):
            raise _GoneError
        return found

    def value(self, name: str, is_call: bool = False, arguments: Any = None) -> Any:
        """The value of a name, or what calling it gives. Raises what the program raised, if it is a usual error."""
        reply = self.ask({"call": name, "is_call": is_call, "arguments": arguments})
        if "value" in reply:
            try:
                return decode(reply["value"])
            except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
                raise _GoneError from error
        if "not_plain" in reply:
            raise _NotPlainResultError(str(reply["not_plain"]))
        kind = getattr(builtins, str(reply.get("error")), None)
        text = str(reply.get("text"))
        if isinstance(kind, type) and issubclass(kind, Exception):
            raise kind(text)
        raise RuntimeError(f"{reply.get('error')}: {text}")


def run(setup: str, tests: Sequence[str], candidate: Candidate) -> dict[str, Any]:
    """What came of the tests: how many passed, why the first other one did not, how many ran inside."""
    passed = inside = 0
    reason = ""
    try:
        names = _needed_names(setup, tests)
        reply = candidate.ask({"kinds": names})
        kinds = reply["kinds"]
        if reply.get("failure"):
            reason = f"the program fails when it is loaded: {reply['failure']}"
        namespace = _namespace(kinds, candidate)
        classes = {name for name, kind in kinds.items() if kind == "class"}
        for test in tests:
            is_inside = bool(classes & set(_names(f"{setup}\n{test}")))
            inside += is_inside
            problem = _run_inside(candidate, setup, test) if is_inside else _run_here(namespace, setup, test, kinds)
            passed += not problem
            reason = reason or problem
    except (_GoneError, KeyError, TypeError):
        reason = reason or "the program ended, or was killed for what it took, before its tests were done"
    return {"passed": passed, "reason": reason, "inside": inside}


def _run_here(namespace: dict[str, Any], setup: str, test: str, kinds: dict[str, str]) -> str:
    """Why a test does not pass; "" if it does."""
    try:
        own = dict(namespace)
        exec(compile(setup, "<setup>", "exec"), own)
        exec(compile(test, "<test>", "exec"), own)
    except _GoneError:
        raise
    except AssertionError:
        return f"failed: {_short(test)}"
    except _NotPlainResultError as error:
        return f"the result {error}, no plain value: {_short(test)}"
    except NameError as error:
        absent = [name for name, kind in kinds.items() if kind == "missing"]
        return f"not defined: {', '.join(absent)}" if absent else describe(error)
    except Exception as error:
        return f"{describe(error)}: {_short(test)}"
    return ""


def _run_inside(candidate: Candidate, setup: str, test: str) -> str:
    reply = candidate.ask({"inside": [setup, test]})
    if "value" in reply:
        return ""
    name, text = str(reply.get("error")), str(reply.get("text"))
    return f"failed: {_short(test)}" if name == "AssertionError" else f"{name}: {text}" if text else name


def _namespace(kinds: dict[str, str], candidate: Candidate) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "test"}
    for name, kind in kinds.items():
        if kind == "function":
            namespace[name] = _function(candidate, name)
        elif kind == "value" and name not in vars(builtins):
            try:
                namespace[name] = candidate.value(name)
            except _NotPlainResultError:
                continue
    return namespace


def _function(candidate: Candidate, name: str) -> Callable[..., Any]:
    def call(*positional: Any, **named: Any) -> Any:
        try:
            arguments = encode([list(positional), named])
        except NotPlainError as error:
            raise _NotPlainResultError(f"of an argument {error}") from error
        return candidate.value(name, True, arguments)

    call.__name__ = call.__qualname__ = name
    return call


def _needed_names(setup: str, tests: Sequence[str]) -> list[str]:
    """Names that tests use and that neither Python nor their own setup defines: the program has to."""
    source = "\n".join((setup, *tests))
    own = {name for node in ast.walk(ast.parse(source)) for name in _defined(node)}
    return [name for name in _names(source) if name not in own and name not in vars(builtins)]


def _defined(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    return [node.arg] if isinstance(node, ast.arg) else []


def _names(source: str) -> list[str]:
    """Every name that a source reads, each once."""
    found = [node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    return list(dict.fromkeys(found))


def _short(test: str) -> str:
    line = " ".join(test.split())
    return line if len(line) <= 120 else line[:119] + "…"
