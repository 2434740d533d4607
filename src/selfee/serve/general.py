"""Routes that every server has: its models, its health, its figures, and what its tokens are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from selfee.serve.protocol.errors import ApiError
from selfee.serve.protocol.fields import Fields
from selfee.serve.protocol.native import Text
from selfee.serve.service import Served, Service

Token = Annotated[int, Field(ge=0, lt=1 << 31)]


class TokenizeRequest(Fields):
    """A text whose tokens are wanted."""

    model: Annotated[str, Field(max_length=512)] | None = None
    prompt: Text
    add_special_tokens: bool = Field(True, description="With the token that begins a text, as prompts have.")
    return_token_strs: bool = False


class DetokenizeRequest(Fields):
    """Tokens whose text is wanted."""

    model: Annotated[str, Field(max_length=512)] | None = None
    tokens: Annotated[list[Token], Field(max_length=1 << 17)]


def general_routes(service: Service) -> APIRouter:
    """Routes over a service."""
    router = APIRouter(tags=["general"])

    @router.head("/v1/models", include_in_schema=False)
    @router.get("/v1/models", operation_id="list_models")
    async def models() -> Response:
        """The models that are served."""
        return JSONResponse({"object": "list", "data": [model_object(model) for model in service.models]})

    @router.head("/v1/models/{model_id:path}", include_in_schema=False)
    @router.get("/v1/models/{model_id:path}", operation_id="retrieve_model")
    async def model(model_id: str) -> Response:
        """One model; a suffix of its name means the same model."""
        found, _ = service.find(model_id)
        return JSONResponse(model_object(found) | {"id": model_id})

    @router.head("/health", include_in_schema=False)
    @router.get("/health", operation_id="health")
    async def health() -> Response:
        """Whether questions can be answered now."""
        if service.is_ready:
            return JSONResponse({"status": "ok"})
        status = "stopping" if service.is_stopping else "loading"
        return JSONResponse({"status": status}, 503, {"retry-after": "2"})

    if service.config.metrics:

        @router.get("/metrics", operation_id="metrics")
        async def metrics() -> Response:
            """Figures for Prometheus."""
            return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    _add_tokens(router, service)
    return router


def _add_tokens(router: APIRouter, service: Service) -> None:
    @router.post("/tokenize", operation_id="tokenize")
    async def tokenize(request: Request) -> Response:
        """The tokens of a text."""
        asked = await service.read(request, TokenizeRequest)
        model, _ = service.find(asked.model)
        found = await model.backend.tokenize(asked.prompt, add_special=asked.add_special_tokens)
        tokens = [token for token, _ in found]
        row: dict[str, Any] = {
            "count": len(tokens),
            "max_model_len": model.backend.info.context_length,
            "tokens": tokens,
        }
        return JSONResponse(row | {"token_strs": [piece for _, piece in found] if asked.return_token_strs else None})

    @router.post("/detokenize", operation_id="detokenize")
    async def detokenize(request: Request) -> Response:
        """The text of tokens."""
        asked = await service.read(request, DetokenizeRequest)
        model, _ = service.find(asked.model)
        return JSONResponse({"prompt": await model.backend.detokenize(asked.tokens)})

    @router.get("/tokenizer_info", operation_id="tokenizer_info")
    async def tokenizer_info(model: str | None = None) -> Response:
        """What benchmarks want to know of a tokenizer."""
        found, _ = service.find(model)
        first = await found.backend.tokenize("a", add_special=True)
        plain = await found.backend.tokenize("a", add_special=False)
        begins = [piece for _, piece in first[: len(first) - len(plain)]]
        info: dict[str, Any] = {"tokenizer_class": "selfee", "model_max_length": found.backend.info.context_length}
        info |= {"add_bos_token": bool(begins), "bos_token": begins[0] if begins else None, "chat_template": None}
        return JSONResponse(info | {"eos_token": found.backend.info.end_text})


def model_object(model: Served) -> dict[str, Any]:
    """A model as OpenAI's object, with what else may be known."""
    info = model.backend.info
    return {
        "id": info.name,
        "object": "model",
        "created": info.created,
        "owned_by": "selfee",
        "max_model_len": info.context_length,
        "selfee": {
            "mode": info.mode,
            "parallel": info.parallel,
            "min_revisions": model.defaults.policy.min_revisions,
            "max_revisions": model.defaults.policy.max_revisions,
            "temperature": model.defaults.params.temperature,
        },
    }


def error_response(error: ApiError) -> Response:
    """An error as an answer."""
    return JSONResponse(error.body, error.status, dict(error.headers))
