"""FastChat 0.2.36: its controller and OpenAI server with our worker, our controller with its worker and server.

The three processes of the original demo are swapped one by one; each line says which is whose.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import openai
import requests

HERE = Path(__file__).resolve().parent
SELFEE = os.environ["SELFEE_PROGRAM"].split(os.pathsep)
SCRIPT = os.environ["SELFEE_SCRIPT"]
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
FINAL = "The air scatters blue light more than red."
PLAIN = "Blue light is scattered more strongly than red."


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Parts(contextlib.ExitStack):
    """Processes that end with the block."""

    def start(self, *command):
        log = subprocess.DEVNULL
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, cwd=self.folder())
        self.callback(self.end, process)

    def folder(self):
        if not hasattr(self, "_folder"):
            self._folder = self.enter_context(tempfile.TemporaryDirectory())
        return self._folder

    def end(self, process):
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()

    def fastchat(self, module, *words):
        self.start(sys.executable, "-m", f"fastchat.serve.{module}", *words)

    def selfee(self, *words):
        self.start(*SELFEE, "serve", "--no-log-requests", *words)


def wait_for(what, condition, seconds=120):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(requests.RequestException, ValueError, KeyError):
            if condition():
                return
        time.sleep(0.2)
    raise SystemExit(f"{what}: did not come about within {seconds} s")


def models(controller):
    return requests.post(f"{controller}/list_models", timeout=5).json()["models"]


def use_openai_server(parts, controller, model):
    """Ask through FastChat's own OpenAI server, in all its ways."""
    port = free_port()
    parts.fastchat("openai_api_server", "--controller-address", controller, "--port", port, "--host", "127.0.0.1")
    url = f"http://127.0.0.1:{port}/v1"
    wait_for("FastChat's OpenAI server", lambda: requests.get(f"{url}/models", timeout=5).ok)
    client = openai.OpenAI(base_url=url, api_key="none", timeout=120)
    assert [row.id for row in client.models.list().data] == [model]
    whole = client.chat.completions.create(model=model, messages=QUESTION)
    assert whole.choices[0].finish_reason == "stop", whole
    stream = client.chat.completions.create(model=model, messages=QUESTION, stream=True)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert streamed == whole.choices[0].message.content, (streamed, whole)
    told = [*QUESTION, {"role": "assistant", "content": "Because."}, {"role": "user", "content": "Say more."}]
    assert client.chat.completions.create(model=model, messages=told).choices[0].message.content
    text = client.completions.create(model=model, prompt="Once upon a time", max_tokens=5)
    assert text.choices[0].text
    return streamed


def controller_of_fastchat(parts):
    port = free_port()
    parts.fastchat("controller", "--host", "127.0.0.1", "--port", port)
    url = f"http://127.0.0.1:{port}"
    wait_for("FastChat's controller", lambda: requests.get(f"{url}/test_connection", timeout=5).ok)
    return url


def controller_of_ours(parts):
    port = free_port()
    parts.selfee("--role", "controller", "--port", port)
    url = f"http://127.0.0.1:{port}"
    wait_for("our controller", lambda: requests.get(f"{url}/health", timeout=5).ok)
    return url


def worker_of_ours(parts, controller, *words):
    parts.selfee(
        "--role", "worker", "--port", free_port(), "--controller", controller, "-m", f"selfee={SCRIPT}",
        "--mode", "single-pass", *words,
    )  # fmt: skip
    wait_for("our worker", lambda: models(controller) == ["selfee"])


def worker_of_fastchat(parts, controller):
    parts.start(sys.executable, HERE / "worker_of_fastchat.py", controller, free_port())
    wait_for("FastChat's worker", lambda: models(controller) == ["plain"])


def main():
    with Parts() as parts:
        controller = controller_of_fastchat(parts)
        worker_of_ours(parts, controller)
        text = use_openai_server(parts, controller, "selfee")
        assert "### Revision 1:" in text, text
        assert text.count(FINAL) == 1, text
        requests.post(f"{controller}/refresh_all_workers", timeout=10)
        assert models(controller) == ["selfee"]
        print("FastChat's controller and OpenAI server, our worker: a whole chain of", len(text), "characters")
    with Parts() as parts:
        controller = controller_of_ours(parts)
        worker_of_ours(parts, controller, "--worker-view", "final")
        assert use_openai_server(parts, controller, "selfee") == FINAL
        print("our controller and worker, FastChat's OpenAI server:", FINAL)
    with Parts() as parts:
        controller = controller_of_ours(parts)
        worker_of_fastchat(parts, controller)
        assert use_openai_server(parts, controller, "plain") == PLAIN
        print("our controller, FastChat's worker and OpenAI server:", PLAIN)
        port = free_port()
        parts.selfee("--role", "web", "--port", port, "--controller", controller, "--max-revisions", "0")
        url = f"http://127.0.0.1:{port}"
        wait_for("our web", lambda: requests.get(f"{url}/health", timeout=5).ok)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120)
        answer = client.chat.completions.create(model="plain", messages=QUESTION)
        assert answer.choices[0].message.content == PLAIN, answer
        print("our controller and server, FastChat's worker:", answer.choices[0].message.content)


main()
