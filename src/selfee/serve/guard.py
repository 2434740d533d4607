"""Stands before the application: who may ask, and from where; every request gets an id, a log line and a count."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from selfee.serve.config import ServerConfig, is_loopback
from selfee.serve.metrics import Metrics
from selfee.serve.protocol.errors import ApiError

LOG = logging.getLogger("selfee.serve")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_OPEN_PATHS = frozenset(("/health", "/v1/health"))
_LONGEST_URL = 8192
_PAGE = re.compile(r"/(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_.-]*")
_POLICY = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"


@dataclass
class _Call:
    """One request on its way through."""

    id: str
    started: float
    status: int = 0
    owner: str = ""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, config: ServerConfig, metrics: Metrics) -> None:
        self._app = app
        self._config = config
        self._metrics = metrics
        self._keys = [key.encode() for key in config.access.keys]
        self._hosts = {host.lower() for host in config.access.hosts}
        if not is_loopback(config.host):
            self._hosts.add(config.host.lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        call = _Call(_request_id(headers), time.monotonic())
        scope["selfee.request_id"] = call.id
        scope["selfee.ignored"] = []
        origin = headers.get("origin", "")
        send = self._dressed(scope, call, origin, send)
        try:
            try:
                self._check(scope, headers, call)
                if scope["method"] == "OPTIONS":
                    await _reply(send, 204, b"", [(b"allow", b"GET, HEAD, POST, OPTIONS")])
                else:
                    _strip_prefix(scope)
                    await self._app(scope, receive, send)
            except ApiError as error:
                if not call.status:
                    await _refuse(send, error)
        finally:
            self._note(scope, call)

    def _check(self, scope: Scope, headers: dict[str, str], call: _Call) -> None:
        limits = self._config.limits
        if len(scope["headers"]) > limits.header_count:
            raise ApiError(431, f"headers: more than {limits.header_count}; expected fewer", code="headers_too_large")
        if len(scope["raw_path"]) + len(scope["query_string"]) > _LONGEST_URL:
            raise ApiError(414, f"url: longer than {_LONGEST_URL} characters; expected less", code="url_too_long")
        self._check_host(headers)
        self._check_origin(headers)
        if scope["method"] != "OPTIONS":
            self._check_key(scope, headers, call)

    def _check_host(self, headers: dict[str, str]) -> None:
        """A name that resolves to this machine, but is not its own, may be a web page's trick (DNS rebinding)."""
        host = _host_name(headers.get("host", ""))
        if host is None or not (is_loopback(host) or host in self._hosts or "*" in self._hosts):
            shown = headers.get("host", "")[:100]
            raise ApiError(
                403,
                f"host: {shown!r} is not a name of this server; expected localhost or one given with --allow-host",
                "permission_error",
                "host",
                "host_not_allowed",
            )

    def _check_origin(self, headers: dict[str, str]) -> None:
        origin = headers.get("origin")
        if origin is not None and not self._allows_origin(origin, headers.get("host", "")):
            raise ApiError(
                403,
                f"origin: {origin[:100]!r} may not call this server; expected its own page or one given with "
                "--allow-origin",
                "permission_error",
                "origin",
                "origin_not_allowed",
            )

    def _allows_origin(self, origin: str, host: str) -> bool:
        allowed = self._config.access.origins
        if origin in allowed or ("*" in allowed and origin != "null"):
            return True
        scheme = "https" if self._config.tls else "http"
        return origin.lower() == f"{scheme}://{host.lower()}"

    def _check_key(self, scope: Scope, headers: dict[str, str], call: _Call) -> None:
        client = scope.get("client")
        call.owner = client[0] if client else ""
        scope["selfee.owner"] = call.owner
        if not self._keys or scope["path"] in _OPEN_PATHS:
            return
        given = headers.get("authorization", "")
        kind, _, key = given.partition(" ")
        if kind.lower() == "basic":
            key = _password(key)
        elif kind.lower() != "bearer":
            key = headers.get("x-api-key", "")
        is_known = False
        for known in self._keys:  # all of them, so that time tells nothing
            is_known |= hmac.compare_digest(known, key.strip().encode("utf-8", "replace"))
        if not is_known:
            found = "is not one of this server's" if key else "is missing"
            raise ApiError(
                401,
                f"key: {found}; expected 'Authorization: Bearer KEY'",
                "authentication_error",
                code="invalid_api_key",
                headers={"www-authenticate": _challenge(headers)},
            )
        call.owner = "key-" + hashlib.sha256(key.strip().encode()).hexdigest()[:12]
        scope["selfee.owner"] = call.owner

    def _dressed(self, scope: Scope, call: _Call, origin: str, send: Send) -> Send:
        """``send`` that adds the headers of every answer, and remembers its status."""

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                seconds = time.monotonic() - call.started
                headers = [
                    (b"x-request-id", call.id.encode()),
                    (b"openai-processing-ms", str(round(1000 * seconds)).encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
                if ignored := scope["selfee.ignored"]:
                    headers.append((b"x-selfee-ignored", ", ".join(ignored).encode("ascii", "replace")))
                headers += self._cross_origin(origin, scope["method"])
                given = dict(message["headers"])
                if given.get(b"content-type", b"").startswith(b"text/html") and b"content-security-policy" not in given:
                    headers += [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        return dressed

    def _cross_origin(self, origin: str, method: str) -> Sequence[tuple[bytes, bytes]]:
        allowed = self._config.access.origins
        if not origin or not (origin in allowed or "*" in allowed) or origin == "null":
            return ()
        headers = [
            (b"access-control-allow-origin", origin.encode("latin-1", "replace")),
            (b"access-control-expose-headers", b"x-request-id, x-selfee-ignored, x-selfee-chain, retry-after"),
            (b"vary", b"origin"),
        ]
        if method == "OPTIONS":
            headers += [
                (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
                (b"access-control-allow-headers", b"authorization, content-type, last-event-id, x-api-key"),
                (b"access-control-max-age", b"600"),
            ]
        return headers

    def _note(self, scope: Scope, call: _Call) -> None:
        seconds = time.monotonic() - call.started
        route = getattr(scope.get("route"), "path", None) or ("(page)" if call.status < 400 else "(none)")
        status = call.status or 499
        self._metrics.request(route, status, seconds)
        facts: dict[str, Any] = {"method": scope["method"], "route": route, "status": status}
        facts["ms"] = round(1000 * seconds, 1)
        facts |= {"request_id": call.id, "owner": call.owner}
        if ignored := scope["selfee.ignored"]:
            facts["ignored"] = ignored
        LOG.info("request", extra={"facts": facts})


def _headers(scope: Scope) -> dict[str, str]:
    """Headers by name; of several of one name the first, but hosts and origins all: two are none."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1")
        text = value.decode("latin-1")
        if key in ("host", "origin") and key in found:
            text = f"{found[key]},{text}"
            found[key] = text
        found.setdefault(key, text)
    return found


def _request_id(headers: dict[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else "req_" + secrets.token_hex(12)


def _host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None or "@" in host or "," in host:
        return None
    return parts.hostname.lower() if parts.hostname else None


def _password(credentials: str) -> str:
    """What a person typed into a browser's own question: the key is the password, the name may be anything."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _challenge(headers: dict[str, str]) -> str:
    """A browser that opens the page asks the person for the key; programs are told how to send it."""
    return 'Basic realm="selfee", charset="UTF-8"' if "text/html" in headers.get("accept", "") else "Bearer"


_BARE = ("/chat/completions", "/completions", "/responses", "/models", "/selfee/")


def _strip_prefix(scope: Scope) -> None:
    """Addresses without ``/v1`` mean the same."""
    path = scope["path"]
    if path.startswith(_BARE):
        scope["path"] = "/v1" + path
        scope["raw_path"] = b"/v1" + scope["raw_path"]


async def _refuse(send: Send, error: ApiError) -> None:
    headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await _reply(
        send, error.status, json.dumps(error.body).encode(), [*headers, (b"content-type", b"application/json")]
    )


async def _reply(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    if status != 204:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
