"""The processor: what it has, what of it is used, and how much of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfee.cli.doctoring.finding import Finding, Level

ROOT = Path("/")
_KNOWN = (
    *("avx2", "fma", "f16c", "bmi2", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"),
    *("avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve"),
)
"""Flags of Linux's cpuinfo that matter for matrices: of x86-64, then of ARM."""


def processor_name(root: Path = ROOT) -> str:
    """As its maker calls it."""
    return _cpuinfo(root).get("model name") or platform.processor() or platform.machine()


def instructions(environ: Mapping[str, str], root: Path = ROOT) -> Finding:
    """Which instruction sets there are, and which one computes."""
    from selfee.errors import SelfeeError, UsageError
    from selfee.weights.quantize import instruction_sets, isa

    flags = (_cpuinfo(root).get("flags") or _cpuinfo(root).get("Features") or "").split()
    has = [flag for flag in _KNOWN if flag in flags]
    wanted = environ.get("SELFEE_ISA") or None
    facts: dict[str, Any] = {"processor": processor_name(root), "has": has, "asked": wanted}
    try:
        supported = instruction_sets()
        facts |= {"supported": supported, "used": None}
        used = isa()
    except UsageError as error:
        advice = "unset SELFEE_ISA: the best is chosen then"
        return Finding("instructions", str(error), Level.BROKEN, advice, facts)
    except SelfeeError as error:  # no kernels at all
        return Finding("instructions", str(error), Level.BROKEN, "", facts | {"supported": [], "used": None})
    facts["used"], best = used, supported[-1]
    text = f"{processor_name(root)}: {used} used, of {', '.join(supported)}" + (" (SELFEE_ISA)" if wanted else "")
    text += f"; it has {' '.join(has)}" if has else ""
    if used != best:
        return Finding("instructions", text, Level.NOTE, f"unset SELFEE_ISA: {best} is faster", facts)
    if best == "scalar":
        return Finding("instructions", text, Level.NOTE, "it works, slowly: there are no kernels for this one", facts)
    return Finding("instructions", text, facts=facts)


def threads(root: Path = ROOT) -> Finding:
    """How many threads there are, how many are used, and what a container allows."""
    from selfee.engines.control_group import processor_quota
    from selfee.llama.model import physical_cores

    used, machine, quota = physical_cores(), os.cpu_count() or 1, processor_quota(root)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    facts = {"used": used, "allowed": allowed, "machine": machine, "quota": quota}
    text = f"{_count(used, 'core')} used, {_count(allowed, 'hardware thread')} allowed of {machine}"
    if quota is None:
        return Finding("threads", text, facts=facts)
    text += f"; a control group allows the time of {quota:g}"
    fitting = max(1, int(quota))
    if fitting < used:
        return Finding("threads", text, Level.NOTE, f"use -t {fitting}: more threads wait for each other", facts)
    return Finding("threads", text, facts=facts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's lines by name."""
    from selfee.engines.control_group import read_text

    first, _, _ = read_text(root / "proc/cpuinfo").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
