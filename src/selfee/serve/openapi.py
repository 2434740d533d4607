"""What the server says of itself: an OpenAPI document with every request's fields and every error."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from selfee.serve.general import DetokenizeRequest, TokenizeRequest
from selfee.serve.protocol.chat import ChatRequest
from selfee.serve.protocol.completions import CompletionRequest
from selfee.serve.protocol.native import ControlRequest, NativeRequest
from selfee.serve.protocol.responses import ResponsesRequest

_BODIES: dict[str, type[BaseModel]] = {
    "create_chain": NativeRequest,
    "control_chain": ControlRequest,
    "create_chat_completion": ChatRequest,
    "create_completion": CompletionRequest,
    "create_response": ResponsesRequest,
    "tokenize": TokenizeRequest,
    "detokenize": DetokenizeRequest,
}
_STREAMS = ("create_chain", "listen_to_chain", "create_chat_completion", "create_completion", "create_response")
_ERRORS = {
    "create": ("400", "404", "408", "413", "415", "429", "502", "503"),
    "control": ("400", "404", "408", "409", "413", "415", "429", "503"),
    "tokenize": ("400", "404", "408", "413", "415", "502", "503"),
    "detokenize": ("400", "404", "408", "413", "415", "502", "503"),
    "tokenizer": ("400", "404", "502", "503"),
    "listen": ("400", "404", "410"),
    "get": ("404",),
    "retrieve": ("404",),
    "health": ("503",),
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def describe(app: FastAPI) -> None:
    """Have the application give out its document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    whole = get_openapi(title=app.title, version=app.version, routes=app.routes)
    _, schemas = models_json_schema(
        [(model, "validation") for model in _BODIES.values()], ref_template="#/components/schemas/{model}"
    )
    components = whole.setdefault("components", {})
    components.setdefault("schemas", {}).update(schemas.get("$defs", {}))
    components["schemas"]["Error"] = _ERROR
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    whole["security"] = [{}, {"key": []}]
    for path in whole["paths"].values():
        for method, operation in path.items():
            _complete(operation, method)
    return whole


def _complete(operation: dict[str, Any], method: str) -> None:
    name = operation["operationId"]
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)
    if name in _BODIES:
        schema = {"$ref": f"#/components/schemas/{_BODIES[name].__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if name in _STREAMS:
        # No schema: OpenAPI 3.1 has none for one event of a stream, and tools take any as that of an event.
        content["text/event-stream"] = {}
    if name == "metrics":
        content = {"text/plain": {"schema": {"type": "string"}}}
    responses["200"] = {"description": "Done"} | ({} if method == "head" else {"content": content})
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status in ("401", "403", "431", *_ERRORS.get(name.partition("_")[0], ())):
        responses[status] = {"description": "Refused"} | ({} if method == "head" else {"content": error})
