"""Run a command and print what it cost as one JSON object; needs nothing of selfee.

    python -S benchmarks/measured.py COMMAND [ARGUMENT ...]

Wall and processor seconds, the peak of its resident memory as the kernel counts it (mapped pages of files included),
and the peak of what was its own, sampled every 20 ms. A small process of its own starts the command because Linux
counts the memory of the one that starts it, too.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path


def own_bytes(process: int) -> int:
    """Resident memory that belongs to no file; 0 where the process has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    lines = [line.split() for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(lines[0][1]) * 1024 if lines else 0


def main() -> None:
    output = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, output, 1)]
    started = time.perf_counter()
    process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)
    peak, ended = 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, own_bytes(process))

    sampler = threading.Thread(target=sample)
    sampler.start()
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - started
    ended.set()
    sampler.join()
    figures = {"wall": wall, "user": usage.ru_utime, "system": usage.ru_stime}
    memory = {"peak": usage.ru_maxrss * 1024, "own": peak}
    print(json.dumps(figures | memory | {"exit": os.waitstatus_to_exitcode(status)}))


if __name__ == "__main__":
    main()
