"""`selfee data augment` under load: rows a second, how exactly the rate limits are kept, memory over time.

    python benchmarks/augment_load.py --rows 1000 --rpm 12000
    python benchmarks/augment_load.py --rows 1000 --tpm 600000

A teacher on a loopback socket answers at once; the command runs as a user would run it. Steady rates leave the first
and last tenth of the time away: a run begins with few requests at a time and ends with the longest chains.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from tests.engines.paid.faulty_teacher import FaultyTeacher, Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rpm", type=float)
    parser.add_argument("--tpm", type=float)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds the teacher takes for a reply")
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, FaultyTeacher(Plan(latency=options.latency)) as teacher:
        print(json.dumps(measure(options, teacher, Path(folder)), indent=1))


def measure(options: argparse.Namespace, teacher: FaultyTeacher, folder: Path) -> dict[str, Any]:
    samples, out = folder / "samples.jsonl", folder / "chains.jsonl"
    rows = ({"instruction": f"How much is {n} and {n * 7}?", "source": "sums"} for n in range(options.rows))
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "selfee.cli", "data", "augment", str(samples), "-o", str(out), "-m", teacher.url]
    command += ["--concurrency", str(options.concurrency), "--json", "-q"]
    for name in ("rpm", "tpm"):
        if getattr(options, name):
            command += [f"--{name}", str(getattr(options, name))]
    tokens: list[tuple[float, int]] = []
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    memory = Memory(process.pid, teacher, tokens)
    memory.start()
    outcome = json.loads(process.communicate()[0])
    seconds = time.monotonic() - started
    memory.over.set()
    memory.join()
    steady = steady_rate([(moment, 1) for moment in teacher.arrivals])
    row: dict[str, Any] = {
        "rows": options.rows,
        "seconds": round(seconds, 1),
        "rows_per_second": round(outcome["done"] / seconds, 1),
        "calls": teacher.requests,
        "calls_per_second": round(teacher.requests / seconds, 1),
        "steady_rpm": round(60 * steady),
        "steady_tpm": round(60 * steady_rate(increments(tokens))),
        "paid_twice": sum(count - 1 for count in teacher.paid.values()),
        "memory_mib": memory.summary(),
        "cpu_seconds": {"command, courier": [round(value, 1) for value in memory.cpu.values()], "teacher": own_cpu()},
    }
    for name in ("rpm", "tpm"):
        if wanted := getattr(options, name):
            row[f"{name}_error_percent"] = round(100 * (row[f"steady_{name}"] / wanted - 1), 2)
    return row


def steady_rate(events: list[tuple[float, int]]) -> float:
    """Amount a second between the first and the last tenth of the time."""
    if len(events) < 10:
        return 0.0
    first, last = events[0][0], events[-1][0]
    low, high = first + 0.1 * (last - first), last - 0.1 * (last - first)
    return sum(amount for moment, amount in events if low <= moment < high) / (high - low)


def own_cpu() -> float:
    return float(round(sum(psutil.Process().cpu_times()[:2]), 1))


def increments(readings: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return [(now, count - before) for (_, before), (now, count) in itertools.pairwise(readings)]


class Memory(threading.Thread):
    """Resident memory of the command and its courier, twice a second; tokens served with it."""

    def __init__(self, pid: int, teacher: FaultyTeacher, tokens: list[tuple[float, int]]) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self._process = psutil.Process(pid)
        self._teacher = teacher
        self._tokens = tokens
        self._readings: list[float] = []
        self.cpu: dict[int, float] = {}  # seconds of each process

    def run(self) -> None:
        while not self.over.wait(0.2):
            self._tokens.append((time.monotonic(), self._teacher.tokens))
            try:
                family = [self._process, *self._process.children(recursive=True)]
                self.cpu |= {one.pid: sum(one.cpu_times()[:2]) for one in family}
                self._readings.append(sum(one.memory_info().rss for one in family) / 2**20)
            except psutil.Error:
                continue

    def summary(self) -> dict[str, float]:
        """Medians of quarters of the run, and the most."""
        count = len(self._readings) // 4
        if not count:
            return {}
        quarters = [sorted(self._readings[n * count : (n + 1) * count])[count // 2] for n in range(4)]
        return {f"quarter_{n + 1}": round(value, 1) for n, value in enumerate(quarters)} | {
            "most": round(max(self._readings), 1)
        }


if __name__ == "__main__":
    main()
