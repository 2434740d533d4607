"""What all requests have in common: strict types, and fields that nobody knows are told and not silently dropped."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MOST_STOPS = 32
LONGEST_STOP = 1000  # characters
MOST_TOKENS = 1 << 20

Temperature = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
TokenLimit = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Rounds = Annotated[int, Field(ge=0, le=99)]
StopText = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Stops = StopText | Annotated[list[StopText], Field(max_length=MOST_STOPS)]


class Fields(BaseModel):
    """A JSON object; a number written as a string is not a number, true is not 1."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())

    def unknown_fields(self, prefix: str = "") -> list[str]:
        """Dotted names of fields that no one looks at, here and in the objects within."""
        names = [prefix + name for name in self.model_extra or {}]
        for name in type(self).model_fields:
            names += _unknown_in(getattr(self, name), f"{prefix}{name}")
        return names


def _unknown_in(value: Any, where: str) -> list[str]:
    if isinstance(value, Fields):
        return value.unknown_fields(where + ".")
    if isinstance(value, list) and value and isinstance(value[0], Fields):
        return [name for number, item in enumerate(value) for name in _unknown_in(item, f"{where}[{number}]")]
    return []


class SamplingFields(Fields):
    """How tokens are drawn; what is left out is as the server was started."""

    temperature: Temperature | None = Field(None, description="0 = always the most likely token.")
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = Field(None, description="0 = all tokens.")
    min_p: Share | None = None
    typical_p: Share | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: Seed | None = Field(None, description="The same seed and settings give the same text.")
    stop: Stops | None = Field(None, description="Ends answers and revisions, never feedback.")

    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
