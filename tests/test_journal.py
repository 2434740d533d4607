"""Proves src/selfee/journal: what was put stays, whoever is killed; one asks at a time."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.errors import BadFileError, UnsupportedFileError, UsageError
from selfee.journal import Journal, Merged, canonical_json, key_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5))
def test_a_key_does_not_depend_on_the_order_of_fields(asked: dict[str, Any]) -> None:
    turned = dict(reversed(list(asked.items())))
    assert key_of(asked) == key_of(turned)


def test_a_whole_float_and_an_integer_ask_the_same() -> None:
    assert key_of({"temperature": 1.0}) == key_of({"temperature": 1})
    assert key_of({"temperature": 1.0}) != key_of({"temperature": True})
    assert canonical_json({"b": (1.5,), "a": "é"}) == '{"a":"\\u00e9","b":[1.5]}'


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(UsageError, match="plain JSON values"):
        key_of({"bias": float("inf")})
    with pytest.raises(UsageError, match="plain JSON values"):
        key_of({"set": {1}})


def test_an_answer_is_there_after_closing_and_opening(tmp_path: Path) -> None:
    asked = {"prompt": "2+2"}
    with Journal(tmp_path / "journal.db") as journal:
        assert journal.get(key_of(asked)) is None
        journal.put(key_of(asked), asked, {"text": "4 ½"}, cost=0.25)
    with Journal(tmp_path / "journal.db") as journal:
        assert journal.get(key_of(asked)) == {"text": "4 ½"}
        assert (len(journal), journal.spent()) == (1, 0.25)
        (entry,) = journal.entries()
        assert (entry.asked, entry.reply, entry.cost) == (asked, {"text": "4 ½"}, 0.25)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.db"]


def test_a_first_answer_stays(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.put("k", 1, "first", cost=1.0)
        journal.put("k", 1, "second", cost=1.0)
        assert journal.get("k") == "first"
        assert journal.spent() == 1.0


def test_one_thread_of_many_gets_the_right_to_ask(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        claims = []
        threads = [threading.Thread(target=lambda: claims.append(journal.claim("k", 1))) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(claim.is_mine for claim in claims) == 1
        journal.fail("k", {"kind": "server"})
        claim = journal.claim("k", 1)
        assert (claim.is_mine, claim.failures, claim.was_orphaned) == (True, 1, False)
        journal.release("k")
        assert journal.claim("k", 1).failures == 1
        journal.put("k", 1, "yes")
        assert journal.claim("k", 1).reply == "yes"
        entry = journal.find("k")
        assert entry is not None
        assert entry.fault == {"kind": "server"}


_HOLDER = """
import sys, time
from selfee.journal import Journal
journal = Journal(sys.argv[1])
for number in range(10**6):
    claim = journal.claim(f"key {number}", number)
    print(number, flush=True)
    if number == int(sys.argv[2]):
        time.sleep(100)
    journal.put(f"key {number}", number, number * 2)
"""


def hold(path: Path, number: int) -> subprocess.Popen[str]:
    """A process that has put answers below ``number`` and claimed that one."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path), str(number)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != str(number):
        assert process.poll() is None
    return process


def test_a_killed_process_loses_no_answer_and_its_claim_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j"
    process = hold(path, 20)
    with Journal(path) as journal:
        waiting = journal.claim("key 20", 20)
        assert not waiting.is_mine
        assert not waiting.is_done
        assert journal.num_orphaned() == 0
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert journal.num_orphaned() == 1
        claim = journal.claim("key 20", 20)
        assert claim.is_mine
        assert claim.was_orphaned
        assert [journal.get(f"key {number}") for number in range(20)] == [number * 2 for number in range(20)]


