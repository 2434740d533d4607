"""The control groups (Linux) that this process is in: what they allow it of memory and processors.

A group may be nested: a limit of any group above holds too. In a container the own group usually is the root of what
can be seen; under systemd, for one, it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MOUNT = "sys/fs/cgroup"
_UNLIMITED = 1 << 60  # version 1 writes a number near 2^63 where there is no limit


@dataclass(frozen=True)
class MemoryGroup:
    """Bytes that a group allows, and that are still free; cached file pages, which can be dropped, count as free."""

    limit: int
    free: int


def memory_groups(root: Path = Path("/")) -> list[MemoryGroup]:
    """Every group with a limit that holds for this process."""
    found = []
    for folder, is_second in _folders(root, "memory"):
        names = ("memory.max", "memory.current", "inactive_file")
        if not is_second:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used = read_number(folder / names[0]), read_number(folder / names[1])
        if limit is not None and used is not None and limit < _UNLIMITED:
            reclaimable = read_fields(folder / "memory.stat").get(names[2], 0)
            found.append(MemoryGroup(limit, max(0, limit - used + reclaimable)))
    return found


def processor_quota(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that the groups allow, at most; None where there is no limit."""
    found = []
    for folder, is_second in _folders(root, "cpu"):
        if is_second:
            quota, _, period = read_text(folder / "cpu.max").strip().partition(" ")
        else:
            quota, period = (read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def read_text(path: Path) -> str:
    """A small file of the kernel's; empty where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """The number that a file consists of; None if it is none ("max")."""
    text = read_text(path).strip()
    return int(text) if text.isdecimal() else None


def read_fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number, by name."""
    rows = (line.split() for line in read_text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) >= 2 and row[1].isdecimal()}


def _folders(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Folders of the own group and those above, once as of version 2 (True), once as of version 1 (False)."""
    second, first = "", ""
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            second = path
        elif controller in controllers.split(","):
            first = path
    for top, own, is_second in ((root / _MOUNT, second, True), (root / _MOUNT / controller, first, False)):
        parts = [part for part in own.split("/") if part]
        if ".." in parts:
            parts = []  # a group outside of what this process can see
        for count in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:count]), is_second
