"""What commands that write model files share: sizes as people type them, rule sets by name."""

from __future__ import annotations

import enum
import re


class Rules(enum.Enum):
    """Whose decisions which tensor gets which type."""

    JUNE_6 = "2023-06-06"
    JUNE_5 = "2023-06-05"
    CURRENT = "current"


def parse_size(text: str, option: str) -> int:
    """Bytes of a size such as 700M, 1.2G or a number of bytes, in powers of 1000; ``option`` is named if it is none."""
    from selfee.errors import UsageError

    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ")) if found else 0
    if size < 1:
        raise UsageError(f"{option} '{text}': expected a size such as 700M, 1.2G or a number of bytes")
    return size
