"""The application: routes over a backend, errors in one form, everything checked before it gets here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from selfee import __version__
from selfee.errors import SelfeeError
from selfee.serve.config import ServerConfig
from selfee.serve.engine.backend import Backend
from selfee.serve.native.routes import native_routes
from selfee.serve.page import page_routes
from selfee.serve.protocol.errors import ApiError, from_selfee
from selfee.serve.service import Service


def make_app(config: ServerConfig, backend: Backend) -> FastAPI:
    """The application that serves ``backend``; started and closed with it."""
    service = Service(config, backend)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await backend.start()
        yield
        await service.chains.close()
        await backend.close()

    app = FastAPI(title="selfee", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(SelfeeError, _selfee_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.include_router(native_routes(service))
    _add_models(app, service)
    app.include_router(page_routes())
    return app


def _add_models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", operation_id="list_models")
    async def models() -> Response:
        """The models that are served."""
        info = service.backend.info
        row = {"id": info.name, "object": "model", "created": info.created, "owned_by": "selfee"}
        return JSONResponse({"object": "list", "data": [row]})

    @app.get("/health", operation_id="health")
    async def health() -> Response:
        """Whether questions can be answered."""
        ready = service.backend.is_ready
        return JSONResponse({"status": "ok" if ready else "loading"}, status_code=200 if ready else 503)


def error_response(error: ApiError) -> Response:
    """An error as an answer."""
    return JSONResponse(error.body, status_code=error.status, headers=dict(error.headers))


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
