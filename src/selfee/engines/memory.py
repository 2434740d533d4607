"""Whether a model and its cache fit into memory, said before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfee.engines.control_group import memory_groups, read_fields
from selfee.errors import ResourceError

_GIB = 1 << 30
_PACKED_SHARE = 0.9  # of the free memory: unlike mapped weights, packed ones cannot be dropped when others need room


@dataclass(frozen=True)
class MemoryState:
    """Bytes; None where the system does not say."""

    total: int | None  # of the machine
    available: int | None  # without swapping, by the kernel's estimate
    group_limit: int | None  # the smallest limit of the control groups that this process is in
    group_free: int | None  # the least that any of them still allows

    @property
    def usable(self) -> int | None:
        """What this process may still use."""
        return min((value for value in (self.available, self.group_free) if value is not None), default=None)


def memory_state(root: Path = Path("/")) -> MemoryState:
    """What this machine has, and what it allows this process.

    Linux: ``MemAvailable`` of proc(5), ``memory.max`` - ``memory.current`` of cgroup v2 or their v1 names, of the own
    group and all above. Cached file pages count as used by a control group although they can be dropped, so its
    ``inactive_file`` is added back.
    """
    fields = read_fields(root / "proc/meminfo")
    total, available = (fields.get(name) for name in ("MemTotal:", "MemAvailable:"))
    groups = memory_groups(root)
    return MemoryState(
        total=None if total is None else total * 1024,
        available=None if available is None else available * 1024,
        group_limit=min((group.limit for group in groups), default=None),
        group_free=min((group.free for group in groups), default=None),
    )


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes this process may still use: the kernel's estimate or what control groups allow, if less; None = unknown."""
    return memory_state(root).usable


def require_memory(where: str, need: int, have: int | None, advice: str) -> None:
    """Raise ResourceError if ``need`` bytes exceed ``have`` (unknown: nothing is refused)."""
    if have is not None and need > have:
        raise ResourceError(f"{where}: needs {need / _GIB:.1f} GiB of memory, have {have / _GIB:.1f}; {advice}")


def has_room_to_pack(need: int, have: int | None) -> bool:
    """Whether weights that need ``need`` bytes with all else may be copied into a layout of the kernels' own."""
    return have is None or need <= _PACKED_SHARE * have
