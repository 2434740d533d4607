"""A backend in a process of its own: what kills it does not kill the server, and it is started anew."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfee.engines.cancelling import Cancellation
from selfee.engines.scoring import ScoredSequence
from selfee.errors import SelfeeError
from selfee.serve.engine.jobs import Job, ModelInfo, Outcome
from selfee.serve.engine.wire import error_from_json, job_to_json, outcome_from_json, sequence_from_json
from selfee.serve.protocol.errors import BackendLostError

_LONGEST_LINE = 256 << 20
_PATIENCE = 5.0  # seconds
_Message = dict[str, Any]
_Inbox = asyncio.Queue["_Message | SelfeeError"]


@dataclass(frozen=True)
class Watch:
    """How long to wait. Seconds."""

    ping: float = 5.0  # between two questions whether the process is alive
    stall: float = 60.0  # without an answer to one after which it is given up
    first_pause: float = 0.2  # before it is started anew; doubles each time it dies again
    longest_pause: float = 30.0
    load: float = 3600.0


class ProcessBackend:
    """Implements ``Backend`` with a child process. ``options`` are those of ``open_engine``, as JSON values."""

    def __init__(
        self, options: Mapping[str, Any], describe: Callable[[Mapping[str, Any]], ModelInfo], watch: Watch | None = None
    ) -> None:
        self._options = dict(options)
        self._describe = describe
        self.watch = watch or Watch()
        self._info: ModelInfo | None = None
        self._numbers = itertools.count(1)
        self._inboxes: dict[int, _Inbox] = {}
        self._cancellations: set[Cancellation] = set()
        self._calls: set[int] = set()
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._heard = 0.0
        self._is_closing = False
        self.deaths = 0

    @property
    def info(self) -> ModelInfo:
        """See ``Backend.info``; known once it was started."""
        assert self._info is not None, "start comes first"
        return self._info

    @property
    def is_ready(self) -> bool:
        """See ``Backend.is_ready``."""
        return self._writer is not None

    @property
    def pid(self) -> int | None:
        """The process's number, while it lives."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the process and load the model. Raises SelfeeError as ``open_engine`` does."""
        if self._info is None:
            reader = await self._launch()
            self._tasks.append(asyncio.create_task(self._keep_alive(reader)))

    async def cut(self) -> None:
        """See ``Backend.cut``."""
        for cancellation in list(self._cancellations):
            cancellation.set()
        for number in list(self._calls):
            self._try_to_say({"cancel": number})

    async def close(self) -> None:
        """See ``Backend.close``."""
        self._is_closing = True
        if self._writer is not None:
            self._writer.close()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._process is not None:
            self._kill()
            await self._process.wait()

    def _kill(self) -> None:
        """End the process. Not by its own method, which would ask how it ended, and take the answer from the loop."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def run(self, job: Job, cancellation: Cancellation) -> AsyncGenerator[Outcome, None]:
        """See ``Backend.run``."""
        number, inbox = self._open_inbox()
        loop = asyncio.get_running_loop()
        has_ended = False

        def cancel() -> None:
            loop.call_soon_threadsafe(self._try_to_say, {"cancel": number})

        self._cancellations.add(cancellation)
        try:
            self._say({"id": number, "job": job_to_json(job)})
            with cancellation.heard_by(cancel):
                try:
                    while True:
                        message = await inbox.get()
                        has_ended = _is_last(message)
                        if isinstance(message, SelfeeError):
                            raise message
                        if "error" in message:
                            raise error_from_json(message["error"])
                        if has_ended:
                            return
                        yield outcome_from_json(message)
                finally:
                    cancellation.set()
                    while not has_ended:
                        has_ended = _is_last(await inbox.get())
        finally:
            self._inboxes.pop(number, None)
            self._cancellations.discard(cancellation)

    async def call(self, name: str, **words: Any) -> Any:
        """What a method of the engine returns."""
        number, inbox = self._open_inbox()
        self._calls.add(number)
        try:
            self._say({"id": number, "call": name, "words": words})
            message = await inbox.get()
        except asyncio.CancelledError:
            self._try_to_say({"cancel": number})
            with contextlib.suppress(TimeoutError):  # until nothing computes for it any more
                await asyncio.wait_for(inbox.get(), _PATIENCE)
            raise
        finally:
            self._calls.discard(number)
            self._inboxes.pop(number, None)
        if isinstance(message, SelfeeError):
            raise message
        if "error" in message:
            raise error_from_json(message["error"])
        return message["result"]

    def _open_inbox(self) -> tuple[int, _Inbox]:
        number, inbox = next(self._numbers), _Inbox()
        self._inboxes[number] = inbox
        return number, inbox

    def _say(self, message: _Message) -> None:
        if self._writer is None:
            raise BackendLostError("engine: its process has ended and is being started anew; try again", retryable=True)
        self._writer.write(json.dumps(message).encode("ascii") + b"\n")

    def _try_to_say(self, message: _Message) -> None:
        with contextlib.suppress(BackendLostError):
            self._say(message)

    async def _launch(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "selfee.serve.engine.child", str(theirs.fileno())]
            self._process = await asyncio.create_subprocess_exec(
                *command, pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL, start_new_session=True
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE)
        writer.write(json.dumps({"open": self._options}).encode("ascii") + b"\n")
        try:
            async with asyncio.timeout(self.watch.load):
                line = await reader.readline()
        except TimeoutError:
            line = b""
        if not line:
            writer.close()
            spec, how = self._options.get("spec"), await self._ending()
            raise BackendLostError(
                f"{spec}: loading it ended the process ({how}); expected a sound file and enough memory"
            )
        message = json.loads(line)
        if "failed" in message:
            writer.close()
            await self._process.wait()
            raise error_from_json(message["failed"])
        self._info = self._describe(message["ready"])
        self._writer, self._heard = writer, time.monotonic()
        return reader

    async def _ending(self) -> str:
        """How the process ended, in words."""
        assert self._process is not None, "it was started"
        code = await self._process.wait()
        if code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
        return f"signal {-code}"

    async def _keep_alive(self, reader: asyncio.StreamReader) -> None:
        """Read what the process says; when it dies, tell everybody and start it anew."""
        pause = self.watch.first_pause
        while True:
            began = time.monotonic()
            pinging = asyncio.create_task(self._ping())
            try:
                await self._read(reader)
            finally:
                pinging.cancel()
            if self._is_closing:
                return
            await self._bury()
            if time.monotonic() - began > 10 * self.watch.longest_pause:
                pause = self.watch.first_pause
            while True:
                await asyncio.sleep(pause)
                pause = min(2 * pause, self.watch.longest_pause)
                with contextlib.suppress(SelfeeError, OSError):
                    reader = await self._launch()
                    break

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                message = json.loads(line)
                self._heard = time.monotonic()
                inbox = self._inboxes.get(message.get("id", 0))
                if inbox is not None:
                    inbox.put_nowait(message)

    async def _bury(self) -> None:
        assert self._process is not None, "it was started"
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._kill()
        how = await self._ending()
        self.deaths += 1
        for inbox in list(self._inboxes.values()):
            inbox.put_nowait(
                BackendLostError(
                    f"engine: its process ended in the middle of the work ({how}); try again", retryable=True
                )
            )

    async def _ping(self) -> None:
        """Kill a process that does not answer any more: it would never say that it is gone."""
        for number in itertools.count(1):
            await asyncio.sleep(self.watch.ping)
            self._try_to_say({"ping": number})
            if time.monotonic() - self._heard > self.watch.stall:
                self._kill()

    async def count_tokens(self, text: str) -> int:
        """See ``Backend.count_tokens``."""
        return int(await self.call("count_tokens", text=text))

    async def tokenize(self, text: str, *, add_special: bool) -> Sequence[tuple[int, str]]:
        """See ``Backend.tokenize``."""
        return [(token, piece) for token, piece in await self.call("tokenize", text=text, add_special=add_special)]

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """See ``Backend.detokenize``."""
        return str(await self.call("detokenize", tokens=list(tokens)))

    async def score(
        self, prompts: Sequence[str | Sequence[int]], *, top: int, scope: str = ""
    ) -> Sequence[ScoredSequence]:
        """See ``Backend.score``."""
        plain = [prompt if isinstance(prompt, str) else list(prompt) for prompt in prompts]
        rows = await self.call("score", prompts=plain, top=top, scope=scope)
        return [sequence_from_json(row) for row in rows]


def _is_last(message: _Message | SelfeeError) -> bool:
    return isinstance(message, SelfeeError) or "end" in message or "error" in message
