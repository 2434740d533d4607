"""Programs that misbehave: whatever they do, we come back in time and nothing of them stays."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from selfee.chain.checkers.process import Outcome, run_bounded
from selfee.errors import EngineError


def python(program: str, stdin: str = "", timeout: float = 20.0) -> Outcome:
    return run_bounded([sys.executable, "-I", "-S", "-c", program], stdin.encode(), timeout)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails if the block takes longer: generous, it only tells hanging from not hanging."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(pid)


def test_it_reads_what_it_is_given_and_says_how_it_ended() -> None:
    outcome = python("import sys; text = sys.stdin.read(); print(text[::-1]); sys.exit(len(text))", "abc")
    assert outcome == Outcome(3, "cba\n", "")


def test_both_outputs_are_kept_apart() -> None:
    assert python("import sys; print('a'); print('b', file=sys.stderr)") == Outcome(0, "a\n", "b\n")


def test_a_large_input_and_a_large_output_do_not_wait_for_each_other() -> None:
    text = "x" * (3 << 20)
    outcome = python("import sys\nfor c in iter(lambda: sys.stdin.read(999), ''): sys.stdout.write(c)", text)
    assert outcome.code == 0
    assert outcome.stdout == "x" * (64 << 10), "the end of it is kept"


def test_one_that_does_not_read_is_not_waited_for() -> None:
    with within(20):
        assert python("print(1)", "x" * (1 << 20)) == Outcome(0, "1\n", "")


def test_one_that_hangs_is_killed() -> None:
    with within(15):
        assert python("import time; print('so far', flush=True); time.sleep(60)", timeout=1.0) == Outcome(
            None, "so far\n", ""
        )


def test_one_that_ignores_polite_signals_or_stops_itself_is_killed_too() -> None:
    ignoring = "import signal, time\nfor s in (15, 2, 1): signal.signal(s, signal.SIG_IGN)\ntime.sleep(60)"
    stopped = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    for program in (ignoring, stopped):
        with within(15):
            assert python(program, timeout=0.5).code is None


def test_output_without_end_is_bounded_in_memory_and_time() -> None:
    with within(15):
        outcome = python("while True: print('x' * 10000)", timeout=1.0)
    assert outcome.code is None
    assert len(outcome.stdout) <= 64 << 10


def test_one_that_closes_its_outputs_and_goes_on_is_killed() -> None:
    with within(15):
        assert python("import os, time; os.close(1); os.close(2); time.sleep(60)", timeout=0.5).code is None


def test_children_die_with_it_and_do_not_hold_us_by_its_pipes() -> None:
    program = (
        "import os, time\nchild = os.fork()\n"
        "if child == 0:\n    time.sleep(60)\nelse:\n    print(child, flush=True)\n    os._exit(0)"
    )
    with within(15):
        outcome = python(program)
    assert outcome.code == 0
    assert wait_until_gone(int(outcome.stdout))


def test_a_child_that_leaves_the_group_does_not_hold_us() -> None:
    program = (
        "import os, time\nchild = os.fork()\n"
        "if child == 0:\n    os.setsid()\n    time.sleep(30)\nelse:\n    print(child, flush=True)\n    time.sleep(0.3)"
    )
    with within(15):
        outcome = python(program)
    assert outcome.code == 0
    os.kill(int(outcome.stdout), signal.SIGKILL)


def test_one_that_forks_without_end_is_killed_with_all_its_children() -> None:
    program = (
        "import os, time\nfor _ in range(30):\n    if os.fork() == 0:\n        time.sleep(60)\n        os._exit(0)\n"
        "print(os.getpgid(0), flush=True)\ntime.sleep(60)"
    )
    with within(20):
        outcome = python(program, timeout=3.0)
    assert outcome.code is None
    group = int(outcome.stdout)
    deadline = time.monotonic() + 10
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not members(group)


def members(group: int) -> list[int]:
    """Processes of a group that still run."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group and fields[0] not in "ZX":
                found.append(int(path.name))
    return found


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
def test_a_signal_is_a_negative_code(name: str) -> None:
    number = signal.Signals[name]
    assert python(f"import os; os.kill(os.getpid(), {int(number)})").code == -number


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    assert python("import sys; sys.stdout.buffer.write(bytes([255, 65]))").stdout == "\ufffdA"


def test_an_interrupt_kills_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "pid"

    def interrupt(child: object) -> bool:
        if place.exists() and place.read_text():
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr("selfee.chain.checkers.process._has_ended", interrupt)
    program = f"import os, time; open({str(place)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with within(20), pytest.raises(KeyboardInterrupt):
        python(program)
    assert wait_until_gone(int(place.read_text()))


def test_where_nobody_can_know_its_exit_code_that_is_an_error_and_no_success() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(EngineError, match="exit code"):
            python("import sys; sys.exit(1)")
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_the_environment_is_ours_or_the_one_given() -> None:
    program = [sys.executable, "-S", "-c", "import os; print(sorted(os.environ))"]
    assert "'ONLY'" in run_bounded(program, b"", 20, {"ONLY": "1"}).stdout
    assert "'PATH'" not in run_bounded(program, b"", 20, {"ONLY": "1"}).stdout
    assert "'PATH'" in run_bounded(program, b"", 20).stdout
