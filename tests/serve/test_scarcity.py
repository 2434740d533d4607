"""F8, F9 and F12 of the catalogue: too little memory, too few files, no home, and downloads that are none."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
import pytest
from tests.cli.story import Shell, write_script
from tests.serve.harness import QUESTION, Running, ok, refused, scripted, serving
from tests.serve.processes import wait_for
from tests.tiny import make_tiny
from tests.weights.fetch.file_server import File, serve

from selfee.engines.scripted import Reply
from selfee.errors import ResourceError
from selfee.weights.gguf_writer import _head, gguf_size
from selfee.weights.quants import QuantType

CHAT = "/v1/chat/completions"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Hole:
    """A tensor of which there is nothing but its size."""

    name: str
    shape: tuple[int, ...]
    type: QuantType = QuantType.F32

    @property
    def nbytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return 4 * count


def make_huge(path: Path, width: int = 65_536, layers: int = 4) -> Path:
    """A sound file of hundreds of gigabytes that takes no room: its weights are a hole."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    keys: dict[str, object] = {
        "general.architecture": "llama",
        "llama.context_length": 512,
        "llama.embedding_length": width,
        "llama.block_count": layers,
        "llama.feed_forward_length": width,
        "llama.attention.head_count": width // 128,
        "llama.attention.head_count_kv": width // 128,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
    }
    tensors = [Hole("token_embd.weight", (len(words), width)), Hole("output_norm.weight", (width,))]
    for layer in range(layers):
        square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down", "ffn_up")
        tensors += [Hole(f"blk.{layer}.{name}.weight", (width, width)) for name in square]
        tensors += [Hole(f"blk.{layer}.{name}.weight", (width,)) for name in ("attn_norm", "ffn_norm")]
    with path.open("wb") as file:
        file.write(_head(keys, tensors, 3))
        file.truncate(gguf_size(keys, tensors))
    return path


def test_f9_a_model_larger_than_the_memory_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    path = make_huge(tmp_path / "huge.gguf")
    needed = path.stat().st_size / (1 << 30)
    assert needed > 400, "more than any machine that runs this"
    began = time.monotonic()
    found = Shell(tmp_path).run("serve", "-m", str(path), "--port", "0", check=1)
    assert time.monotonic() - began < 60  # nothing was read
    said = " ".join(found.stderr.split())
    assert "GiB of memory, have" in said
    assert "use a smaller file" in said
    told = float(said.split("needs ")[1].split()[0])
    assert needed <= told < needed + 50
    assert "Traceback" not in found.stderr


