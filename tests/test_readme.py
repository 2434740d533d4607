"""What the README promises works: its commands run, its links lead somewhere, its Python is Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.eval.biased_judge import serve
from tests.tiny import make_tiny
from tests.tiny_hf import make_tiny_hf
from tests.train.chains import some_chains, write_chains

from selfee.weights.quants import QuantType

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line.partition(" # ")[0].strip() for line in lines if line.startswith(program + " ")]


EVALUATED = "run"
"""The folder that the commands about judging share, one after the other."""


def on_the_way_to(command: str) -> list[str]:
    """The command, after those before it that make what it reads."""
    if EVALUATED not in re.split(r"[ /]", command):
        return [command]
    tour = [each for each in commands("selfee") if EVALUATED in re.split(r"[ /]", each)]
    return tour[: tour.index(command) + 1]


@contextmanager
def judged_here(command: str) -> Iterator[str]:
    """The command, with a judge that lives on this machine."""
    with serve() as server:
        yield command.replace("https://host/v1#judge", f"{server.url}#judge") + (
            " --price-in 1 --price-out 1" if "#judge" in command else ""
        )


def write_sets(folder: Path) -> None:
    """Questions, problems and answers in their published forms."""
    rows: dict[str, list[dict[str, object]]] = {
        "question.jsonl": [{"question_id": 1, "text": "Why is the sky blue?", "category": "generic"}],
        "chatgpt.jsonl": [{"question_id": 1, "text": "It is.", "answer_id": "a", "model_id": "m", "metadata": {}}],
        "gsm8k.jsonl": [{"question": "What is 3 + 4?", "answer": "3 + 4 = 7\n#### 7"}],
        "train.jsonl": [{"question": "What is 2 + 4?", "answer": "2 + 4 = 6\n#### 6"}],
    }
    for name, told in rows.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with the files that the README's commands name, and a model that says what it was told to."""
    replies: list[dict[str, object]] = [
        {"text": text} for text in ("Because.", "Too short. Revision is needed.", "Air scatters blue light.") * 9
    ]
    script = tmp_path / "replies.jsonl"
    replies.append({"engine": {"strict": False}})
    script.write_text("".join(json.dumps(reply) + "\n" for reply in replies), encoding="utf-8")
    write_sets(tmp_path)
    write_chains(tmp_path / "chains.jsonl", some_chains(2))
    (tmp_path / "notes.txt").write_text("We met and agreed.\n", encoding="utf-8")
    make_tiny(tmp_path / "model.gguf")
    make_tiny(tmp_path / "model-f16.gguf", type=QuantType.F16)
    (tmp_path / "models").mkdir()
    make_tiny(tmp_path / "models" / "tiny-f16.gguf", type=QuantType.F16)
    (tmp_path / "prose.txt").write_text("The sky is blue because light scatters. " * 200, encoding="utf-8")
    for seed, folder in enumerate(("base", "tuned")):
        make_tiny_hf(tmp_path / folder, seed=seed)
    shim = tmp_path / "bin" / "selfee"
    shim.parent.mkdir()
    shim.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from selfee.cli import main; main()' \"$@\"\n")
    shim.chmod(0o755)
    return tmp_path


def run(command: list[str], workplace: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PATH": f"{workplace / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "SELFEE_MODEL": f"script:{workplace / 'replies.jsonl'}",
        "SELFEE_MODELS": str(workplace / "models"),
        "SELFEE_SEED": "1",  # a random model may never end its answer
    }
    return subprocess.run(
        command, cwd=workplace, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_first_two_commands_show_the_main_job_and_run_the_tests() -> None:
    assert commands("make")[:2] == ["make demo", "make test"]


def test_every_make_word_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {command.split()[1] for command in commands("make")} <= targets


def test_the_examples_are_found() -> None:
    assert len(commands("selfee")) >= 4
    assert blocks("python")


@pytest.mark.parametrize("command", commands("selfee"))
def test_a_command_of_the_readme_works(command: str, workplace: Path) -> None:
    if command.startswith("selfee train "):
        pytest.importorskip("peft", reason="the extra train is not installed")
    for each in on_the_way_to(command):
        with judged_here(each) as words:
            done = run(["sh", "-c", words], workplace)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_the_python_of_the_readme_works(workplace: Path) -> None:
    script = f"script:{workplace / 'replies.jsonl'}"
    code = "".join(blocks("python")).replace("smollm2-135m", script)
    assert script in code
    done = run([sys.executable, "-c", code], workplace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_link_of_readme_and_docs_leads_to_a_file() -> None:
    missing = []
    for page in [ROOT / "README.md", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert missing == []


def test_the_readme_stays_short() -> None:
    assert README.count("\n") <= 100
