"""What calls cost: from the user, or from the price list of genai-prices."""

from __future__ import annotations

import math
from dataclasses import dataclass

from selfee.engines.base import ChatRequest, Request, Usage
from selfee.errors import MissingExtraError, UsageError

CHARACTERS_PER_TOKEN = 4.0
"""Where a server tells no usage. Of English with today's vocabularies; code and other languages take more tokens."""

_MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens."""

    input: float
    output: float
    cached_input: float | None = None  # for prompt tokens that were in the server's cache; None = as ``input``
    source: str = "given"

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"price: {name} is {value}; expected dollars for a million tokens, 0 or more")

    def of(self, usage: Usage) -> float:
        """What a call with this usage costs."""
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh = usage.prompt_tokens - cached
        return (fresh * self.input + cached * cached_price + usage.completion_tokens * self.output) / _MILLION


def find_price(model: str, address: str = "") -> Price | None:
    """The list price of a model of a provider, or None if the list does not know it.

    Raises MissingExtraError if the list is not installed. Prices that depend on the length of a prompt count as for
    short ones.
    """
    try:
        import genai_prices
    except ImportError as error:
        raise MissingExtraError(
            "prices: the price list is not installed; install it with: pip install 'selfee[data]', or give "
            "--price-in and --price-out"
        ) from error
    usage = genai_prices.Usage(input_tokens=_SOME, output_tokens=_SOME)
    cached = genai_prices.Usage(input_tokens=_SOME, cache_read_tokens=_SOME, output_tokens=_SOME)
    try:
        found = genai_prices.calc_price(usage, model_ref=model, provider_api_url=address or None)
        with_cache = genai_prices.calc_price(cached, model_ref=model, provider_api_url=address or None)
    except LookupError:
        return None
    source = f"genai-prices: {found.provider.id}/{found.model.id}"
    per_token = _MILLION / _SOME
    return Price(
        input=float(found.input_price) * per_token,
        output=float(found.output_price) * per_token,
        cached_input=float(with_cache.input_price) * per_token,
        source=source,
    )


_SOME = 1000


def estimate_tokens(text: str) -> int:
    """Tokens of a text, reckoned from its length."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def estimate_prompt(request: Request | ChatRequest) -> int:
    """Tokens of what is asked, reckoned from its length; a few for the marks around each message."""
    if isinstance(request, Request):
        return estimate_tokens(request.prompt)
    return sum(estimate_tokens(message.content) + 4 for message in request.messages)
