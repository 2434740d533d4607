"""Memory is counted as the kernel and the control group count it."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfee.engines.memory import available_memory, require_memory
from selfee.errors import ResourceError


def lay(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal: 4000 kB\nMemAvailable: 3000 kB\n"


def test_without_a_control_group_the_kernel_is_believed(tmp_path: Path) -> None:
    root = lay(tmp_path, proc__meminfo=MEMINFO, sys__fs__cgroup__memory_DOT_max="max\n")
    assert available_memory(root) == 3000 * 1024


def test_a_control_group_may_allow_less_and_its_dropped_pages_count_as_free(tmp_path: Path) -> None:
    files = {"max": "1000000\n", "current": "800000\n", "stat": "anon 5\ninactive_file 100000\n"}
    named = {f"sys__fs__cgroup__memory_DOT_{name}": text for name, text in files.items()}
    assert available_memory(lay(tmp_path, proc__meminfo=MEMINFO, **named)) == 300_000


def test_the_older_names_are_read_too(tmp_path: Path) -> None:
    folder = "sys__fs__cgroup__memory__memory_DOT_"
    files = {f"{folder}limit_in_bytes": "1000\n", f"{folder}usage_in_bytes": "1200\n"}
    assert available_memory(lay(tmp_path, **files)) == 0


def test_an_unknown_system_refuses_nothing(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    require_memory("m.gguf", 1 << 60, None, "buy more")


def test_too_little_memory_says_both_numbers_and_what_to_do() -> None:
    with pytest.raises(ResourceError, match=r"m\.gguf: needs 9\.9 GiB of memory, have 7\.4; try -c 1024"):
        require_memory("m.gguf", int(9.9 * 2**30), int(7.4 * 2**30), "try -c 1024")
    require_memory("m.gguf", 5, 5, "")
