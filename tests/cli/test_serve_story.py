"""``selfee serve`` as a person starts it: what it says when it cannot, and what its help promises."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.cli.story import Shell, write_script


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "no key is set"),
        (["--port", "70000"], "port: 70000"),
        (["--tls-cert", "x"], "expected both"),
        (["--tls-cert", "x", "--tls-key", "y"], "x: no such file"),
        (["--key-file", "nowhere"], "no keys can be read"),
        (["--log-format", "xml"], "text or json"),
        (["--min-revisions", "3", "--max-revisions", "2"], "min_revisions"),
        (["--chain-log", "no/such/folder/x", "-m", "script:SCRIPT"], "cannot be written"),
        (["-m", "a=script:SCRIPT", "-m", "a=script:SCRIPT"], "same name"),
        (["-m", "nothing.gguf"], "no such file"),
    ],
)
def test_wrong_words_are_told_in_a_line_before_anything_is_loaded(shell: Shell, words: list[str], told: str) -> None:
    script = write_script(shell.folder / "replies.jsonl").removeprefix("script:")
    done = shell.run("serve", *[word.replace("SCRIPT", script) for word in words], check=2)
    assert told in done.stderr
    assert done.stderr.count("selfee: ") == 1
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_told_with_what_to_do(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        script = write_script(shell.folder / "replies.jsonl")
        done = shell.run("serve", "-m", script, "--port", port, check=1)
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr


def test_a_file_with_keys_may_hold_remarks_and_must_hold_a_key(shell: Shell) -> None:
    (shell.folder / "keys").write_text("# ours\n\n", encoding="utf-8")
    assert "holds no key" in shell.run("serve", "--key-file", "keys", check=2).stderr
    (shell.folder / "keys").write_text("short\n", encoding="utf-8")
    done = shell.run("serve", "--key-file", "keys", check=2)
    assert "8 characters" in done.stderr
    assert "short\n" not in done.stderr


def test_help_has_examples(shell: Shell) -> None:
    done = shell.run("serve", "--help")
    for word in ("selfee serve\n", "--key-file", "--parallel", "curl http://127.0.0.1:8080/v1/chat/completions"):
        assert word in done.stdout
