"""``selfee ask --session FILE``: nothing is read twice, and whatever happens to the file, the answer comes."""

from __future__ import annotations

import json
import os
import signal
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.cli.story import QUESTION, Shell, write_script
from tests.tiny import make_tiny

from selfee.cli.session import SessionPlan, session_kept
from selfee.engines.base import Request
from selfee.engines.local import LocalEngine
from selfee.engines.open import open_engine
from selfee.errors import SelfeeError
from selfee.llama.session_file import is_session_file

# The answers of a model of random weights are cut off by their budget, and an answer cut off is exit code 1.
WORDS = ("ask", QUESTION, "--seed", "1", "--revisions", "0", "--max-answer-tokens", "20", "--session", "s")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    for name, seed in (("tiny", 0), ("other", 1)):
        make_tiny(tmp_path / f"{name}.gguf", n_ctx=2048, seed=seed)
        os.utime(tmp_path / f"{name}.gguf", (1e9, 1e9))
    return Shell(tmp_path, {"SELFEE_MODEL": "tiny.gguf"})


def chain(shell: Shell, *more: str) -> tuple[dict[str, Any], str]:
    """The chain, and what was said beside it."""
    done = shell.run(*WORDS, "--json", *more, check=None)
    found: dict[str, Any] = json.loads(done.stdout)
    return found, done.stderr


def cached(row: dict[str, Any]) -> tuple[int, int]:
    """Tokens of the first prompt, and how many of them were not read again."""
    cost = row["steps"][0]["answer_cost"]
    return cost["prompt_tokens"], cost["cached_tokens"]


def test_the_second_time_nothing_but_the_last_token_is_read_again(shell: Shell, tmp_path: Path) -> None:
    first, said = chain(shell)
    assert "restored" not in said
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    second, said = chain(shell)
    prompt, kept = cached(second)
    assert cached(first) == (prompt, 0)
    assert kept == prompt - 1
    assert f"s: {prompt + 19} tokens restored" in said
    assert second["final"] == first["final"]
    assert "restored" not in chain(shell, "--quiet")[1]


def test_a_model_is_hashed_once_and_its_fingerprint_kept_beside_the_models(shell: Shell, tmp_path: Path) -> None:
    chain(shell)
    memory = tmp_path / "models" / "fingerprints.json"
    (key,) = json.loads(memory.read_text())
    assert key.endswith("tiny.gguf")
    memory.write_text(json.dumps({key: "00" * 32}))  # whoever is asked is believed
    assert "a session of the model tiny.gguf" in chain(shell)[1]
    assert "fingerprints" not in shell.run("models", "list").stdout


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_session_is_a_warning_and_the_answer_the_same(shell: Shell, tmp_path: Path, damage: str) -> None:
    first, _ = chain(shell)
    sound = (tmp_path / "s").read_bytes()
    damaged = sound[:-1] if damage == "cut" else sound[:-1] + bytes([sound[-1] ^ 1])
    (tmp_path / "s").write_bytes(damaged)
    row, said = chain(shell, "--quiet")
    assert said.startswith("selfee: s: ")
    assert "going on without it" in said
    assert (row["final"], cached(row)) == (first["final"], cached(first))


def test_a_session_of_another_model_is_a_warning_that_names_both(shell: Shell, tmp_path: Path) -> None:
    chain(shell, "-m", "other.gguf")
    row, said = chain(shell)
    assert "a session of the model other.gguf (" in said
    assert "this model is tiny.gguf (" in said
    assert row["final"]


