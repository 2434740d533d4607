"""The machine's own limits, measured by a small program that is compiled when it is first needed.

python -m benchmarks.limits [--threads 1 --threads 2]
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "limits.cpp"
PARTS = ("memory", "caches", "compute")


@functools.cache
def program() -> Path:
    """The compiled program; kept in a private folder under the system's temporary one, by the hash of its source."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        sys.exit("benchmarks.limits: no C++ compiler; expected one as CXX or c++; install g++ or clang")
    folder = Path(tempfile.gettempdir()) / f"selfee-limits-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        sys.exit(f"{folder}: belongs to someone else; remove it")
    path = folder / hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}")
        flags = ["-O3", "-std=c++20", "-march=native", "-pthread"]
        subprocess.run([compiler, *flags, str(SOURCE), "-o", str(part)], check=True)
        part.rename(path)
    return path


def measure(threads: int, *parts: str) -> dict[str, float]:
    """Figures by name and unit.

    ``parts``: some of ``PARTS``, or sizes of buffers to be read, as "1048576" (named "1048576 bytes GB/s"); none for
    all of ``PARTS``. Each takes about a second.
    """
    done = subprocess.run([str(program()), str(threads), *parts], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