def test_several_processes_write_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "j"
    script = (
        "import sys; from selfee.journal import Journal\n"
        "with Journal(sys.argv[1]) as journal:\n"
        "    for n in range(60):\n"
        "        if journal.claim(str(n), n).is_mine: journal.put(str(n), n, [sys.argv[2], n])\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, str(path), str(number)]) for number in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    with Journal(path) as journal:
        assert sorted(entry.reply[1] for entry in journal.entries() if entry.reply) == list(range(60))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["j"]


def test_notes_are_kept_by_space_and_name(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.note("rows", "b", {"done": True})
        journal.note("rows", "a", [1])
        journal.note("rows", "a", [2])
        journal.note("other", "a", 1)
        assert list(journal.notes("rows")) == [("a", [2]), ("b", {"done": True})]
        journal.forget_note("rows", "a")
        assert journal.read_note("rows", "a") is None
        assert journal.read_note("rows", "b") == {"done": True}


def test_merging_takes_what_is_new_and_counts_what_was_asked_twice(tmp_path: Path) -> None:
    with Journal(tmp_path / "one") as one, Journal(tmp_path / "two") as two:
        for journal, numbers in ((one, range(6)), (two, range(4, 10))):
            for number in numbers:
                journal.put(str(number), number, number if number != 5 else journal.path.name, cost=1.0)
        two.claim("unanswered", 0)
        two.note("rows", "x", 1)
    with Journal(tmp_path / "one") as one:
        assert one.merge(tmp_path / "two") == Merged(added=4, known=2, conflicting=1)
        assert one.merge(tmp_path / "two") == Merged(added=0, known=6, conflicting=1)
        assert (one.get("5"), one.get("9"), one.read_note("rows", "x"), one.spent()) == ("one", 9, 1, 10.0)
        assert one.find("unanswered") is None


def test_a_file_of_something_else_is_refused_with_a_reason(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database, but long enough to be one " * 10)
    with pytest.raises(BadFileError, match="not a database"):
        Journal(text)
    other = tmp_path / "other"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE things (x)")
    connection.close()
    with pytest.raises(BadFileError, match="something else"):
        Journal(other)
    with pytest.raises(BadFileError, match="is a folder"):
        Journal(tmp_path)
    assert text.read_text().startswith("no database")
    assert not list(tmp_path.glob("*owner*"))


def test_signs_of_killed_processes_are_swept_up_and_those_of_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "j"
    script = (
        "import sys, time\nfrom selfee.journal import Journal\n"
        "Journal(sys.argv[1])\nprint('open', flush=True)\ntime.sleep(60)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
        assert len(list(tmp_path.glob("j-owner-*"))) == 3
        for process in processes[:2]:
            process.kill()
            process.wait()
        with Journal(path):
            assert len(list(tmp_path.glob("j-owner-*"))) == 2
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def test_a_journal_of_a_newer_selfee_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "j"):
        pass
    with sqlite3.connect(tmp_path / "j") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UnsupportedFileError, match="version 99"):
        Journal(tmp_path / "j")


def test_a_damaged_journal_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        for number in range(300):
            journal.put(str(number), number, "x" * 200)
    raw = bytearray(path.read_bytes())
    raw[8192:40960] = os.urandom(40960 - 8192)
    path.write_bytes(raw)

    def read_all() -> None:
        with Journal(path) as journal:
            for number in range(300):
                journal.get(str(number))
            list(journal.entries())

    with pytest.raises(BadFileError, match="damaged"):
        read_all()


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.close()
    with pytest.raises(UsageError, match="closed"):
        journal.put("k", 1, 1)
    with pytest.raises(UsageError, match="closed"):
        journal.get("k")


def test_writes_of_many_threads_share_their_syncs(tmp_path: Path) -> None:
    commits = []
    with Journal(tmp_path / "j") as journal:
        journal._writer._connection.set_trace_callback(lambda text: commits.append(text == "COMMIT"))
        started = threading.Barrier(32)

        def work(number: int) -> None:
            started.wait()
            for again in range(10):
                journal.put(f"{number}/{again}", 1, 1)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0)
        assert len(journal) == 320
    assert sum(commits) < 320
