"""llama.cpp's server as somebody else's engine behind a worker of ours: controller, worker and web are selfee's.

The text that comes through all of them must be the one that llama.cpp gives when it is asked itself.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import openai
import xllamacpp

SELFEE = os.environ["SELFEE_PROGRAM"].split(os.pathsep)
FILE = json.loads(os.environ["SELFEE_MODEL_FILES"])["quantised"]
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
PROMPT = "The sky is blue because"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, condition, seconds=120):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError, ValueError, KeyError, urllib.error.URLError):
            if condition():
                return
        time.sleep(0.2)
    raise SystemExit(f"{what}: did not come about within {seconds} s")


def read(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    return json.load(urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"})))


def start(parts, folder, *words):
    command = [*SELFEE, "serve", "--no-log-requests", *map(str, words)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts.callback(process.wait, 30)
    parts.callback(process.terminate)


def greedy(client, model, **more):
    row = client.completions.create(model=model, prompt=PROMPT, max_tokens=24, temperature=0, **more)
    return row.choices[0].text


params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.verbosity, params.port = FILE, 4096, 1, -1, 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = (
    1  # several wait for each other where others compute, too
)
server = xllamacpp.Server(params)  # ends with its name
upstream = server.listening_address

with contextlib.ExitStack() as parts:
    folder = parts.enter_context(tempfile.TemporaryDirectory())
    controller, worker, web = free_port(), free_port(), free_port()
    words = ("--controller", f"http://127.0.0.1:{controller}")
    start(parts, folder, "--role", "controller", "--port", controller)
    remote = f"theirs={upstream}/v1#{os.path.basename(FILE)}"
    start(parts, folder, "--role", "worker", "--port", worker, "-m", remote, "--mode", "turns", *words)
    listed = f"http://127.0.0.1:{controller}/list_models"
    wait_for("the worker", lambda: read(listed, {})["models"] == ["theirs"])
    start(parts, folder, "--role", "web", "--port", web, *words)
    wait_for("the web", lambda: read(f"http://127.0.0.1:{web}/health"))

    ours = openai.OpenAI(base_url=f"http://127.0.0.1:{web}/v1", api_key="none", timeout=300)
    itself = openai.OpenAI(base_url=f"{upstream}/v1", api_key="none", timeout=300)
    text = greedy(itself, os.path.basename(FILE), extra_body={"cache_prompt": False})
    assert greedy(ours, "theirs") == text, (greedy(ours, "theirs"), text)
    print(f"llama.cpp behind controller and worker continues as it does alone: {text[:40]!r}")

    asked = {"model": "theirs", "messages": QUESTION, "temperature": 0}
    short = ours.chat.completions.create(**asked, max_tokens=24, extra_body={"selfee": {"mode": "off"}})
    assert short.choices[0].message.content, short
    print(f"chat: {short.choices[0].message.content[:40]!r}, {short.usage.completion_tokens} tokens")
    options = {"selfee": {"min_revisions": 1, "max_revisions": 1}}
    stream = ours.chat.completions.create(**asked, max_tokens=2500, stream=True, extra_body=options)
    chunks = list(stream)
    marks = [(chunk.model_extra or {}).get("selfee", {}) for chunk in chunks]
    kinds = [mark["type"] for mark in marks if mark.get("event") == "start"]
    assert kinds[:3] == ["answer", "feedback", "revision"], (kinds, marks[-1])
    final = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert final, marks[-1]
    print(f"stream: {', '.join(kinds)}, then the final answer of {len(final)} characters")
sys.stdout.flush()
os._exit(0)  # its own server's threads would go on
