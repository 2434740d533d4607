"""The web page: static files, sent with rules that keep everything else out of it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

_RULES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, no script but the page's own files, no string that becomes markup, in no frame."""

HEADERS = {
    "content-security-policy": _RULES,
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class _Asset:
    body: bytes
    type: str
    tag: str


def page_routes() -> APIRouter:
    """The page at ``/``, its files beside it. They are read once: no request names a path on the disk."""
    router = APIRouter(include_in_schema=False)
    assets = {path: _asset(path, file) for path, file in _walk(files("selfee.serve") / "web", "")}
    for path, asset in assets.items():
        router.add_api_route(f"/{path}", _sender(asset), methods=["GET", "HEAD"])
        if path == "index.html":
            router.add_api_route("/", _sender(asset), methods=["GET", "HEAD"])
    return router


def _walk(folder: Traversable, path: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        name = f"{path}{entry.name}"
        if entry.is_dir():
            found += _walk(entry, f"{name}/")
        elif any(name.endswith(ending) for ending in _TYPES):
            found.append((name, entry))
    return found


def _asset(path: str, file: Traversable) -> _Asset:
    body = file.read_bytes()
    kind = next(kind for ending, kind in _TYPES.items() if path.endswith(ending))
    return _Asset(body, f"{kind}; charset=utf-8", f'"{hashlib.sha256(body).hexdigest()[:20]}"')


def _sender(asset: _Asset) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        headers = HEADERS | {"etag": asset.tag}
        if asset.tag in (tag.strip() for tag in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=headers)
        return Response(asset.body, headers=headers, media_type=asset.type)

    return send
