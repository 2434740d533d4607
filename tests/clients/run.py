"""Run clients of others against a server of ours: ``python tests/clients/run.py [NAME …]``.

Makes each client an environment of its own with the versions it pins, starts ``selfee serve``, runs the client's own
script with the server's address, and prints what it prints. The exit code is the number of clients that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "clients"
NEEDS_MODEL = ("llama_cpp", "lm_eval")
"""Clients that need what no script can give: the likelihood of tokens, or a file of their own."""

TARGET = (
    "The sky reflects the ocean.\n\n### Feedback 1:\nReflection is not the cause. Revision is needed.\n\n"
    "### Revision 1:\nThe air scatters blue light more than red.\n\n"
    "### Feedback 2:\nCorrect and clear. Revision is not needed."
)


def main() -> int:
    """Run the clients named, or all."""
    names = sorted(path.parent.name for path in HERE.glob("*/check.*"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*names, []], help=f"clients: {', '.join(names)}")
    parser.add_argument("--model", default="smollm2-135m", help="model for clients that need one")
    options = parser.parse_args()
    failed = 0
    for name in options.names or names:
        print(f"== {name}", flush=True)
        try:
            command = prepare(name)
        except subprocess.CalledProcessError as error:
            print(f"{name}: could not be installed ({error})")
            failed += 1
            continue
        files = files_of(options.model) if name in NEEDS_MODEL else {}
        with served(files) as url:
            environ = environment(name) | {"SELFEE_MODEL_FILES": json.dumps(files)}
            done = subprocess.run([*command, url], cwd=HERE / name, env=environ, timeout=1800, check=False)
        print(f"== {name}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
        failed += done.returncode != 0
    return failed


def prepare(name: str) -> list[str]:
    """Install a client where that was not done yet; returns the command that runs its script."""
    folder, home = HERE / name, BUILD / name
    if (folder / "package.json").exists():
        home.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            shutil.copy(file, home)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=home, check=True)
        return ["node", str(home / "check.mjs")]
    python = home / "bin" / "python"
    pins = (folder / "requirements.txt").read_text(encoding="utf-8")
    note = home / "installed.txt"
    if not note.exists() or note.read_text(encoding="utf-8") != pins:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        command = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            "requirements.txt",
        ]
        subprocess.run(command, cwd=folder, check=True)
        note.write_text(pins, encoding="utf-8")
    return [str(python), "check.py"]


def environment(name: str) -> dict[str, str]:
    """Nothing of this machine's settings for models and keys, and a home that may be written to."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "SELFEE_", "HF_", "LLM_"))
    }
    home = BUILD / "homes" / name
    home.mkdir(parents=True, exist_ok=True)
    ours = {"SELFEE_PROGRAM": os.pathsep.join((sys.executable, "-m", "selfee.cli")), "SELFEE_SCRIPT": script()}
    return (
        clean
        | ours
        | {"OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1", "LLM_USER_PATH": str(home), "NO_COLOR": "1"}
        | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    )


def files_of(model: str) -> dict[str, str]:
    """The files to serve: a model as it is, and its very weights in 16 bits, of which no engine rounds its inputs."""
    program = [sys.executable, "-m", "selfee.cli"]
    file = str(Path(model).resolve())
    if not Path(model).is_file():
        file = subprocess.run([*program, "models", "path", model], capture_output=True, text=True, check=True).stdout
    halves = BUILD / "halves.gguf"
    BUILD.mkdir(parents=True, exist_ok=True)
    command = [*program, "quantize", file.strip(), str(halves), "f16", "--allow-requantize", "--quiet"]
    subprocess.run(command, check=True)
    return {"selfee": str(halves), "quantised": file.strip()}


@contextlib.contextmanager
def served(files: Mapping[str, str]) -> Iterator[str]:
    """A server with model files, or with a script that revises once; its address."""
    words = [word for name, file in files.items() for word in ("-m", f"{name}={file}")]
    words = words or ["-m", f"selfee={script()}", "--mode", "single-pass"]
    command = [sys.executable, "-m", "selfee.cli", "serve", "--port", "0", "--no-log-requests", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if " at http" in line:
                yield line.split(" at ")[1].split()[0]
                break
        else:
            raise RuntimeError("the server did not start")
    finally:
        process.terminate()
        process.wait(60)


def script() -> str:
    """A script that gives everybody the same chain, slowly enough to be cancelled."""
    path = BUILD / "replies.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"engine": {"strict": False}}, {"text": TARGET, "delay": 0.01, "when": {"pattern": ""}}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"script:{path}"


if __name__ == "__main__":
    raise SystemExit(main())
