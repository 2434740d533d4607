"""The application: routes over models, errors in one form, everything checked before it gets here."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from selfee import __version__
from selfee.errors import SelfeeError
from selfee.serve.config import ServerConfig
from selfee.serve.general import error_response, general_routes
from selfee.serve.guard import LOG, Guard
from selfee.serve.native.routes import native_routes
from selfee.serve.openai.chat import chat_routes
from selfee.serve.openai.completions import completion_routes
from selfee.serve.openai.responses import response_routes
from selfee.serve.openapi import describe
from selfee.serve.page import page_routes
from selfee.serve.protocol.errors import ApiError, from_selfee
from selfee.serve.service import Served, Service


def make_app(config: ServerConfig, models: Sequence[Served]) -> FastAPI:
    """The application that serves these models; they are started and closed with it.

    ``app.state.service`` is what its routes share.
    """
    service = Service(config, models)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(title="selfee", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    add_error_handlers(app)
    for routes in (general_routes, native_routes, chat_routes, completion_routes, response_routes):
        app.include_router(routes(service))
    describe(app)
    app.include_router(page_routes())
    app.add_middleware(Guard, config=config, metrics=service.metrics)
    return app


def add_error_handlers(app: FastAPI) -> None:
    """Have every error told in one form."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(SelfeeError, _selfee_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError), "registered so"
    return error_response(error)


async def _selfee_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SelfeeError), "registered so"
    return error_response(from_selfee(error))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered so"
    found = {404: "there is nothing here", 405: f"{request.method} is not possible here"}.get(error.status_code)
    message = f"{request.url.path[:200]}: {found or error.detail}; see /openapi.json for what there is"
    code = "not_found" if error.status_code == 404 else None
    return error_response(ApiError(error.status_code, message, code=code, headers=dict(error.headers or {})))


async def _unexpected(request: Request, error: Exception) -> Response:
    """A defect of ours: where it is goes to the log, but not what it says, which may hold somebody's words."""
    place = traceback.extract_tb(error.__traceback__)[-1] if error.__traceback__ else None
    where = f"{place.filename}:{place.lineno}" if place else "?"
    LOG.error("defect", extra={"facts": {"kind": type(error).__name__, "where": where}})
    return error_response(
        ApiError(500, "server: an unexpected error; please report it", "server_error", code="internal_error")
    )