def test_f9_a_context_larger_than_the_memory_names_the_context(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf")
    found = Shell(tmp_path).run("serve", "-m", str(path), "--port", "0", "-c", str(1 << 31), check=None)
    assert found.returncode in (1, 2)
    assert "Traceback" not in found.stderr
    assert "context" in found.stderr


def test_f9_memory_that_runs_out_on_the_way_is_a_503() -> None:
    class Full:
        name, context_length, supports_chat = "full", None, False

        def stream(self, request: object) -> Iterator[object]:
            raise ResourceError("full: needs 9.9 GiB of memory, have 7.4; use a smaller file")

    with serving(Full()) as server:
        message = refused(server.post(CHAT, {"messages": [QUESTION]}), 503, code="out_of_memory")
        assert "needs 9.9 GiB" in message
        assert server.client.get("/health").status_code == 200


@contextmanager
def started(
    command: list[str], environ: dict[str, str], folder: Path, files: int | None = None
) -> Iterator[tuple[str, list[bytes]]]:
    """A server as a process that may have so many files open; its address, and the lines that it says."""

    def limit() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    process = subprocess.Popen(
        command, env=environ, cwd=folder, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, preexec_fn=limit
    )
    assert process.stderr is not None
    lines: list[bytes] = []
    try:
        for line in process.stderr:
            lines.append(line)
            if b" at http://" in line:
                break
        else:
            raise AssertionError(b"".join(lines).decode())
        reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
        reader.start()
        yield line.split(b" at ")[1].split()[0].decode(), lines
    finally:
        process.terminate()
        process.wait(20)
    assert process.returncode == 0


def ask(address: str) -> httpx2.Response:
    body = {"messages": [QUESTION], "max_tokens": 8, "selfee": {"mode": "off"}}
    return httpx2.post(f"{address}{CHAT}", json=body, timeout=60, trust_env=False)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of files as Linux has them")
def test_f12_a_server_that_may_open_few_files_comes_back_when_clients_leave(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    script = write_script(tmp_path / "replies.jsonl", [{"text": "Because of the air."} for _ in range(4)])
    command = shell.command("serve", "-m", script, "--mode", "guided", "--port", "0")
    with started(command, shell.environ, tmp_path, files=48) as (address, lines):
        port = int(address.rpartition(":")[2])
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(80)]
        time.sleep(0.3)
        for connection in crowd:
            connection.close()
        assert ok(ask(address))["choices"][0]["message"]["content"] == "Because of the air."
    said = b"".join(lines)
    assert said.count(b"too many open files") == 1
    assert b"Traceback" not in said


@pytest.mark.slow
def test_f12_without_a_home_a_folder_for_temporary_files_or_a_language(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_ctx=1024)
    shell = Shell(tmp_path)
    nowhere = str(tmp_path / "tiny.gguf" / "no" / "folder")  # nothing can be made there, whoever asks
    environ = shell.environ | dict.fromkeys(
        ("HOME", "TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), nowhere
    )
    environ |= {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    del environ["PYTHONIOENCODING"]
    with started(shell.command("serve", "-m", str(path), "--port", "0"), environ, tmp_path) as (address, _):
        assert ok(ask(address))["choices"][0]["message"]["content"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_f12_an_application_that_was_forked_serves_from_each_process(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_ctx=1024)
    command = [sys.executable, "-m", "tests.serve.forking", str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    port, *children = map(int, process.stdout.readline().split())
    address = f"http://127.0.0.1:{port}"
    body = {"prompt": "the sky is", "max_tokens": 8, "temperature": 0}

    def text() -> str:
        answer = httpx2.post(f"{address}/v1/completions", json=body, timeout=60, trust_env=False)
        return str(ok(answer)["choices"][0]["text"])

    def computing() -> set[int]:
        parts = [child for pid in children for child in psutil.Process(pid).children(recursive=True)]
        return {child.pid for child in parts}

    try:
        told = {text() for _ in range(6)}
        wait_for(lambda: len(computing()) == 2)  # neither computes in what the other has loaded
        os.kill(children[0], signal.SIGTERM)
        wait_for(lambda: psutil.Process(children[0]).status() == "zombie")
        told |= {text() for _ in range(3)}
        assert len(told) == 1
    finally:
        process.stdin.close()
        assert process.wait(30) == 0


def test_f12_a_clock_that_jumps_neither_ends_nor_forgets_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, jumps = time.time, itertools.cycle((0.0, 400 * 86_400.0, -400 * 86_400.0))
    monkeypatch.setattr(time, "time", lambda: clock() + next(jumps))
    with serving(scripted(delay=0.01)) as server:
        events = server.events()
        assert events[-1]["stop_cause"] == "autonomous"
        assert all(event["t"] < 60 for event in events)
        assert ok(server.client.get(f"/v1/selfee/chat/{events[0]['chain_id']}"))["status"] == "completed"


def test_f12_a_clock_that_jumps_ends_no_wait_for_headers_or_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(scripted(Reply("Yes.", delay=0.3), Reply("Yes.")), parallel=1) as server:
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert _answers(server) == ["Yes.", "Yes."]


def _answers(server: Running) -> list[str]:
    return [server.chat(selfee={"mode": "off"})["choices"][0]["message"]["content"] for _ in range(2)]


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (File(b"<!DOCTYPE html><html>Sign in</html>" * 40), "page"),
        (File(b"GGUF" + bytes(2000), cut_at=[9] * 99), "m.gguf"),
        (File(status=500), "500"),
        (File(status=404), "404"),
    ],
    ids=["a web page", "cut again and again", "failing", "not there"],
)
def test_f8_a_download_that_is_no_model_leaves_nothing_that_looks_like_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: File, told: str
) -> None:
    """The downloads themselves are tested in tests/weights/fetch; here that a server does not start from one."""
    monkeypatch.setattr("selfee.weights.fetch.download.time.sleep", lambda seconds: None)
    with serve() as mirror:
        mirror.add("/org/repo/resolve/main/m.gguf", file)
        shell = Shell(tmp_path, {"HF_ENDPOINT": mirror.address, "HF_TOKEN": "hf_a-secret-of-the-tests"})
        found = shell.run("serve", "-m", "hf:org/repo/m.gguf", "--port", "0", check=None)
    assert found.returncode in (1, 2)
    assert told in found.stderr
    assert "hf_a-secret" not in found.stderr
    assert "Traceback" not in found.stderr
    assert not [path for path in tmp_path.rglob("*.gguf") if path.is_file()]
