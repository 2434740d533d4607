"""What every story about the command line needs: a script of replies and a clean environment."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from selfee.cli.run import run

QUESTION = "Why is the sky blue?"
FIRST = "The sky reflects the ocean far below it, day and night."
SECOND = "The sky scatters blue light in all directions, day and night."
CRITICAL = "Reflection is not the cause. Revision is needed."
CONTENT = "Correct and clear. Revision is not needed."
ROOT = Path(__file__).resolve().parents[2]


def reply(text: str, **fields: object) -> dict[str, object]:
    return {"text": text} | fields


ONE_REVISION = (reply(FIRST), reply(CRITICAL), reply(SECOND), reply(CONTENT))


def write_script(path: Path, replies: Sequence[Mapping[str, object]] = ONE_REVISION) -> str:
    """A script at ``path``; returns what -m wants."""
    rows = [{"engine": {"strict": False}}, *replies]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"script:{path}"


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(stream.encoding)


class _Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Outcome(NamedTuple):
    """What came of a command."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Shell:
    """Runs ``selfee`` as a process in ``folder``, with nothing of this machine's settings."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    is_terminal: bool = False

    @property
    def environ(self) -> dict[str, str]:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("SELFEE_", "HF_", "OPENAI_"))
        }
        clean |= {
            "PYTHONPATH": str(ROOT / "src"),
            "SELFEE_MODELS": str(self.folder / "models"),
            "PIP_NO_INDEX": "1",
            "COLUMNS": "80",
            "PYTHONIOENCODING": "utf-8",
        }
        clean.pop("NO_COLOR", None)
        return clean | self.variables

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "selfee.cli", *words]

    def run(self, *words: str, stdin: str | bytes = "", check: int | None = 0) -> Outcome:
        """Run within this process (a new one takes a second); ``check`` is the exit code expected, None = any."""
        kind = _Terminal if self.is_terminal else io.TextIOWrapper
        streams = [kind(io.BytesIO(), encoding=self.encoding, newline="") for _ in range(2)]
        source = io.TextIOWrapper(io.BytesIO(stdin if isinstance(stdin, bytes) else stdin.encode()), encoding="utf-8")
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            with (
                mock.patch.dict(os.environ, self.environ, clear=True),
                mock.patch.object(sys, "stdin", source),
                mock.patch.object(sys, "stdout", streams[0]),
                mock.patch.object(sys, "stderr", streams[1]),
            ):
                code = run(words)
        finally:
            os.chdir(before)
        out, err = (_written(stream) for stream in streams)
        assert check is None or code == check, (code, out, err)
        return Outcome(code, out, err)

    def run_process(self, *words: str) -> Outcome:
        """Run as a user does."""
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a process and come back at once."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
