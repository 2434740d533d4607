"""One server behind one address: requests with retries, timeouts, size limits, and errors that say what to do.

The API key is sent to this address only (redirects are refused, ``.netrc`` and proxies from the environment are not
read) and never appears in an error or a ``repr``.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn

import httpx2

from selfee.engines.lines import Line, Lines
from selfee.engines.retry import RETRYABLE_STATUSES, RefusedError, RetryPolicy, call_with_retries, parse_retry_after
from selfee.engines.sse import SseParser
from selfee.engines.wire import Complaint, parse_complaint, parse_payload, to_error
from selfee.errors import EngineError, EngineTimeoutError, UsageError

_ERROR_BODY = 1 << 16  # bytes of an error's body that are read
_DONE = "[DONE]"

Events = Generator[dict[str, Any], None, None]
"""JSON objects of a stream; ``close`` closes the socket."""


@cache
def trusted_certificates() -> ssl.SSLContext:
    """What every server's certificate is checked against; read once, because that takes a tenth of a second."""
    return httpx2.create_ssl_context(trust_env=False)


@dataclass(frozen=True)
class Timeouts:
    """Seconds. A heartbeat counts as a byte; ``total`` is checked whenever bytes or the stall limit arrive."""

    connect: float = 10.0
    stall: float = 300.0  # between two bytes; long, because a small machine reads a long prompt slowly
    total: float | None = None  # for one request, from its first attempt

    def __post_init__(self) -> None:
        for name, value in (("connect", self.connect), ("stall", self.stall), ("total", self.total)):
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"timeout: {name} is {value}; expected more than 0 seconds")


