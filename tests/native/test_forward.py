"""The forward pass has the same bits with every instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny import make_tiny

from selfee.weights.quantize import instruction_sets
from selfee.weights.quants import QuantType

EVALUATE = """
import hashlib, sys
from selfee.llama.model import Model
from selfee.weights.quantize import isa
model = Model.load(sys.argv[1], threads=2, cache_type=sys.argv[2])
session = model.new_session()
tokens = [7 * i % 300 for i in range(420)]
rows = session.forward(tokens[:400], "all").tobytes() + b"".join(session.forward([t]).tobytes() for t in tokens[400:])
print(isa(), hashlib.sha256(rows).hexdigest())
"""

TOGETHER = """
import hashlib, sys
from selfee.llama.model import Model
from selfee.weights.quantize import isa
model = Model.load(sys.argv[1], threads=2, cache_type=sys.argv[2])
starts = [[(7 + 2 * number) * i % 300 for i in range(count)] for number, count in enumerate((1, 5, 80, 256, 400))]
found = {}
for together in (True, False):
    sessions = [model.new_session() for _ in starts]
    rows = [[] for _ in starts]
    for step in range(6):
        parts = [(s, text if step == 0 else [step], 1) for s, text in zip(sessions, starts)]
        logits = model.forward_many(parts) if together else [s.forward(text, count) for s, text, count in parts]
        for row, own in zip(logits, rows):
            own.append(row.tobytes())
    found[together] = hashlib.sha256(b"".join(b"".join(own) for own in rows)).hexdigest()
print(isa(), found[True] if found[True] == found[False] else "differ")
"""


def digest(path: Path, isa: str, program: str = EVALUATE, cache_type: str = "f16") -> str:
    environment = {**os.environ, "SELFEE_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(path), cache_type]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    used, value = done.stdout.split()
    assert used == isa
    return value


@pytest.mark.parametrize("shape", [{"n_head_kv": 2}, {"n_head": 8, "n_head_kv": 2, "head_dim": 12}], ids=str)
@pytest.mark.parametrize("kind", [QuantType.F32, QuantType.F16, QuantType.Q4_1], ids=lambda kind: kind.name)
def test_logits_have_the_same_bits_with_every_instruction_set(
    kind: QuantType, shape: dict[str, int], tmp_path: Path
) -> None:
    if len(instruction_sets()) == 1:
        pytest.skip("this machine has the scalar instruction set only; nothing to compare")
    path = make_tiny(tmp_path / "tiny.gguf", type=kind, **shape)  # type: ignore[arg-type]
    assert len({digest(path, isa) for isa in instruction_sets()}) == 1


@pytest.mark.parametrize("shape", [{"n_head_kv": 2}, {"n_head": 8, "n_head_kv": 2, "head_dim": 12}], ids=str)
@pytest.mark.parametrize("kind", [QuantType.F32, QuantType.Q4_1], ids=lambda kind: kind.name)
def test_company_changes_no_bit_with_any_instruction_set(
    kind: QuantType, shape: dict[str, int], tmp_path: Path
) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", type=kind, **shape)  # type: ignore[arg-type]
    found = {digest(path, isa, TOGETHER) for isa in instruction_sets()}
    assert len(found) == 1
    assert "differ" not in found


@pytest.mark.parametrize("program", [EVALUATE, TOGETHER], ids=["alone", "together"])
@pytest.mark.parametrize(
    "shape",
    [{"n_head_kv": 2, "head_dim": 32}, {"n_head": 11, "n_head_kv": 1, "head_dim": 96}, {"head_dim": 64}],
    ids=str,
)
def test_a_cache_of_8_bits_has_the_same_bits_with_every_instruction_set(
    shape: dict[str, int], program: str, tmp_path: Path
) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", type=QuantType.Q4_1, **shape)  # type: ignore[arg-type]
    found = {digest(path, isa, program, "q8_0") for isa in instruction_sets()}
    assert len(found) == 1
    assert "differ" not in found
