"""Events of a chain, or of several attempts, as plain JSON values: the lines of ``--jsonl``."""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import Any

from selfee.chain.record import samples_to_json, to_json
from selfee.chain.samples import Sampled, SamplesFinished
from selfee.chain.types import ChainFinished, Event


def plain_event(event: Event | Sampled | SamplesFinished) -> dict[str, Any]:
    """An event as one object; ``event`` names its kind, ``attempt`` the attempt it belongs to, if there are several.

    The last holds what ``--json`` prints.
    """
    if isinstance(event, Sampled):
        return {"attempt": event.attempt} | plain_event(event.event)
    if isinstance(event, SamplesFinished):
        return {"event": "samples_finished", "samples": samples_to_json(event.samples)}
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
    if isinstance(event, ChainFinished):
        return {"event": kind, "chain": to_json(event.chain)}
    return {"event": kind} | {field.name: _plain(getattr(event, field.name)) for field in dataclasses.fields(event)}


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