def test_a_file_that_cannot_be_restored_is_replaced_only_by_a_run_that_ends_well(shell: Shell, tmp_path: Path) -> None:
    chain(shell, "-m", "other.gguf")
    before = (tmp_path / "s").read_bytes()
    told: list[str] = []
    plan = SessionPlan(tmp_path / "s", tmp_path / "memory.json", told.append, told.append)
    for error in (KeyboardInterrupt, SelfeeError, None):
        with open_engine(str(tmp_path / "tiny.gguf"), threads=1) as engine:
            assert isinstance(engine, LocalEngine)
            with suppress(KeyboardInterrupt, SelfeeError), session_kept(engine, plan):
                list(engine.stream(Request(QUESTION, max_tokens=3)))
                if error is not None:
                    raise error
        assert ((tmp_path / "s").read_bytes() == before) == (error is not None)
    assert len(told) == 3
    with open_engine(str(tmp_path / "tiny.gguf"), threads=1) as engine, session_kept(engine, plan):
        assert "tokens restored" in told[-1]


def test_a_session_that_does_not_fit_the_context_is_a_warning(shell: Shell) -> None:
    chain(shell)
    _, said = chain(shell, "--context", "90")
    assert "room for 90" in said


@pytest.mark.parametrize("content", [b"my notes\n", b"GGUF" + bytes(100)])
def test_a_file_that_is_no_session_is_never_replaced(shell: Shell, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    done = shell.run(*WORDS, check=2)
    assert "s: is no session" in done.stderr
    assert done.stdout == ""
    assert (tmp_path / "s").read_bytes() == content


def test_an_empty_file_is_as_good_as_none(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    assert "selfee:" not in chain(shell)[1].replace("selfee: the first answer", "")
    assert is_session_file(tmp_path / "s")


@pytest.mark.parametrize(
    ("place", "found"), [("nowhere/s", "no folder"), (".", "is a folder"), ("tiny.gguf", "is no session")]
)
def test_a_place_where_nothing_can_be_saved_is_told_before_the_work(shell: Shell, place: str, found: str) -> None:
    done = shell.run(*WORDS[:-1], place, check=2)
    assert found in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_answer_is_not_lost_where_the_session_cannot_be_saved(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    row, said = chain(shell, "--session", "locked/s")
    assert row["final"]
    assert "the session was not saved" in said


def test_an_answer_is_not_lost_where_another_process_is_saving(shell: Shell, tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".s.part").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        row, said = chain(shell)
    assert row["final"]
    assert "another process is writing it" in said
    assert "the session was not saved" in said


def test_a_model_that_runs_elsewhere_keeps_no_session_here(shell: Shell, tmp_path: Path) -> None:
    done = shell.run(*WORDS, "-m", write_script(tmp_path / "script.jsonl"), check=2)
    assert "--session: " in done.stderr
    assert "expected a model on this machine" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_was_read_is_saved_also_when_it_is_interrupted(
    shell: Shell, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    make_tiny(tmp_path / "slow.gguf", n_ctx=1 << 16, n_embd=256, n_layer=8)
    words = ("ask", QUESTION, "-m", "slow.gguf", "--seed", "1", "--logit-bias", "0=-100,1=-100,2=-100")
    child = shell.start(*words, "--max-answer-tokens", "60000", "--session", "s")
    assert child.stderr is not None
    seen = b""
    while len(seen) < 400:
        seen += os.read(child.stderr.fileno(), 100)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code
    assert b"Traceback" not in err
    done = shell.run(*words, "--max-answer-tokens", "1", "--revisions", "0", "--session", "s", "--json", check=None)
    prompt, kept = cached(json.loads(done.stdout))
    assert kept == prompt - 1


def test_a_session_is_kept_in_either_type_of_cache_and_not_taken_for_the_other(shell: Shell, tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny.gguf", n_ctx=2048, head_dim=32)
    shell.variables["SELFEE_CACHE_TYPE"] = "q8_0"
    first, _ = chain(shell)
    second, said = chain(shell)
    assert "restored" in said
    assert second["final"] == first["final"]
    said = chain(shell, "--cache-type", "f16")[1]  # the flag wins
    assert "stored as q8_0; this model stores f16; open the model with cache_type q8_0" in said
    assert "going on without it" in said
