"""The thread pool: every part done once, whether threads spin, sleep, or are more than the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.tiny import make_tiny

from selfee.errors import UsageError
from selfee.llama.model import Model, Session
from selfee.weights.quants import QuantType


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
def test_pauses_of_any_length_between_evaluations_do_no_harm(threads: int, tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", type=QuantType.Q4_0)
    with Model.load(path, threads=1) as model:
        expected = model.new_session().forward(list(range(24)), "all")
    with Model.load(path, threads=threads) as model:
        session = model.new_session()
        for token in range(24):
            row = session.forward([token])[0]
            assert row.tobytes() == expected[token].tobytes()
            time.sleep((0, 0, 0.0001, 0.001, 0.01)[token % 5])  # workers still spinning, about to sleep, asleep


def test_a_model_is_made_and_dropped_many_times_without_a_thread_left_behind(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf")
    before = threads_of_process()
    for number in range(30):
        model = Model.load(path, threads=4)
        if number % 2:
            model.new_session().forward([1, 2, 3])
        model.close()
        del model
    assert threads_of_process() <= before


def threads_of_process() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 0


def test_two_models_compute_at_the_same_time(tmp_path: Path) -> None:
    paths = [make_tiny(tmp_path / f"{seed}.gguf", seed=seed) for seed in range(2)]
    models = [Model.load(path, threads=2) for path in paths]
    tokens = np.arange(200).tolist()
    expected = [model.new_session().forward(tokens).tobytes() for model in models]
    found: list[list[bytes]] = [[], []]

    def work(index: int) -> None:
        for _ in range(5):
            found[index].append(models[index].new_session().forward(tokens).tobytes())

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[expected[0]] * 5, [expected[1]] * 5]


def test_a_long_prompt_lets_another_session_in_between_its_batches(tmp_path: Path) -> None:
    model = Model.load(make_tiny(tmp_path / "tiny.gguf", n_layer=8, n_ctx=8000), threads=1)
    long, short = model.new_session(), model.new_session()
    expected = model.new_session().forward([5]).tobytes()
    worker = threading.Thread(target=long.forward, args=([token % 200 for token in range(7000)],))
    worker.start()
    while not found_busy(long):  # it must have begun
        assert worker.is_alive()
    assert short.forward([5]).tobytes() == expected
    assert worker.is_alive()
    worker.join()


def found_busy(session: Session) -> bool:
    try:
        session.truncate(0)
    except UsageError:
        return True
    return False


def test_a_daemon_thread_that_computes_when_python_ends_does_no_harm(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_layer=8, n_ctx=8000)
    program = f"""
import threading, time
from selfee.llama.model import Model, Session
session = Model.load({str(path)!r}, threads=2).new_session()
tokens = [token % 200 for token in range(7000)]
threading.Thread(target=session.forward, args=(tokens,), daemon=True).start()
time.sleep(0.05)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_session_in_use_by_one_thread_refuses_another_and_keeps_what_it_computed(tmp_path: Path) -> None:
    model = Model.load(make_tiny(tmp_path / "tiny.gguf", n_layer=8, n_ctx=4000), threads=1)
    session = model.new_session()
    tokens = [token % 200 for token in range(3000)]
    refused = []
    worker = threading.Thread(target=session.forward, args=(tokens,))
    worker.start()
    while worker.is_alive():
        try:
            session.truncate(0)
        except UsageError as error:
            refused.append(str(error))
        time.sleep(0.01)
        if refused:
            with pytest.raises(UsageError, match="another thread"):
                session.forward([1])
            break
    worker.join()
    assert refused
    assert session.length == 3000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_drops_a_model_whose_threads_it_did_not_inherit(tmp_path: Path) -> None:
    model = Model.load(make_tiny(tmp_path / "tiny.gguf"), threads=3)
    model.new_session().forward([1, 2, 3])
    time.sleep(0.1)  # its threads sleep
    child = os.fork()
    if child == 0:
        del model
        os._exit(0)
    for _ in range(500):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended, "the child hangs"
    assert status == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_makes_models_with_threads_of_its_own(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf")
    with Model.load(path, threads=3) as model:
        expected = model.new_session().forward([1, 2, 3]).tobytes()[:64]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        before = threads_of_process()
        model = Model.load(path, threads=3)
        os.write(writer, model.new_session().forward([1, 2, 3]).tobytes()[:64])
        os._exit(threads_of_process() - before)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == expected
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (2 if threads_of_process() else 0)


_CROWDED = """
import resource, sys
from selfee.llama.model import Model, Session
Model.load(sys.argv[1], threads=1).new_session().forward([1, 2, 3])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)  # room for some stacks, not for all
model = Model.load(sys.argv[1], threads=500)
print(model.new_session().forward([1, 2, 3]).argmax())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_where_the_system_refuses_threads_the_model_works_with_fewer(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf")
    with Model.load(path, threads=1) as model:
        expected = model.new_session().forward([1, 2, 3]).argmax()
    ran = subprocess.run([sys.executable, "-c", _CROWDED, str(path)], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{expected}\n", "")
