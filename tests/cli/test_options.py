"""Flags are the fields of dataclasses, helps are their comments, and every command's page says how to use it."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.cli.story import ROOT, Shell

from selfee.cli.app import app
from selfee.cli.options import field_comments, parse_biases
from selfee.cli.reference import main as write_reference
from selfee.cli.reference import render_reference
from selfee.cli.settings import api_key, models_folder, server_proxy
from selfee.engines.base import SamplingParams
from selfee.errors import UsageError

COMMAND: Any = typer.main.get_command(app)


def paths(command: Any = COMMAND, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [words]
    for name, child in getattr(command, "commands", {}).items():
        found += paths(child, (*words, name))
    return found


@pytest.mark.parametrize("words", paths(), ids=" ".join)
def test_every_command_has_a_help_page_with_an_example(words: tuple[str, ...], tmp_path: Path) -> None:
    out = Shell(tmp_path).run(*words, "--help").stdout
    assert "Usage: selfee" in out
    assert re.search(rf"^    selfee {' '.join(words)}".rstrip(), out, re.MULTILINE)
    assert Shell(tmp_path).run(*words, "-h").stdout == out


def test_every_sampling_field_is_a_flag_with_its_comment_and_its_default() -> None:
    flags = {parameter.name: parameter for parameter in COMMAND.commands["ask"].params}
    comments = field_comments(SamplingParams)
    for field in dataclasses.fields(SamplingParams):
        assert field.name in flags
        assert flags[field.name].envvar == f"SELFEE_{field.name.upper()}"
        if field.name not in ("seed", "logit_bias", "samplers"):
            assert comments[field.name][1:] in flags[field.name].help
    assert "[default: 0.7]" in flags["temperature"].help


def test_every_flag_has_a_help() -> None:
    for words in paths():
        command = COMMAND
        for word in words:
            command = command.commands[word]
        assert command.help
        assert all(parameter.help for parameter in command.params)


def test_the_reference_page_is_current(tmp_path: Path) -> None:
    page = ROOT / "docs" / "reference" / "cli.md"
    assert page.read_text(encoding="utf-8") == render_reference(), "run: make docs"
    write_reference([str(tmp_path / "new" / "page.md")])
    assert (tmp_path / "new" / "page.md").read_text(encoding="utf-8") == render_reference()


def test_the_version_is_printed(tmp_path: Path) -> None:
    assert re.fullmatch(r"selfee \d+\.\d+\.\d+\n", Shell(tmp_path).run("--version").stdout)


def test_no_command_at_all_is_the_help_page_and_exit_code_2(tmp_path: Path) -> None:
    assert "Commands:" in Shell(tmp_path).run(check=2).stderr


def test_the_help_page_needs_neither_the_network_client_nor_arrays() -> None:
    heavy = ("numpy", "httpx2", "tokenizers", "rich.progress", "rich.console")
    code = f"import sys, selfee.cli.run as r; r.run(['--help']); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_the_shell_is_offered(shell: str, tmp_path: Path) -> None:
    story = Shell(tmp_path, {"_SELFEE_COMPLETE": f"complete_{shell}", "COMP_WORDS": "selfee mo", "COMP_CWORD": "1"})
    story.variables |= {"_TYPER_COMPLETE_ARGS": "selfee mo", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert "models" in story.run_process().stdout


@pytest.mark.parametrize("text", ["5", "a=1", "5=x", "5=1,", "=1"])
def test_a_bias_that_is_none_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="expected TOKEN=NUMBER"):
        parse_biases(text, "--logit-bias")


@pytest.mark.parametrize(
    ("model", "environ", "key"),
    [
        ("model.gguf", {"SELFEE_API_KEY": "a"}, None),
        ("http://host/v1", {"SELFEE_API_KEY": "a", "OPENAI_API_KEY": "b"}, "a"),
        ("http://host/v1", {"OPENAI_API_KEY": "b"}, None),
        ("https://api.openai.com/v1#m", {"OPENAI_API_KEY": "b"}, "b"),
        ("https://api.openai.com.evil.example/v1", {"OPENAI_API_KEY": "b"}, None),
        ("https://api.openai.com@evil.example/v1", {"OPENAI_API_KEY": "b"}, None),
        ("http://mine:8000/v1", {"OPENAI_API_KEY": "b", "OPENAI_BASE_URL": "http://mine:8000/v1"}, "b"),
        ("http://[::1/v1", {"OPENAI_API_KEY": "b"}, None),
        ("http://api.openai.com/v1", {"OPENAI_API_KEY": "b"}, None),
        ("http://mine:8001/v1", {"OPENAI_API_KEY": "b", "OPENAI_BASE_URL": "http://mine:8000/v1"}, None),
    ],
)
def test_a_key_goes_to_its_own_server_only(model: str, environ: dict[str, str], key: str | None) -> None:
    assert api_key(environ, model, None) == key


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"\xff\xfe"])
def test_a_key_file_without_a_key_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="expected a file with the key alone") as caught:
        api_key({}, "https://host/v1", path)
    assert "two words" not in str(caught.value)
    path.write_text("secret\n")
    assert api_key({"SELFEE_API_KEY": "other"}, "https://host/v1", path) == "secret"


def test_models_lie_where_the_variable_says(tmp_path: Path) -> None:
    assert models_folder({"SELFEE_MODELS": str(tmp_path)}) == tmp_path
    assert models_folder({}).parts[-2:] == ("selfee", "models")


@pytest.mark.parametrize(
    ("model", "proxy"),
    [
        ("https://host/v1", "http://secure:1"),
        ("http://host/v1", "http://plain:2"),
        ("https://inside.example/v1", None),
        ("http://localhost:8080/v1", None),
        ("http://[::1]:8080/v1", None),
        ("http://[::1/v1", None),
    ],
)
def test_a_server_is_reached_through_the_proxy_that_the_environment_names(
    model: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "http_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:1")
    monkeypatch.setenv("http_proxy", "http://plain:2")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert server_proxy(model) == proxy


SHARED = {
    "quiet": set(),
    "color": set(),
    "timeout": {"data augment"},  # after which a request is tried again
    "template": {"answer"},  # of a question
    "repack": set(),
    "mode": set(),
    "threads": {"bench"},  # several numbers
    "drafting": {"bench"},  # times it
    "cache_type": {"perplexity"},  # and not the base's
    "prompts": {"judge", "data augment"},  # a file; a teacher's
    "context": {"inspect", "convert", "card", "doctor", "imatrix", "perplexity"},  # of a file, or of a chunk
    "api_key_file": {"data augment", "data retry"},  # several keys
    "min_revisions": {"serve", "data augment"},  # where a request does not say
    "max_revisions": {"serve", "data augment"},
}
"""Flags that mean the same in every command but in these; selfee main has those of 2023."""


@pytest.mark.parametrize("name", sorted(SHARED))
def test_a_flag_of_several_commands_is_the_same_in_each(name: str) -> None:
    """Its name, what it means, its limits and its variable."""
    said: dict[tuple[str, ...], list[str]] = {}
    for words in paths():
        command = " ".join(words)
        for option in at(words).params:
            if option.name == name and command not in SHARED[name] | {"main"}:
                said.setdefault(tuple(map(repr, described(option))), []).append(command)
    assert len(said) == 1, said
    assert len(next(iter(said.values()))) > 1


def at(words: tuple[str, ...]) -> Any:
    found = COMMAND
    for word in words:
        found = found.commands[word]
    return found


def described(option: Any) -> tuple[Any, ...]:
    return option.opts, option.secondary_opts, option.help, option.envvar, option.default
