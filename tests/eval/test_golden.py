"""Our figures beside those that llama.cpp's own tools gave for the same models and text (tests/golden/eval)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.story import Shell
from tests.eval.prose import prose
from tests.tiny import make_tiny

from selfee.eval.logits_file import LogitsFile
from selfee.weights.quantization.imatrix import read_imatrix, write_imatrix
from selfee.weights.quants import QuantType

GOLDEN = Path(__file__).parents[1] / "golden" / "eval"
PPL, PPL_ERROR = 388.7589, 38.31157  # of the f32 model, as printed


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    make_tiny(tmp_path / "f32.gguf", vocab="spm", n_vocab=270)
    make_tiny(tmp_path / "q4_0.gguf", vocab="spm", n_vocab=270, type=QuantType.Q4_0)
    (tmp_path / "prose.txt").write_text(prose(60), encoding="utf-8")
    return Shell(tmp_path)


def printed() -> dict[str, tuple[float, float]]:
    """What stands in kl.txt: name -> value and error (0 where there is none), percentages as shares."""
    found = {}
    for line in (GOLDEN / "kl.txt").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"\s*(.+?)\s*:\s*([-\d.]+)(?: ±\s*([\d.]+))?\s*(%?)", line):
            share = 0.01 if match[4] else 1
            found[re.sub(r"\s+", " ", match[1])] = (float(match[2]) * share, float(match[3] or 0) * share)
    return found


def rows(shell: Shell, *words: str) -> dict[str, Any]:
    (row,) = json.loads(shell.run("perplexity", *words, "--json").stdout)
    assert isinstance(row, dict)
    return row


def test_perplexity_and_its_error_are_those_llama_cpp_prints(shell: Shell) -> None:
    row = rows(shell, "f32.gguf", "prose.txt", "-c", "32", "--chunks", "7")
    assert row["ppl"] == pytest.approx(PPL, rel=2e-4)
    assert row["ppl_error"] == pytest.approx(PPL_ERROR, rel=2e-4)


def test_its_file_of_log_probabilities_holds_our_text_and_our_probabilities(shell: Shell) -> None:
    shell.run("perplexity", "f32.gguf", "prose.txt", "-c", "32", "--chunks", "7", "--save-logits", "ours.logits")
    ours, theirs = LogitsFile(shell.folder / "ours.logits"), LogitsFile(GOLDEN / "base.logits")
    assert (shell.folder / "ours.logits").stat().st_size == (GOLDEN / "base.logits").stat().st_size
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    for index in range(7):
        one, other = (file.log_probabilities(index, 0, 15) for file in (ours, theirs))
        np.testing.assert_allclose(one, other, atol=0.01)
        assert np.abs(one - other).mean() < 1e-3


def test_divergence_from_its_file_is_what_it_prints(shell: Shell) -> None:
    (shell.folder / "base.logits").write_bytes((GOLDEN / "base.logits").read_bytes())
    row, theirs = rows(shell, "q4_0.gguf", "prose.txt", "--kl", "base.logits"), printed()
    assert (row["n_ctx"], row["chunks"], row["positions"]) == (32, 7, 105)
    # The base's figures come from the file alone: both tools must read the same there.
    assert row["base_ppl"] == pytest.approx(theirs["Mean PPL(base)"][0], rel=1e-8)
    assert row["base_ppl_error"] == pytest.approx(theirs["Mean PPL(base)"][1], rel=1e-7)
    # The rest is computed with activations in 8 bits, which the two engines round in different ways.
    for name, line, tolerance in (("ppl", "Mean PPL(Q)", 5e-3), ("kld", "Mean KLD", 1e-2), ("dp_rms", "RMS Δp", 2e-2)):
        value, error = (row[f"{name}_mean"] if name == "kld" else row[name]), row[f"{name}_error"]
        assert value == pytest.approx(theirs[line][0], rel=tolerance), line
        assert error == pytest.approx(theirs[line][1], rel=2e-2), line
    assert row["ln_ratio_error"] == pytest.approx(theirs["Mean ln(PPL(Q)/PPL(base))"][1], rel=1e-2)
    assert row["ppl_difference_error"] == pytest.approx(theirs["Mean PPL(Q)-PPL(base)"][1], rel=1e-2)
    assert row["correlation"] == pytest.approx(theirs["Cor(ln(PPL(Q)), ln(PPL(base)))"][0], abs=2e-3)
    for percent in ("99.9", "99", "95", "90", "10", "5", "1", "0.1"):
        line = f"{float(percent):.1f}% KLD"
        assert row["kld_percentiles"][percent] == pytest.approx(theirs[line][0], rel=4e-2), line
    assert row["kld_percentiles"]["50"] == pytest.approx(theirs["Median KLD"][0], rel=2e-2)
    assert row["kld_max"] == pytest.approx(theirs["Maximum KLD"][0], rel=2e-2)
    assert row["same_top"] == pytest.approx(theirs["Same top p"][0], abs=0.02)
    assert row["same_top_error"] == pytest.approx(theirs["Same top p"][1], rel=0.02)


@pytest.mark.parametrize("form", ["gguf", "dat"])
def test_its_importance_matrices_say_what_ours_say(shell: Shell, form: str) -> None:
    shell.run("imatrix", "f32.gguf", "prose.txt", "-c", "32", "--chunks", "7", "-o", f"ours.{form}")
    ours, theirs = read_imatrix(shell.folder / f"ours.{form}"), read_imatrix(GOLDEN / f"llama.imatrix.{form}")
    assert (list(ours), ours.datasets, ours.chunks) == (list(theirs), theirs.datasets, theirs.chunks)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-3, err_msg=name)


def test_its_older_form_is_written_again_to_the_same_bytes(tmp_path: Path) -> None:
    write_imatrix(tmp_path / "again.dat", read_imatrix(GOLDEN / "llama.imatrix.dat"), "dat")
    assert (tmp_path / "again.dat").read_bytes() == (GOLDEN / "llama.imatrix.dat").read_bytes()


def test_its_two_forms_say_the_same() -> None:
    new, old = (read_imatrix(GOLDEN / f"llama.imatrix.{form}") for form in ("gguf", "dat"))
    for name in new:
        np.testing.assert_allclose(new[name], old[name], rtol=1e-6)
