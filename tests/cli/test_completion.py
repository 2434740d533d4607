"""Completion: what is offered where, and that bash, zsh and fish really complete with what is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli import tmux
from tests.cli.story import Shell

from selfee.cli.app import COMMANDS
from selfee.cli.completing.scripts import SCRIPTS, VARIABLE


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a ``selfee`` on its path and a model of its own."""
    shim = tmp_path / "bin" / "selfee"
    shim.parent.mkdir()
    shim.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from selfee.cli import main; main()' \"$@\"\n")
    shim.chmod(0o755)
    (tmp_path / "one.gguf").touch()
    (tmp_path / "a folder").mkdir()
    return tmp_path


def environ_of(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "VIRTUAL_ENV") if name in os.environ}
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return kept | Shell(home).environ | {"HOME": str(home), "PATH": path, "XDG_CONFIG_HOME": str(home / ".config")}


def offered(home: Path, *words: str) -> tuple[str, list[str]]:
    """The kind, and the words that are offered for the last of ``words``."""
    done = Shell(home, {VARIABLE: "1", "SELFEE_MODELS": str(home / "models")}).run(*words)
    kind, *lines = done.stdout.splitlines()
    assert all("\t" in line for line in lines)
    return kind, [line.partition("\t")[0] for line in lines]


def test_commands_and_their_commands_are_offered(home: Path) -> None:
    assert offered(home, "") == ("words", list(COMMANDS))
    assert offered(home, "mo") == ("words", ["models"])
    assert offered(home, "models", "") == ("words", ["list", "pull", "remove", "path"])
    assert offered(home, "models", "p") == ("words", ["pull", "path"])
    assert offered(home, "nonsense", "x") == ("words", [])


def test_flags_are_offered_once_and_their_values_where_they_are_known(home: Path) -> None:
    assert offered(home, "ask", "--te") == ("words", ["--template", "--temperature"])
    assert "--json" not in offered(home, "ask", "--json", "--")[1]
    assert "--stop" in offered(home, "ask", "--stop", "x", "--st")[1], "may be repeated"
    assert offered(home, "ask", "--mode", "") == ("words", ["auto", "single-pass", "guided", "turns"])
    assert offered(home, "ask", "--mode=g") == ("words", ["--mode=guided"])
    assert offered(home, "ask", "--mode", "=", "g") == ("words", ["--mode=guided"]), "as bash parts it"
    assert offered(home, "ask", "--seed", "") == ("words", []), "a number"
    assert offered(home, "ask", "--session", "") == ("files", [])
    assert offered(home, "main", "--no-m")[1] == ["--no-mmap"]
    assert "--help" in offered(home, "models", "pull", "--h")[1]


def test_models_are_offered_beside_files(home: Path) -> None:
    assert offered(home, "ask", "-m", "s") == ("files", ["smollm2-135m"])
    assert offered(home, "inspect", "") == ("files", ["smollm2-135m"])
    assert offered(home, "completion", "") == ("words", ["bash", "zsh", "fish"])


def test_after_two_hyphens_there_are_no_flags(home: Path) -> None:
    assert offered(home, "inspect", "--", "--")[1] == []


def test_scripts_are_shown_and_installed_where_shells_look(home: Path) -> None:
    shell = Shell(home, {"HOME": str(home), "SHELL": "/usr/bin/zsh"})
    for name, script in SCRIPTS.items():
        assert shell.run("completion", name).stdout == script.text
        said = shell.run("completion", name, "--install").stdout
        assert str(home / script.place) in said
        assert (home / script.place).read_text(encoding="utf-8") == script.text
    assert shell.run("completion").stdout == SCRIPTS["zsh"].text
    other = Shell(home, {"SHELL": "/bin/tcsh"}).run("completion", check=2)
    assert "expected bash, zsh or fish" in other.stderr


def in_bash(home: Path, *words: str) -> list[str]:
    listed = " ".join(f"'{word}'" for word in words)
    script = (
        f"source '{home / SCRIPTS['bash'].place}'; COMP_WORDS=(selfee {listed}); COMP_CWORD={len(words)}; "
        "_selfee; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=home, env=environ_of(home), capture_output=True, timeout=60, check=True
    )
    return done.stdout.decode().split("\n")[:-1]


def test_bash_completes_with_what_was_installed(home: Path) -> None:
    Shell(home, {"HOME": str(home)}).run("completion", "bash", "--install")
    assert in_bash(home, "mod") == ["models"]
    assert in_bash(home, "ask", "--mode", "=", "gu") == ["guided"]
    assert sorted(in_bash(home, "ask", "-m", "")) == sorted(["bin", "a folder", ".local", "one.gguf", "smollm2-135m"])
    assert in_bash(home, "inspect", "one") == ["one.gguf"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_with_what_was_installed(home: Path) -> None:
    Shell(home, {"HOME": str(home)}).run("completion", "fish", "--install")

    def complete(line: str) -> list[str]:
        done = subprocess.run(
            ["fish", "-c", f"complete -C '{line}'"],
            cwd=home,
            env=environ_of(home),
            capture_output=True,
            timeout=60,
            check=True,
        )
        return [row.partition("\t")[0] for row in done.stdout.decode().splitlines()]

    assert complete("selfee mod") == ["models"]
    assert complete("selfee ask --mode gu") == ["guided"]
    assert complete("selfee ask --te") == ["--temperature", "--template"]
    assert {"smollm2-135m", "one.gguf"} <= set(complete("selfee inspect "))


@pytest.mark.slow
@pytest.mark.skipif(tmux.missing() is not None, reason=str(tmux.missing()))
@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_person_presses_tab(home: Path, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    Shell(home, {"HOME": str(home)}).run("completion", name, "--install")
    (home / ".zshrc").write_text("fpath+=~/.zfunc; autoload -Uz compinit && compinit -u\nPS1='ready> '\n")
    (home / ".bashrc").write_text(f"source ~/{SCRIPTS['bash'].place}\nPS1='ready> '\n")
    (home / ".config" / "fish").mkdir(parents=True, exist_ok=True)
    (home / ".config" / "fish" / "config.fish").write_text("function fish_prompt; echo 'ready> '; end\n")
    start = {"bash": "bash --rcfile ~/.bashrc -i", "zsh": "zsh -i", "fish": "fish -i"}[name]
    with tmux.terminal(home, environ_of(home)) as window:
        window.enter(start)
        window.wait_for("ready>")
        window.type("selfee mod")
        window.press("Tab")
        window.wait_for(r"ready> selfee models")
        window.type("pu")
        window.press("Tab")
        window.wait_for(r"ready> selfee models pull")
        window.press("C-u")
        window.type("selfee ask --mode gui")
        window.press("Tab")
        window.wait_for(r"ready> selfee ask --mode guided")
        window.press("C-u")
        window.type("selfee inspect on")
        window.press("Tab")
        window.wait_for(r"ready> selfee inspect one\.gguf")
        window.press("C-u")
        window.type("selfee ask --te")
        window.press("Tab")
        window.wait_for("selfee ask --temp")
        window.press("Tab", "Tab")  # bash lists what there is at the second key that changes nothing
        window.wait_for(r"--template[\s\S]*--temperature|--temperature[\s\S]*--template")
