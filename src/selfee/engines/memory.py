"""Whether a model and its cache fit into memory, said before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from selfee.errors import ResourceError

_GIB = 1 << 30
_PACKED_SHARE = 0.9  # of the free memory: unlike mapped weights, packed ones cannot be dropped when others need room


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes this process may still use: by the kernel's estimate and the control group's limit; None = unknown.

    Linux: ``MemAvailable`` of proc(5), ``memory.max`` - ``memory.current`` of cgroup v2 or their v1 names. Cached
    file pages count as used by a control group although they can be dropped, so its ``inactive_file`` is added back.
    """
    found = [value for value in (_from_meminfo(root), _from_cgroup(root)) if value is not None]
    return min(found, default=None)


def require_memory(where: str, need: int, have: int | None, advice: str) -> None:
    """Raise ResourceError if ``need`` bytes exceed ``have`` (unknown: nothing is refused)."""
    if have is not None and need > have:
        raise ResourceError(f"{where}: needs {need / _GIB:.1f} GiB of memory, have {have / _GIB:.1f}; {advice}")


def has_room_to_pack(need: int, have: int | None) -> bool:
    """Whether weights that need ``need`` bytes with all else may be copied into a layout of the kernels' own."""
    return have is None or need <= _PACKED_SHARE * have


def _from_meminfo(root: Path) -> int | None:
    value = _fields(root / "proc/meminfo").get("MemAvailable:")
    return None if value is None else value * 1024


def _from_cgroup(root: Path) -> int | None:
    groups = (
        ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for folder, limit_name, used_name, reclaimable_name in groups:
        limit, used = (_number(root / folder / name) for name in (limit_name, used_name))
        if limit is not None and used is not None:
            reclaimable = _fields(root / folder / "memory.stat").get(reclaimable_name, 0)
            return max(0, limit - used + reclaimable)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _fields(path: Path) -> dict[str, int]:
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) >= 2 and row[1].isdecimal()}
