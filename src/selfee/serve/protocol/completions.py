"""Completions: plain continuations of a text, or of tokens."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from selfee.serve.protocol.chat import OpenAiFields, read_biases
from selfee.serve.protocol.errors import ApiError
from selfee.serve.protocol.fields import MOST_TOKENS
from selfee.serve.protocol.native import Text

Token = Annotated[int, Field(ge=0, lt=1 << 31)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=1 << 17)]
MOST_PROMPTS = 128
MOST_LOGPROBS = 100


class CompletionRequest(OpenAiFields):
    """A request for completions; several prompts are continued each."""

    prompt: (
        Text
        | Tokens
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    max_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    suffix: Text | None = None

    def prompts(self) -> list[str | tuple[int, ...]]:
        """Each prompt, as a text or as tokens."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        items: list[Any] = list(prompt)
        if isinstance(items[0], int):
            return [tuple(items)]
        return [each if isinstance(each, str) else tuple(each) for each in items]

    def biases(self) -> dict[int, float]:
        """Token -> bias. Raises ApiError (400) for a name that is no token."""
        return read_biases(self.logit_bias)

    def check(self) -> None:
        """Raise ApiError (400) for what cannot be done."""
        if self.suffix:
            raise ApiError.refused("suffix", "a text between two others cannot be had; expected none")
        best, count = self.best_of or self.n or 1, self.n or 1
        if best < count:
            raise ApiError(400, f"best_of: {best} is less than n, {count}; expected at least as many", param="best_of")
        if best > count and self.stream:
            raise ApiError(400, "best_of: cannot be streamed; expected as many as n", param="best_of")
        if self.top_logprobs is not None:
            raise ApiError.refused("top_logprobs", "belongs to chat completions; expected logprobs")
        if self.max_tokens == 0 and not self.echo:
            raise ApiError(400, "max_tokens: 0; expected 1 or more, or echo", param="max_tokens")

    def check_loop(self) -> None:
        """Raise ApiError (400) for what cannot be done where the text is revised."""
        if not isinstance(self.prompt, str):
            raise ApiError(400, "prompt: is not one text; expected one beside selfee", param="prompt")
        if self.logprobs is not None:
            raise ApiError.refused("logprobs", "are not told for chains, whose texts are edited; leave selfee out")
        if (self.best_of or 0) > (self.n or 1):
            raise ApiError.refused("best_of", "of several chains none is the likeliest; expected as many as n")
        if self.max_tokens == 0:
            raise ApiError(400, "max_tokens: 0; expected 1 or more beside selfee", param="max_tokens")
