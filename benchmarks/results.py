"""Keep measured figures: one JSON line a run and machine, printed beside the last one of the same benchmark."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def cpu_model() -> str:
    """The processor's name, family and model: enough to tell machines apart, not enough to tell who owns one."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.+)$", text, re.MULTILINE))
    name = " ".join(
        re.sub(r"\(R\)|\(TM\)|CPU|Processor|@.*", " ", fields.get("model name", platform.machine())).split()
    )
    return f"{name} {fields.get('cpu family', '')}-{fields.get('model', '')}".strip(" -")


def commit() -> str:
    """Short hash of the checkout, with ``+`` if files differ from it; empty outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "..", ":!results")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def record(benchmark: str, figures: Mapping[str, float], *, isa: str, folder: Path = RESULTS) -> Path:
    """Append one run's figures to results/<machine>.jsonl and print them beside the last run of the same benchmark.

    ``figures`` map a name with its unit ("q4_1 n=1 GB/s") to a number. Returns the file.
    """
    cpu = cpu_model()
    path = folder / (re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-") + ".jsonl")
    last = last_run(path, benchmark, isa)
    row = {
        "benchmark": benchmark,
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "isa": isa},
        "commit": commit(),
        "load": round(os.getloadavg()[0], 1),  # above the number of cores: figures of a busy machine, not of the code
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "figures": {name: float(f"{value:.4g}") for name, value in figures.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print_against(row["figures"], last)
    return path


def last_run(path: Path, benchmark: str, isa: str) -> dict[str, float]:
    """Figures of the last run of a benchmark with an instruction set on this machine; empty if there was none."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    same = [row for row in rows if row["benchmark"] == benchmark and row["machine"]["isa"] == isa]
    figures: dict[str, float] = same[-1]["figures"] if same else {}
    return figures


def print_against(now: object, last: Mapping[str, float]) -> None:
    """Print each figure, what it was in the last run, and the quotient."""
    assert isinstance(now, dict)
    width = max((len(name) for name in now), default=0)
    for name, value in now.items():
        before = last.get(name)
        against = f"   last {before:10.4g}   x {value / before:.2f}" if before else ""
        print(f"{name:{width}}  {value:10.4g}{against}")
