"""Calls functions of the page's modules from Python, through Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(str(files("selfee.serve") / "web"))
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed: the page's modules are not run alone")

_HARNESS = """
import { readFileSync } from "node:fs";
const { module, body, cases } = JSON.parse(readFileSync(0, "utf8"));
const it = await import(module);
const call = new Function("it", "a", body);
process.stdout.write(JSON.stringify(cases.map((a) => call(it, a))));
"""


def call(module: str, body: str, cases: Sequence[Any]) -> list[Any]:
    """What ``body`` returns for each case; it sees the module as ``it`` and the case as ``a``."""
    assert NODE is not None, "marked needs_node"
    asked = {"module": (PAGE / "js" / module).as_uri(), "body": body, "cases": list(cases)}
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", _HARNESS],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers
