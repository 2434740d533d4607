"""Chat completions: what a request may hold, and the objects of its answer."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from selfee.serve.protocol.errors import ApiError
from selfee.serve.protocol.fields import Fields, Rounds, SamplingFields, TokenLimit
from selfee.serve.protocol.native import ModeName, Text

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORT_ROUNDS = {"none": 0, "minimal": 0, "low": 1, "medium": 1, "high": 2, "xhigh": 3, "max": 5}
"""How many revisions at most an effort means."""

_REFUSED = ("audio", "web_search_options", "moderation", "function_call")
_IN_HISTORY = frozenset(
    (
        "refusal",
        "audio",
        "annotations",
        "tool_calls",
        "function_call",
        "reasoning",
        "reasoning_content",
        "selfee",
        "name",
    )
)


class Part(Fields):
    """A piece of a message; only texts can be read."""

    type: Annotated[str, Field(max_length=64)]
    text: Text | None = None
    refusal: Text | None = None


class ChatMessage(Fields):
    """One turn. Reasoning in earlier answers is dropped: the next turn sees final answers."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(max_length=1024)] | None = None

    def check(self, where: str) -> None:
        """Raise ApiError (400) for content that cannot be read."""
        if self.content is None and self.role != "assistant":
            raise ApiError(400, f"{where}.content: is missing; expected a text", param=f"{where}.content")
        for number, part in enumerate(self.content if isinstance(self.content, list) else ()):
            name = f"{where}.content[{number}]"
            if part.type not in ("text", "input_text", "output_text", "refusal"):
                raise ApiError.refused(f"{name}.type", f"{part.type[:40]!r} cannot be read; expected text")
            if part.text is None and part.refusal is None:
                raise ApiError(400, f"{name}.text: is missing; expected a text", param=f"{name}.text")

    @property
    def text(self) -> str:
        """All of its text."""
        if isinstance(self.content, list):
            return "".join(part.text or part.refusal or "" for part in self.content)
        return self.content or ""

    def unknown_fields(self, prefix: str = "") -> list[str]:
        """See ``Fields.unknown_fields``; what other servers put into answers comes back with them."""
        return [name for name in super().unknown_fields(prefix) if name.rpartition(".")[2] not in _IN_HISTORY]


class StreamOptions(Fields):
    """What a stream holds beside the text."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class SelfeeOptions(Fields):
    """How the chain is made and shown."""

    mode: Literal["auto", "enforce", "off"] | None = None
    min_revisions: Rounds | None = None
    max_revisions: Rounds | None = None
    view: Literal["final", "raw", "inline"] | None = None
    drive: Annotated[ModeName | None, Field(description="How the model is driven.")] = None
    prompts: Annotated[str, Field(max_length=64)] | None = None


LONGEST_SCHEMA = 1 << 16  # characters


class NamedSchema(Fields):
    """A JSON schema and what it is called."""

    name: Annotated[str, Field(max_length=64)] | None = None
    description: Text | None = None
    strict: bool | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class ResponseFormat(NamedSchema):
    """In what form the answer comes; the schema stands in ``json_schema`` (chat), or here (responses)."""

    type: Annotated[str, Field(max_length=64)]
    json_schema: NamedSchema | None = None

    def schema_text(self, where: str) -> str | None:
        """The JSON schema that answers must satisfy; None = they are texts. Raises ApiError (400)."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return '{"type": "object"}'
        if self.type != "json_schema":
            known = "expected text, json_object or json_schema"
            raise ApiError.refused(where, f"{self.type[:40]!r} cannot be had; {known}")
        schema = self.schema_ if self.json_schema is None else self.json_schema.schema_
        if schema is None:
            raise ApiError(400, f"{where}: holds no schema; expected one", param=where, code="invalid_value")
        text = json.dumps(schema)
        if len(text) > LONGEST_SCHEMA:
            found = f"{where}: the schema has {len(text)} characters; expected at most {LONGEST_SCHEMA}"
            raise ApiError(400, found, param=where, code="invalid_value")
        return text


class OpenAiFields(SamplingFields):
    """What chat completions and responses share."""

    model: Annotated[str, Field(max_length=512)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    selfee: SelfeeOptions | None = None


class ChatRequest(OpenAiFields):
    """A request for chat completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = Field(None, description="What the whole chain may generate.")
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    logprobs: bool | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    reasoning_effort: ReasoningEffort | None = Field(None, description="How many revisions at most.")
    response_format: ResponseFormat | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=1024)] | None = None
    tool_choice: Any = None
    functions: Annotated[list[dict[str, Any]], Field(max_length=1024)] | None = None
    modalities: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=8)] | None = None

    @property
    def limit(self) -> int | None:
        """Tokens that may be generated."""
        return self.max_completion_tokens or self.max_tokens

    def check(self) -> None:
        """Raise ApiError (400) for what cannot be done."""
        for number, message in enumerate(self.messages):
            message.check(f"messages[{number}]")
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            found = f"max_tokens: is {both[0]}, and max_completion_tokens {both[1]}; expected one of them"
            raise ApiError(400, found, param="max_tokens")
        if (self.tools or self.functions) and self.tool_choice != "none":
            name = "tools" if self.tools else "functions"
            raise ApiError.refused(name, "cannot be called by this server; expected none, or tool_choice 'none'")
        if self.logprobs or self.top_logprobs:
            name = "logprobs" if self.logprobs else "top_logprobs"
            raise ApiError.refused(name, "are not told for chains, whose texts are edited; use /v1/completions")
        if any(modality != "text" for modality in self.modalities or ()):
            raise ApiError.refused("modalities", "only text can be had; expected ['text']")
        for name in _REFUSED:
            if (self.model_extra or {}).get(name) is not None:
                raise ApiError.refused(name, "cannot be done by this server; expected it to be left out")

    @property
    def schema_text(self) -> str | None:
        """See ``ResponseFormat.schema_text``."""
        return None if self.response_format is None else self.response_format.schema_text("response_format")

    def biases(self) -> dict[int, float]:
        """Token -> bias. Raises ApiError (400) for a name that is no token."""
        return read_biases(self.logit_bias)


def read_biases(given: dict[str, float] | None) -> dict[int, float]:
    """Token -> bias; -100 bans a token. Raises ApiError (400) for a name that is no token."""
    biases = {}
    for name, bias in (given or {}).items():
        if not (name.isascii() and name.isdigit() and len(name) < 10):
            raise ApiError(400, f"logit_bias: {name[:40]!r} is no token; expected a number", param="logit_bias")
        biases[int(name)] = bias
    return biases
