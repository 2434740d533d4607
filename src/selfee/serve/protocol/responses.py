"""Responses: what a request may hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from selfee.serve.protocol.chat import ChatMessage, OpenAiFields, Part, ReasoningEffort, ResponseFormat, SelfeeOptions
from selfee.serve.protocol.errors import ApiError
from selfee.serve.protocol.fields import Fields, TokenLimit
from selfee.serve.protocol.native import Text

_REFUSED = ("conversation", "prompt", "max_tool_calls", "moderation", "context_management")


class InputItem(Fields):
    """A message of the conversation, or reasoning of an earlier answer, which is dropped."""

    type: Annotated[str, Field(max_length=64)] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Text | Annotated[list[Part], Field(max_length=1024)] | None = None

    def unknown_fields(self, prefix: str = "") -> list[str]:
        """None: items of earlier answers hold much that is only theirs."""
        return []


class Reasoning(Fields):
    """How much to reason: how many revisions at most."""

    effort: ReasoningEffort | None = None
    summary: Annotated[str, Field(max_length=32)] | None = None
    generate_summary: Annotated[str, Field(max_length=32)] | None = None


class TextOptions(Fields):
    """In what form the answer comes."""

    format: ResponseFormat | None = None
    verbosity: Annotated[str, Field(max_length=32)] | None = None


class ResponsesOptions(SelfeeOptions):
    """How the chain is made and shown."""

    items: Annotated[Literal["reasoning", "messages"], Field(description="As what drafts and feedback are told.")] = (
        "reasoning"
    )


class ResponsesRequest(OpenAiFields):
    """A request for a response."""

    input: Text | Annotated[list[InputItem], Field(min_length=1, max_length=4096)]
    instructions: Text | None = None
    max_output_tokens: TokenLimit | None = Field(None, description="What the whole chain may generate.")
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=1024)] | None = None
    tool_choice: Any = None
    previous_response_id: Annotated[str, Field(max_length=512)] | None = None
    background: bool | None = None
    include: Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=64)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] | None = None
    selfee: ResponsesOptions | None = None

    def check(self) -> None:
        """Raise ApiError (400) for what cannot be done."""
        if self.previous_response_id is not None:
            raise ApiError.refused(
                "previous_response_id", "responses are not kept here; expected the conversation as input"
            )
        if self.background:
            raise ApiError.refused("background", "cannot be done here; expected false; the native API resumes streams")
        for name in _REFUSED:
            if (self.model_extra or {}).get(name) is not None:
                raise ApiError.refused(name, "cannot be done by this server; expected it to be left out")
        if self.tools and self.tool_choice != "none":
            raise ApiError.refused("tools", "cannot be called by this server; expected none, or tool_choice 'none'")
        if self.top_logprobs:
            raise ApiError.refused(
                "top_logprobs", "are not told for chains, whose texts are edited; use /v1/completions"
            )

    @property
    def schema_text(self) -> str | None:
        """See ``ResponseFormat.schema_text``."""
        form = None if self.text is None else self.text.format
        return None if form is None else form.schema_text("text.format")

    def messages(self) -> list[ChatMessage]:
        """The conversation. Raises ApiError (400) for items that cannot be read."""
        found = [ChatMessage(role="system", content=self.instructions)] if self.instructions else []
        items = self.input
        if isinstance(items, str):
            return [*found, ChatMessage(role="user", content=items)]
        for number, item in enumerate(items):
            where = f"input[{number}]"
            if item.type == "reasoning":
                continue
            if item.type != "message":
                raise ApiError.refused(f"{where}.type", f"{item.type[:40]!r} cannot be read; expected message")
            if item.role is None:
                raise ApiError(400, f"{where}.role: is missing; expected user", param=f"{where}.role")
            message = ChatMessage(role=item.role, content=item.content)
            message.check(where)
            found.append(message)
        return found
