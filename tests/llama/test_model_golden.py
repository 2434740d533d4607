"""Logits of llama.cpp of 2023 on a 26-layer random model (spec: ggml-formats §1.3), recomputed.

The files do not say which tokens were evaluated. They were found by trying: token after token, one of the 512 fits to
0.005 and the next best is off by more than 0.1.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tests.requantize import requantize

from selfee.llama.generate import Session
from selfee.llama.model import Model
from selfee.llama.reference import ReferenceSession
from selfee.weights.open import open_checkpoint

TOKENS = [1, 290, 310, 263, 278, 400, 13, 77, 511, 35, 260, 448, 349, 500, 271, 306]

pytestmark = pytest.mark.corpus


@pytest.fixture(scope="module")
def tiny26(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tool, path = corpus.parent / "tools" / "make_tiny_ggml.py", tmp_path_factory.mktemp("tiny26") / "f16.bin"
    if not tool.exists():
        pytest.skip("the tool that makes the 26-layer model is not beside the shared data folder")
    subprocess.run([sys.executable, str(tool), str(path), "f16", "26"], check=True)
    return path


@pytest.fixture(scope="module")
def quantised(tiny26: Path) -> dict[str, Path]:
    return {name: requantize(tiny26, tiny26.with_name(f"{name}.bin"), name) for name in ("q4_0", "q4_K_M")}


def golden(corpus: Path, name: str) -> npt.NDArray[np.float64]:
    values = np.fromfile(corpus / "golden" / "logits_tiny26" / f"logits.{name}.bin", dtype="<f4")
    return values.reshape(len(TOKENS), 512).astype(np.float64)


def divergence(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    """Mean Kullback-Leibler divergence of two rows of logits, in nats."""
    log_p, log_q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (p, q))
    return float((np.exp(log_p) * (log_p - log_q)).sum(-1).mean())


@pytest.mark.parametrize("twin", ["native", "reference"])
@pytest.mark.parametrize(
    ("name", "largest", "rms", "kl"),
    [
        ("f16", 0.006, 0.002, 1e-6),
        ("f16.kvf32", 0.006, 0.002, 1e-6),
        ("q4_0", 0.14, 0.030, 4.5e-4),
        ("q4_K_M", 0.14, 0.030, 4.5e-4),
    ],
)
def test_logits_equal_those_of_2023_within_the_published_tolerance(
    corpus: Path,
    tiny26: Path,
    quantised: dict[str, Path],
    twin: str,
    name: str,
    largest: float,
    rms: float,
    kl: float,
) -> None:
    path = quantised.get(name, tiny26)
    expected = golden(corpus, name)
    with open_checkpoint(path) as checkpoint, Model.load(checkpoint) as model:
        session: Session = model.new_session() if twin == "native" else ReferenceSession(checkpoint)
        found = session.forward(TOKENS, "all").astype(np.float64)
    assert np.abs(found - expected).max() < largest
    assert np.sqrt(np.square(found - expected).mean()) < rms
    assert divergence(expected, found) < kl
    assert (found.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.slow
def test_the_tokens_of_the_golden_file_are_the_only_ones_that_fit(corpus: Path, tiny26: Path) -> None:
    expected = golden(corpus, "f16")
    with Model.load(tiny26) as model:
        session = model.new_session()
        for position in (0, 7, 15):
            session.truncate(0)
            if position:
                session.forward(TOKENS[:position])
            errors = []
            for token in range(512):
                session.truncate(position)
                errors.append(float(np.abs(session.forward([token])[0] - expected[position]).max()))
            first, second = np.argsort(errors)[:2]
            assert first == TOKENS[position]
            assert errors[second] > 0.1
