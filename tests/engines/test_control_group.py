"""Control groups as the kernel shows them: nested, of both versions, and of neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfee.engines.control_group import MemoryGroup, memory_groups, processor_quota
from selfee.engines.memory import available_memory, memory_state


def lay(root: Path, files: dict[str, str]) -> Path:
    """A system's files by path."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


OWN = "sys/fs/cgroup/user.slice/run-1.scope"


def test_a_group_below_the_root_limits_too(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/user.slice/run-1.scope\n", "proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8 kB\n"}
    limits = {f"{OWN}/memory.max": "5000\n", f"{OWN}/memory.current": "3000\n"}
    above = {"sys/fs/cgroup/user.slice/memory.max": "4500\n", "sys/fs/cgroup/user.slice/memory.current": "4000\n"}
    root = lay(tmp_path, files | limits)
    assert memory_groups(root) == [MemoryGroup(5000, 2000)]
    assert available_memory(root) == 2000
    state = memory_state(lay(tmp_path, above))
    assert (state.group_limit, state.group_free, state.usable) == (4500, 500, 500)
    assert (state.total, state.available) == (9 * 1024, 8 * 1024)


def test_version_1_names_its_groups_by_controller(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/box"
    limits = {f"{folder}/memory.limit_in_bytes": "900\n", f"{folder}/memory.usage_in_bytes": "100\n"}
    root = lay(tmp_path, limits | {"proc/self/cgroup": "4:cpu,cpuacct:/other\n3:memory:/box\n"})
    assert memory_groups(root) == [MemoryGroup(900, 800)]


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", ""])
def test_no_limit_is_none(tmp_path: Path, limit: str) -> None:
    folder = "sys/fs/cgroup/memory"
    limits = {f"{folder}/memory.limit_in_bytes": limit, f"{folder}/memory.usage_in_bytes": "100\n"}
    assert memory_groups(lay(tmp_path, limits)) == []


def test_a_group_that_cannot_be_seen_is_passed_over(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/../../outside\n", "outside/memory.max": "1\n", "outside/memory.current": "1\n"}
    assert memory_groups(lay(tmp_path, files)) == []


def test_the_smallest_share_of_processors_counts(tmp_path: Path) -> None:
    assert processor_quota(tmp_path) is None
    root = lay(tmp_path, {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"})
    assert processor_quota(root) is None
    assert processor_quota(lay(tmp_path, {"sys/fs/cgroup/a/cpu.max": "150000 100000\n"})) == 1.5
    first = {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}
    assert processor_quota(lay(tmp_path, first)) == 0.5
