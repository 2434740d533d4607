"""What a check found."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # it works; something could be better
    BROKEN = "broken"  # something that is needed does not work


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report; ``facts`` are the same in JSON, with names that stay."""

    topic: str
    text: str
    level: Level = Level.OK
    advice: str = ""  # what to do about it
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "topic": self.topic,
            "level": self.level.value,
            "text": self.text,
            "advice": self.advice or None,
            "facts": self.facts,
        }
