"""Calls functions of the page's modules from Python, through Node."""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(str(files("selfee.serve") / "web"))
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed: the page's modules are not run alone")

_HARNESS = """
import { createInterface } from "node:readline";
for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const { module, body, cases } = JSON.parse(line);
    const it = await import(module);
    const call = new Function("it", "a", body);
    answer = { results: cases.map((a) => call(it, a)) };
  } catch (error) {
    answer = { error: String(error?.stack ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\\n");
}
"""


@cache
def _node() -> subprocess.Popen[str]:
    """One process for all calls: starting it takes longer than they do."""
    assert NODE is not None, "marked needs_node"
    process = subprocess.Popen(
        [NODE, "--input-type=module", "-e", _HARNESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    atexit.register(process.kill)
    return process


def call(module: str, body: str, cases: Sequence[Any]) -> list[Any]:
    """What ``body`` returns for each case; it sees the module as ``it`` and the case as ``a``."""
    node = _node()
    assert node.stdin is not None
    assert node.stdout is not None
    asked = {"module": (PAGE / "js" / module).as_uri(), "body": body, "cases": list(cases)}
    node.stdin.write(json.dumps(asked) + "\n")
    node.stdin.flush()
    answer = json.loads(node.stdout.readline())
    assert "error" not in answer, answer["error"]
    results: list[Any] = answer["results"]
    return results