@dataclass(frozen=True)
class Limits:
    """How long and how much: everything that bounds one request."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    max_response_bytes: int = 1 << 26


@dataclass
class Exchange:
    """What goes with one request beside its body, and what its answer says beside its text."""

    headers: Mapping[str, str] = field(default_factory=dict)  # sent with the request
    status: int | None = None  # of HTTP; None = no answer
    received: Mapping[str, str] = field(default_factory=dict)  # the answer's headers; names in any case
    model: str = ""  # that answered, as the server says
    line: Line | None = field(default=None, repr=False)  # to send it by; None = the connection's own sockets


class ServerConnection:
    """Speaks HTTP with one server. ``base_url`` ends in ``/v1`` or wherever the API lies."""

    def __init__(
        self, base_url: str, *, api_key: str | None = None, limits: Limits | None = None, proxy: str | None = None
    ) -> None:
        self.base_url = check_base_url(base_url)
        self._limits = limits or Limits()
        self._key = _check_key(api_key)
        timeouts = self._limits.timeouts
        stall = min(timeouts.stall, timeouts.total or timeouts.stall)
        headers = {"user-agent": "selfee", "accept-encoding": "identity"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        trusted = trusted_certificates()

        def make_client() -> httpx2.Client:
            return httpx2.Client(
                headers=headers,
                timeout=httpx2.Timeout(stall, connect=min(timeouts.connect, stall)),
                follow_redirects=False,
                trust_env=False,
                proxy=proxy,
                verify=trusted,
            )

        self._client = make_client()
        self.lines = Lines(make_client)

    def __repr__(self) -> str:
        return f"ServerConnection({self.base_url!r})"

    def close(self) -> None:
        """Close every socket."""
        self._client.close()
        self.lines.close()

    def redact(self, text: str) -> str:
        """``text`` without the API key."""
        return text.replace(self._key, "[key]") if self._key else text

    def events(self, path: str, body: Mapping[str, Any], exchange: Exchange | None = None) -> Events:
        """POST ``body`` and yield each JSON object of the event stream; ends at ``[DONE]`` or where the stream ends.

        Retries until the first object has arrived, not afterwards. An answer that is one JSON object instead of a
        stream is yielded as it is. Closing the iterator closes the socket. Raises EngineError or
        ContextOverflowError; ``{"error": ...}`` within the stream is raised too.
        """
        deadline = self._deadline()

        def attempt() -> Events:
            response = self._send("POST", path, body, deadline, exchange)
            stream = self._payloads(response, f"{self.base_url}{path}", deadline)
            try:
                first = next(stream)
            except StopIteration:
                error = EngineError(
                    f"{self.base_url}{path}: the server closed the stream without a word; try again",
                    retryable=True,
                    kind="cut",
                )
                raise RefusedError(error, again=True) from None
            except EngineTimeoutError as error:
                raise RefusedError(error, again=False) from error
            except EngineError as error:
                raise RefusedError(error, again=error.retryable) from error
            return _resume(first, stream)

        line = exchange.line if exchange else None
        return call_with_retries(self._limits.retry, attempt, sleep=line.wait if line else time.sleep)

    def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request, one JSON object; retried like ``events``."""
        deadline = self._deadline()

        def attempt() -> dict[str, Any]:
            where = f"{self.base_url}{path}"
            response = self._send(method, path, body, deadline)
            try:
                return self._parse(b"".join(self._bytes(response, where, deadline)), where)
            except EngineError as error:
                raise RefusedError(
                    error, again=error.retryable and not isinstance(error, EngineTimeoutError)
                ) from error
            finally:
                response.close()

        return call_with_retries(self._limits.retry, attempt)

    def _deadline(self) -> float:
        total = self._limits.timeouts.total
        return float("inf") if total is None else time.monotonic() + total

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        deadline: float,
        exchange: Exchange | None = None,
    ) -> httpx2.Response:
        where = f"{self.base_url}{path}"
        if time.monotonic() > deadline:
            raise RefusedError(self._too_late(where), again=False)
        content = None if body is None else json.dumps(body).encode("ascii")
        headers = {} if content is None else {"content-type": "application/json"}
        headers |= exchange.headers if exchange else {}
        line = exchange.line if exchange else None
        client = line.client if line else self._client
        extensions = {"trace": line.trace} if line else None
        request = client.build_request(method, where, content=content, headers=headers, extensions=extensions)
        try:
            if line and line.is_cut:
                raise RefusedError(EngineError(f"{where}: given up before it was asked", kind="cut"), again=False)
            response = client.send(request, stream=True)
        except httpx2.HTTPError as error:
            self._refuse(error, where)
        if exchange is not None:
            exchange.status, exchange.received = response.status_code, response.headers
        if response.status_code != 200:
            try:
                self._refuse_status(response, where)
            finally:
                response.close()
        return response

    def _refuse(self, error: httpx2.HTTPError, where: str) -> NoReturn:
        if isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout):
            seconds = self._limits.timeouts.connect
            found: EngineError = EngineTimeoutError(f"{where}: no connection within {seconds:g} s; is the server up?")
            raise RefusedError(found, again=True) from error
        if isinstance(error, httpx2.TimeoutException):
            raise RefusedError(self._stalled(where), again=False) from error
        if _is_certificate_error(error):
            found = EngineError(
                f"{where}: its certificate cannot be trusted ({error}); expected a valid one", kind="connection"
            )
            raise RefusedError(found, again=False) from error
        if isinstance(error, httpx2.ConnectError):
            told = f"{where}: no connection ({error}); is the server running there?"
        else:
            told = f"{where}: the connection broke ({error}); try again"
        found = EngineError(told, retryable=True, kind="connection")
        raise RefusedError(found, again=True) from error

    def _refuse_status(self, response: httpx2.Response, where: str) -> NoReturn:
        status = response.status_code
        if 300 <= status < 400:
            target = self.redact(response.headers.get("location", "nowhere"))[:200]
            error = EngineError(f"{where}: redirects to {target}; redirects are not followed; give the final address")
            raise RefusedError(error, again=False)
        raw = b""
        try:
            for chunk in response.iter_bytes():
                raw += chunk
                if len(raw) > _ERROR_BODY:
                    break
        except httpx2.HTTPError:
            raw += b" (the rest was cut off)"
        text = self.redact(raw[:_ERROR_BODY].decode("utf-8", errors="replace"))
        wish = response.headers.get("x-should-retry", "")
        again = wish == "true" or (status in RETRYABLE_STATUSES and wish != "false")
        error_ = to_error(where, _complaint(text, status))
        raise RefusedError(error_, again=again, retry_after=parse_retry_after(response.headers))

    def _payloads(self, response: httpx2.Response, where: str, deadline: float) -> Events:
        try:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "application/json":
                yield self._checked(b"".join(self._bytes(response, where, deadline)), where)
                return
            if kind not in ("text/event-stream", "text/plain", ""):
                raise EngineError(
                    f"{where}: answered with {kind or 'no type'}; expected an event stream of an "
                    "OpenAI-compatible server; check the address",
                    kind="malformed",
                )
            parser = SseParser()
            for chunk in self._bytes(response, where, deadline):
                for data in parser.feed(chunk):
                    if data.strip() == _DONE:
                        return
                    if data.strip():
                        yield self._checked(data, where)
            for data in parser.finish():
                if data.strip() not in ("", _DONE):
                    yield self._checked(data, where)
        finally:
            response.close()

    def _checked(self, data: str | bytes, where: str) -> dict[str, Any]:
        payload = self._parse(data, where)
        if payload.get("error") or payload.get("object") == "error":
            raise to_error(where, parse_complaint(json.loads(self.redact(json.dumps(payload)))))
        return payload

    def _parse(self, data: str | bytes, where: str) -> dict[str, Any]:
        try:
            return parse_payload(data, where)
        except EngineError:
            text = data if isinstance(data, str) else data.decode("utf-8", errors="replace")
            return parse_payload(self.redact(text), where)  # fails again, with a message that cannot hold the key

    def _bytes(self, response: httpx2.Response, where: str, deadline: float) -> Iterator[bytes]:
        size = 0
        limit = self._limits.max_response_bytes
        try:
            for chunk in response.iter_bytes():
                size += len(chunk)
                if size > limit:
                    raise EngineError(
                        f"{where}: the answer exceeds {limit} bytes; expected less; set max_tokens", kind="endless"
                    )
                yield chunk
                if time.monotonic() > deadline:
                    raise self._too_late(where)
        except httpx2.TimeoutException as error:
            raise self._stalled(where) from error
        except httpx2.HTTPError as error:
            raise EngineError(
                f"{where}: the stream broke off ({error}); ask again", retryable=True, kind="cut"
            ) from error

    def _stalled(self, where: str) -> EngineTimeoutError:
        timeouts = self._limits.timeouts
        seconds = min(timeouts.stall, timeouts.total or timeouts.stall)
        return EngineTimeoutError(
            f"{where}: no byte for {seconds:g} s; is the server overloaded? allow a longer timeout"
        )

    def _too_late(self, where: str) -> EngineTimeoutError:
        seconds = self._limits.timeouts.total
        return EngineTimeoutError(
            f"{where}: not finished within {seconds:g} s; allow a longer time or lower max_tokens"
        )


def check_base_url(text: str) -> str:
    """An ``http(s)`` address without credentials, query or trailing slash; ``/v1`` is added where no path is given."""
    try:
        url = httpx2.URL(text)
        port_ok = url.port is None or 0 < url.port < 65536
    except (httpx2.InvalidURL, ValueError) as error:
        raise UsageError(f"{text[:200]!r}: not an address ({error}); expected https://host[:port]/v1") from error
    if url.userinfo:
        raise UsageError(
            f"https://…@{url.host}: holds a password; expected none in the address; give it as the API key"
        )
    if url.scheme not in ("http", "https") or not url.host or not port_ok or url.query:
        raise UsageError(f"{text[:200]!r}: not an address of a server; expected https://host[:port]/v1")
    path = url.path.rstrip("/")
    return str(url.copy_with(path=path or "/v1", fragment=None))


def _check_key(key: str | None) -> str | None:
    if not key:
        return None
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("API key: holds spaces, line breaks or characters beyond ASCII; expected none; copy it again")
    return key


def _complaint(text: str, status: int) -> Complaint:
    try:
        return parse_complaint(json.loads(text), status)
    except (ValueError, RecursionError):
        return parse_complaint(text, status)


def _resume(first: dict[str, Any], rest: Events) -> Events:
    try:
        yield first
        yield from rest
    finally:
        rest.close()


def _is_certificate_error(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
