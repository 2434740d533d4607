"""``selfee serve --role …`` as a person starts it: what each part says when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.story import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (["--role", "king"], "expected one of server, controller, worker, web", 2),
        (["--dispatch", "x"], "expected one of least-busy, lottery", 2),
        (["--worker-view", "x"], "expected one of raw, final", 2),
        (["--role", "controller", "--secret-file", "nowhere"], "no keys can be read", 2),
        (["--role", "controller", "--host", "0.0.0.0"], "no key is set", 2),
        (["--role", "controller", "--port", "0", "--allow-worker", "http://x"], "neither a network nor a name", 2),
        (["--role", "web", "--port", "0", "--controller", "http://127.0.0.1:9"], "is it running there?", 1),
    ],
)
def test_wrong_words_and_missing_parts_are_told_in_a_line(shell: Shell, words: list[str], told: str, code: int) -> None:
    done = shell.run("serve", *words, check=code)
    assert told in done.stderr
    assert done.stderr.count("selfee: ") == 1
    assert "Traceback" not in done.stderr


def test_a_secret_is_never_repeated(shell: Shell) -> None:
    (shell.folder / "secret").write_text("tiny\n", encoding="utf-8")
    done = shell.run("serve", "--role", "controller", "--secret-file", "secret", check=2)
    assert "8 characters" in done.stderr
    assert "tiny" not in done.stderr
