"""Saved and restored is as if it had been read again; a damaged file is refused and changes nothing."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.llama.craft_session import cells_of, craft_session
from tests.tiny import make_tiny

from selfee.errors import (
    BadFileError,
    ContextOverflowError,
    ResourceError,
    SelfeeError,
    UnsupportedFileError,
    UsageError,
)
from selfee.llama.model import Model, Session
from selfee.llama.reference import ReferenceSession
from selfee.llama.session_file import is_session_file, load_session, save_session, session_bytes
from selfee.weights.quants import QuantType

SHAPES: list[dict[str, object]] = [
    {"n_head_kv": 2, "type": QuantType.Q4_1},
    {"n_head": 8, "n_head_kv": 2, "head_dim": 10},  # rows of values are padded in memory
    {"architecture": "qwen3", "head_dim": 32, "n_head_kv": 1, "n_layer": 3},
]


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = make_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", n_ctx=700, **request.param)
    with Model.load(path, threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """The smallest: most of its file is structure."""
    path = make_tiny(tmp_path_factory.mktemp("one") / "tiny.gguf", n_head_kv=2, n_ctx=300)
    with Model.load(path, threads=1) as loaded:
        yield loaded


def some_tokens(count: int, vocabulary: int, seed: int = 0) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, vocabulary, count).tolist()
    return tokens


def session_of(model: Model, tokens: Sequence[int]) -> Session:
    session = model.new_session()
    session.forward(tokens)
    return session


def saved(model: Model, path: Path, count: int = 3, seed: int = 0) -> list[int]:
    """A file of ``count`` tokens."""
    tokens = some_tokens(count, model.config.vocabulary, seed)
    save_session(path, session_of(model, tokens), tokens)
    return tokens


def refuse(path: Path, model: Model, kind: type[SelfeeError] = BadFileError) -> str:
    """The file is refused in one printable line, and the session is as empty and as good as before."""
    session = model.new_session()
    with pytest.raises(kind) as caught:
        load_session(path, session)
    assert session.length == 0
    assert session.forward([1, 2]).tobytes() == session_of(model, [1]).forward([2]).tobytes()
    line = str(caught.value)
    assert line.startswith(str(path))
    assert line.isprintable()
    assert len(line) < 1000
    return line


NEAR_BORDERS = st.sampled_from([1, 2, 15, 16, 17, 254, 255, 256, 257, 271, 272, 273, 511, 512, 513, 600])


@settings(max_examples=20)
@given(NEAR_BORDERS, st.lists(st.tuples(st.integers(0, 650), st.integers(1, 60)), max_size=3), st.integers(0, 2**32))
def test_restored_cut_back_and_regrown_equals_fresh_to_the_bit(
    tiny: Model, tmp_path_factory: pytest.TempPathFactory, count: int, cuts: list[tuple[int, int]], seed: int
) -> None:
    path = tmp_path_factory.mktemp("session") / "s"
    held = saved(tiny, path, count, seed)
    session = tiny.new_session()
    assert load_session(path, session) == held
    for number, (cut, grow) in enumerate([(700, 1), *cuts]):
        keep = min(cut, len(held))
        session.truncate(keep)
        held = (held[:keep] + some_tokens(grow, tiny.config.vocabulary, seed + number + 1))[:700]
        if len(held) > keep:
            last = session.forward(held[keep:], "all")[-1]
            assert last.tobytes() == tiny.new_session().forward(held).tobytes()


def test_a_session_with_a_past_saves_what_a_fresh_one_would(tiny: Model, tmp_path: Path) -> None:
    tokens = some_tokens(300, tiny.config.vocabulary)
    used = session_of(tiny, some_tokens(600, tiny.config.vocabulary, 1))
    used.truncate(0)
    used.forward(tokens[:7])
    used.forward(tokens[7:])
    save_session(tmp_path / "used", used, tokens)
    save_session(tmp_path / "fresh", session_of(tiny, tokens), tokens)
    assert (tmp_path / "used").read_bytes() == (tmp_path / "fresh").read_bytes()
    save_session(tmp_path / "part", used, tokens[:260])
    save_session(tmp_path / "short", session_of(tiny, tokens[:260]), tokens[:260])
    assert (tmp_path / "part").read_bytes() == (tmp_path / "short").read_bytes()


@pytest.mark.parametrize("count", [1, 256, 300])
def test_the_bytes_are_those_of_the_page_that_describes_them(tiny: Model, tmp_path: Path, count: int) -> None:
    tokens = saved(tiny, tmp_path / "s", count)
    keys, values = cells_of(session_of(tiny, tokens))
    expected = craft_session(tiny.config, tiny.fingerprint(), "tiny.gguf", tokens, keys, values)
    assert (tmp_path / "s").read_bytes() == expected
    assert len(expected) == session_bytes(tiny.config, count)


def test_cells_are_the_twins_keys_and_values(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_head=8, n_head_kv=2, head_dim=10, n_ctx=700)
    with Model.load(path, threads=1) as loaded:
        tokens = some_tokens(270, loaded.config.vocabulary)
        twin = ReferenceSession(loaded.checkpoint)
        twin.forward(tokens)
        keys, values = cells_of(session_of(loaded, tokens))
        assert np.abs(keys.astype(np.float32) - np.stack(twin._keys)).max() < 0.01
        assert np.abs(values.astype(np.float32) - np.stack(twin._values)).max() < 0.01


def test_threads_packing_and_another_process_read_the_same_file(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", type=QuantType.Q4_0, n_ctx=700)
    tokens = some_tokens(300, 50)
    with Model.load(path, threads=1) as plain, Model.load(path, threads=3, packed=True) as packed:
        files = []
        for number, loaded in enumerate((plain, packed)):
            save_session(tmp_path / str(number), session_of(loaded, tokens), tokens)
            files.append((tmp_path / str(number)).read_bytes())
        assert files[0] == files[1]
    program = (
        "import sys; from pathlib import Path; from selfee.llama.model import Model\n"
        "from selfee.llama.session_file import load_session, save_session\n"
        "session = Model.load(sys.argv[1], threads=2).new_session(); tokens = load_session(sys.argv[2], session)\n"
        "save_session(sys.argv[3], session, tokens)"
    )
    environment = os.environ | {"SELFEE_ISA": "scalar", "PYTHONPATH": os.pathsep.join(sys.path)}
    names = [str(path), str(tmp_path / "0"), str(tmp_path / "again")]
    subprocess.run([sys.executable, "-c", program, *names], env=environment, check=True, timeout=60)
    assert (tmp_path / "again").read_bytes() == files[0]


def test_every_single_byte_matters(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "s"
    saved(model, path)
    sound = path.read_bytes()
    session = model.new_session()
    for at in range(len(sound)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ (1 << at % 8)]) + sound[at + 1 :])
        with pytest.raises(BadFileError):
            load_session(path, session)
        assert session.length == 0
    path.write_bytes(sound)
    load_session(path, session)


def test_every_truncation_and_every_addition_is_noticed(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "s"
    saved(model, path)
    sound = path.read_bytes()
    session = model.new_session()
    for damaged in (*(sound[:end] for end in range(len(sound))), sound + b"\0", sound + sound):
        path.write_bytes(damaged)
        with pytest.raises(BadFileError):
            load_session(path, session)
        assert session.length == 0


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(1, 255)), min_size=1, max_size=4), st.booleans())
def test_damage_in_a_long_file_is_refused_and_leaves_the_session_empty(
    tiny: Model, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], late: bool
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "s"
    saved(tiny, path, 300)
    content = bytearray(path.read_bytes())
    for at, change in changes:
        content[-1 - at % 2000 if late else at % len(content)] ^= change
    if bytes(content) != path.read_bytes():  # two changes of one byte may undo each other
        path.write_bytes(content)
        refuse(path, tiny)


def test_pieces_cannot_change_places_nor_come_from_another_file(model: Model, tmp_path: Path) -> None:
    path, other = tmp_path / "s", tmp_path / "o"
    saved(model, path, 3)
    saved(model, other, 3, seed=1)
    sound, foreign = path.read_bytes(), other.read_bytes()
    start = 232 + 4 * 3
    size = (len(sound) - start) // model.config.layers
    first, second = sound[start : start + size], sound[start + size : start + 2 * size]
    path.write_bytes(sound[:start] + second + first + sound[start + 2 * size :])
    refuse(path, model)
    path.write_bytes(sound[:start] + foreign[start:])
    refuse(path, model)
    path.write_bytes(foreign[:232] + sound[232:])
    refuse(path, model)


def crafted(model: Model, path: Path, held: Sequence[int], lies: dict[str, int] | None = None) -> Path:
    """A file with sound checksums whose numbers are not true."""
    known = [token if 0 <= token < model.config.vocabulary else 0 for token in held]
    keys, values = cells_of(session_of(model, known))
    path.write_bytes(craft_session(model.config, model.fingerprint(), "tiny.gguf", held, keys, values, lies))
    return path


@pytest.mark.parametrize(
    "lies",
    [
        {"tokens": 0},
        {"tokens": 2},
        {"tokens": 300},
        {"layers": 1},
        {"layers": 2**32 - 1},
        {"kv_heads": 0},
        {"head_dim": 2**31},
        {"chunk": 1},
        {"vocabulary": 1},
    ],
    ids=str,
)
def test_numbers_that_lie_are_refused_before_memory_is_asked_for(
    model: Model, tmp_path: Path, lies: dict[str, int]
) -> None:
    refuse(crafted(model, tmp_path / "s", [1, 2, 3], lies), model)


def test_more_tokens_than_the_context_are_refused_with_the_number_needed(model: Model, tmp_path: Path) -> None:
    for claimed in (301, 2**32 - 1):
        path = crafted(model, tmp_path / "s", [1, 2, 3], {"tokens": claimed})
        assert f"{claimed} tokens; the session has room for 300" in refuse(path, model, ContextOverflowError)
    saved(model, path, 60)
    with Model.load(model.checkpoint.path, context_length=59, threads=1) as short:
        assert "context_length above 60" in refuse(path, short, ContextOverflowError)


def test_a_token_outside_the_vocabulary_is_refused(model: Model, tmp_path: Path) -> None:
    for token in (model.config.vocabulary, 2**32 - 1):
        path = crafted(model, tmp_path / "s", [1, token, 3])
        assert f"token {token} in a vocabulary of {model.config.vocabulary}" in refuse(path, model)


@pytest.mark.parametrize("lie", [{"version": 2}, {"version": 0}, {"cell_type": 2}], ids=str)
def test_another_version_is_named_and_not_called_damage(model: Model, tmp_path: Path, lie: dict[str, int]) -> None:
    line = refuse(crafted(model, tmp_path / "s", [1, 2, 3], lie), model, UnsupportedFileError)
    assert "this selfee" in line
    assert str(next(iter(lie.values()))) in line


def test_the_session_of_another_model_is_refused_and_both_are_named(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "s"
    saved(model, path)
    twin = make_tiny(tmp_path / "twin.gguf", n_head_kv=2, n_ctx=300, seed=1)
    with Model.load(twin, threads=1) as other:
        line = refuse(path, other, UnsupportedFileError)
        for loaded in (model, other):
            assert f"{loaded.checkpoint.path.name} ({loaded.fingerprint()[:6].hex()})" in line


def test_a_name_that_would_drive_a_terminal_is_escaped(model: Model, tmp_path: Path) -> None:
    keys, values = cells_of(session_of(model, [1]))
    path = tmp_path / "s"
    path.write_bytes(craft_session(model.config, bytes(32), "\x1b[31mred\n", [1], keys, values))
    assert "\\x1b[31mred\\x0a" in refuse(path, model, UnsupportedFileError)


def test_what_is_no_session_is_told_apart_before_anything_is_done(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for content in (b"", b"notes", b"GGUF" + bytes(500)):
        path.write_bytes(content)
        assert not is_session_file(path)
        refuse(path, model)
    saved(model, path)
    assert is_session_file(path)


@pytest.mark.timeout(20)
def test_folders_pipes_and_devices_are_refused_at_once(model: Model, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), tmp_path / "none", tmp_path / ("x" * 300)):
        refuse(path, model)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UsageError):
            saved(model, path)
    with pytest.raises(ResourceError):
        saved(model, tmp_path / "no folder" / "s")


def test_only_its_owner_may_read_it_whatever_lay_there_before(model: Model, tmp_path: Path) -> None:
    path, part = tmp_path / "s", tmp_path / ".s.part"
    path.write_bytes(b"old")
    path.chmod(0o644)
    part.write_bytes(b"left by a kill")
    part.chmod(0o666)
    saved(model, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_through_a_link(model: Model, tmp_path: Path) -> None:
    precious, path, part = tmp_path / "precious", tmp_path / "s", tmp_path / ".s.part"
    precious.write_text("mine")
    path.symlink_to(precious)
    saved(model, path)
    assert not path.is_symlink()
    for link in (part.symlink_to, part.hardlink_to):
        link(precious)
        with pytest.raises(ResourceError):
            saved(model, path)
        part.unlink()
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_a_process_killed_while_saving_leaves_the_old_file(model: Model, tmp_path: Path, pieces: int) -> None:
    path = tmp_path / "s"
    tokens = saved(model, path, 5)
    before = path.read_bytes()
    program = (
        "import os, sys; from selfee.llama import session_file; from selfee.llama.model import Model\n"
        "session = Model.load(sys.argv[1], threads=1).new_session(); session.forward([1] * 280)\n"
        "left, write = [int(sys.argv[3])], session_file._write_piece\n"
        "def stop(file, *rest):\n"
        "    write(file, *rest); file.flush()\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0: os.kill(os.getpid(), 9)\n"
        "session_file._write_piece = stop\n"
        "session_file.save_session(sys.argv[2], session, [1] * 280)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    names = [str(model.checkpoint.path), str(path), str(pieces)]
    done = subprocess.run([sys.executable, "-c", program, *names], env=environment, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    assert load_session(path, model.new_session()) == tokens
    saved(model, path, 6)
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_while_saving_leaves_the_old_file_and_a_usable_session(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfee.llama import session_file

    path = tmp_path / "s"
    saved(model, path)
    before = path.read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    session = session_of(model, [1, 2, 3, 4])
    monkeypatch.setattr(session_file, "_write_piece", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_session(path, session, [1, 2, 3, 4])
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    save_session(path, session, [1, 2, 3, 4])


def test_what_cannot_be_saved_is_refused(model: Model, tmp_path: Path) -> None:
    session = session_of(model, [1, 2])
    for tokens in ([], [1, 2, 3], [1, -1], [model.config.vocabulary]):
        with pytest.raises(UsageError):
            save_session(tmp_path / "s", session, tokens)
    assert list(tmp_path.iterdir()) == []


def test_a_session_that_holds_tokens_is_not_restored_into(model: Model, tmp_path: Path) -> None:
    saved(model, tmp_path / "s")
    session = session_of(model, [1, 2])
    with pytest.raises(UsageError, match="holds 2 tokens"):
        load_session(tmp_path / "s", session)
    with pytest.raises(UsageError, match="a session that holds 2 of 300"):
        session.write_cells(3, lambda cells: None)
    with pytest.raises(UsageError, match="301 tokens for a session that holds 0 of 300"):
        model.new_session().write_cells(301, lambda cells: None)
    assert session.length == 2


def test_while_it_is_saved_a_session_belongs_to_nobody_else(model: Model) -> None:
    session = session_of(model, [1, 2, 3])
    reading = session.read_cells(3)
    next(reading)
    caught: list[Exception] = []

    def disturb() -> None:
        for action in (lambda: session.truncate(0), lambda: session.forward([1]), lambda: list(session.read_cells(1))):
            try:
                action()
            except UsageError as error:
                caught.append(error)

    thread = threading.Thread(target=disturb)
    thread.start()
    thread.join()
    assert len(caught) == 3
    reading.close()  # type: ignore[attr-defined]
    session.truncate(1)


def test_memory_for_a_few_pieces_is_enough_both_ways(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_embd=256, n_layer=4, n_ctx=4096)
    with Model.load(path, threads=2) as loaded:
        tokens = some_tokens(3000, loaded.config.vocabulary)
        session, restored = session_of(loaded, tokens), loaded.new_session()
        loaded.fingerprint()
        piece = 2 * 4 * 256 * 64 * 2
        assert session_bytes(loaded.config, 3000) > 40 * piece
        tracemalloc.start()
        try:
            save_session(tmp_path / "s", session, tokens)
            load_session(tmp_path / "s", restored)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * piece


def test_native_code_refuses_cells_that_do_not_fit_even_if_nobody_else_did(model: Model) -> None:
    native = session_of(model, [1, 2, 3])._native
    good = np.zeros((2, 2, 2, 16), np.uint16)
    for layer, first, last, cells in (
        (2, 0, 2, good),
        (-1, 0, 2, good),
        (0, 2, 4, good),
        (0, -1, 1, good),
        (0, 1, 1, good[:, :, :0]),
        (0, 0, 2, np.zeros((2, 2, 3, 16), np.uint16)),
        (0, 0, 2, np.zeros((2, 1, 2, 16), np.uint16)),
    ):
        with pytest.raises(ValueError, match=r"cells|layer"):
            native.read_cells(layer, first, last, cells.copy())
    for first, last in ((2, 4), (255, 257), (299, 301), (1 << 40, (1 << 40) + 2)):
        with pytest.raises(ValueError, match="cells"):
            native.write_cells(0, first, last, good)
    for length in (2, 301, -1, 1 << 62):
        with pytest.raises(ValueError, match="length"):
            native.hold(length)
    assert native.length == 3
