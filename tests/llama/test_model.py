"""The native forward pass: equal to its NumPy twin, and to itself however the tokens are divided."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import Architecture, make_tiny

from selfee.errors import BadFileError, ContextOverflowError, SelfeeError, UsageError
from selfee.llama.memory import cache_bytes, memory_needed
from selfee.llama.model import Model, physical_cores
from selfee.llama.reference import ReferenceSession
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType

# Largest and root-mean-square difference of logits (of size about 1) from the float32 twin, by what activations are
# rounded to: nothing, 11 bits, 8 bits by blocks of 32 or of 256. The last are the figures of ggml-formats §1.3.
CLASSES = {"F32": (1e-3, 1e-4), "BF16": (1e-3, 1e-4), "F16": (0.01, 0.001)}
EIGHT_BITS = (0.15, 0.03)

TYPES = [kind for kind in QuantType if kind.readable and kind not in (QuantType.Q8_1, QuantType.Q8_K)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = make_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", type=QuantType.Q4_1, n_head_kv=2, n_ctx=700)
    with Model.load(path, threads=2) as model:
        yield model


def some_tokens(count: int, vocabulary: int, seed: int = 0) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, vocabulary, count).tolist()
    return tokens


def difference(model: Path, count: int = 300) -> tuple[float, float, npt.NDArray[np.float32]]:
    """Largest and rms difference between native and twin, and the native logits."""
    with open_checkpoint(model) as checkpoint, Model.load(checkpoint, threads=2) as loaded:
        tokens = some_tokens(count, loaded.config.vocabulary)
        native = loaded.new_session().forward(tokens, "all")
        delta = native - ReferenceSession(checkpoint).forward(tokens, "all")
        return float(np.abs(delta).max()), float(np.sqrt(np.mean(np.square(delta)))), native


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_native_equals_its_twin_within_the_rounding_of_activations(
    kind: QuantType, architecture: Architecture, tmp_path: Path
) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", architecture=architecture, type=kind, n_head_kv=2)
    largest, rms, _ = difference(path)
    most, usual = CLASSES.get(kind.name, EIGHT_BITS)
    assert largest < most
    assert rms < usual


@pytest.mark.parametrize(
    "shape",
    [
        {"n_head_kv": 4},
        {"n_head_kv": 1},
        {"n_head": 8, "n_head_kv": 2, "head_dim": 10},
        {"architecture": "qwen3", "head_dim": 32, "n_head_kv": 2},
        {"tied": True},
        {"rope_freqs": True},
        {"metadata": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}},
        {"container": "ggjt3"},
        {"container": "ggml"},
    ],
    ids=str,
)
def test_every_shape_of_model_equals_its_twin(shape: dict[str, object], tmp_path: Path) -> None:
    largest, _, _ = difference(make_tiny(tmp_path / "tiny.bin", **shape))  # type: ignore[arg-type]
    assert largest < 1e-3


def test_rope_factors_and_scaling_are_not_ignored(tmp_path: Path) -> None:
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    plain, factors, scaled = (
        difference(make_tiny(tmp_path / "tiny.gguf", rope_freqs=freqs, metadata=keys), 20)[2]
        for freqs, keys in ((False, {}), (True, {}), (False, linear))
    )
    assert np.abs(plain - scaled).max() > 0.01
    assert np.abs(plain - factors).max() > 0.01


@settings(max_examples=25)
@given(st.lists(st.sampled_from([1, 2, 3, 5, 8, 16, 31, 100, 257]), min_size=1, max_size=5), st.integers(0, 2**32))
def test_logits_have_the_same_bits_however_tokens_are_divided(tiny: Model, sizes: list[int], seed: int) -> None:
    while sum(sizes) > tiny.context_length:
        sizes.pop()
    tokens = some_tokens(sum(sizes), tiny.config.vocabulary, seed)
    whole = tiny.new_session().forward(tokens, "all")
    session, parts, at = tiny.new_session(), [], 0
    for size in sizes:
        parts.append(session.forward(tokens[at : at + size], "all"))
        at += size
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(1, 90)), min_size=1, max_size=6), st.integers(0, 2**32))
def test_cut_back_and_regrown_equals_fresh_to_the_bit(tiny: Model, cuts: list[tuple[int, int]], seed: int) -> None:
    session = tiny.new_session()
    held = some_tokens(30, tiny.config.vocabulary, seed)
    last = session.forward(held)
    for number, (cut, grow) in enumerate(cuts):
        keep = min(cut, len(held))
        session.truncate(keep)
        held = held[:keep] + some_tokens(grow, tiny.config.vocabulary, seed + number + 1)
        held = held[:700]
        if len(held) > keep:
            last = session.forward(held[keep:])
            assert last.tobytes() == tiny.new_session().forward(held).tobytes()
    assert session.length == len(held)


@pytest.mark.parametrize("kind", [QuantType.F32, QuantType.Q4_0, QuantType.Q6_K], ids=lambda kind: kind.name)
def test_any_number_of_threads_gives_the_same_bits(kind: QuantType, tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", type=kind, n_head_kv=2, n_ctx=700)
    results = set()
    for threads in (1, 2, 3, 7):
        with Model.load(path, threads=threads) as model:
            session = model.new_session()
            tokens = some_tokens(550, model.config.vocabulary)
            logits = [session.forward(tokens[:540]), *(session.forward([token]) for token in tokens[540:])]
            results.add(b"".join(row.tobytes() for row in logits))
    assert len(results) == 1


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_packed_weights_give_the_same_bits(kind: QuantType, tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", type=kind, n_head_kv=2, tied=True)
    plain, packed = (Model.load(path, threads=2, packed=packed).new_session() for packed in (False, True))
    for tokens in ([5], [1, 2, 3], list(range(100))):
        assert plain.forward(tokens, "all").tobytes() == packed.forward(tokens, "all").tobytes()


def test_two_conversations_on_one_model_do_not_disturb_each_other(tiny: Model) -> None:
    tokens = [some_tokens(60, tiny.config.vocabulary, seed) for seed in range(4)]
    alone = [tiny.new_session().forward(part, "all").tobytes() for part in tokens]
    together: dict[int, bytes] = {}

    def work(index: int) -> None:
        session = tiny.new_session()
        rows = [session.forward([token]) for token in tokens[index]]
        together[index] = np.concatenate(rows).tobytes()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(4)] == alone


def test_logits_for_last_is_the_last_row_of_all(tiny: Model) -> None:
    tokens = some_tokens(300, tiny.config.vocabulary)
    everything = tiny.new_session().forward(tokens, "all")
    last = tiny.new_session().forward(tokens, "last")
    assert everything.shape == (300, tiny.config.vocabulary)
    assert last.shape == (1, tiny.config.vocabulary)
    assert last[0].tobytes() == everything[-1].tobytes()


def test_a_text_that_does_not_fit_is_refused_before_anything_is_computed(tiny: Model) -> None:
    session = tiny.new_session()
    session.forward(some_tokens(699, tiny.config.vocabulary))
    with pytest.raises(ContextOverflowError, match="room for 1 after the 699 held"):
        session.forward([1, 2])
    assert session.length == 699
    session.forward([1])
    with pytest.raises(ContextOverflowError):
        session.forward([1])


@pytest.mark.parametrize("wrong", [[-1], [10**6], [2**40], [1, 2, -5]])
def test_a_token_that_does_not_exist_is_refused(tiny: Model, wrong: list[int]) -> None:
    session = tiny.new_session()
    with pytest.raises(UsageError, match="does not exist"):
        session.forward(wrong)
    with pytest.raises(UsageError, match="no tokens"):
        session.forward([])
    assert session.length == 0


def test_truncate_is_absolute_and_never_grows(tiny: Model) -> None:
    session = tiny.new_session()
    session.forward(some_tokens(10, tiny.config.vocabulary))
    session.truncate(4)
    assert session.length == 4
    for wrong in (5, -1):
        with pytest.raises(UsageError, match="truncate"):
            session.truncate(wrong)


@pytest.mark.parametrize(
    "arguments", [{"context_length": 0}, {"context_length": -1}, {"threads": 0}, {"threads": 5000}]
)
def test_senseless_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    path = make_tiny(tmp_path / "tiny.gguf")
    with pytest.raises(UsageError):
        Model.load(path, **arguments)


def test_a_session_outlives_its_closed_model(tmp_path: Path) -> None:
    model = Model.load(make_tiny(tmp_path / "tiny.gguf"))
    session, fresh = model.new_session(), model.new_session()
    before = session.forward([1, 2, 3])
    model.close()
    gc.collect()
    with pytest.raises(UsageError, match="closed"):
        model.new_session()
    del model
    gc.collect()
    assert fresh.forward([1, 2, 3]).tobytes() == before.tobytes()


def test_a_file_changed_in_place_is_noticed_before_it_is_read(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf")
    session = Model.load(path).new_session()
    session.forward([1])
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(BadFileError, match="changed"):
        session.forward([2])


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs proc(5)")
def test_memory_grows_with_the_tokens_held_and_stays_within_what_was_announced(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_embd=256, n_ctx=1 << 17)
    with open_checkpoint(path) as checkpoint, Model.load(checkpoint, threads=1) as model:
        whole = cache_bytes(model.config, model.context_length)
        assert whole == 2 * 4 * (64 + 64) * (1 << 17) * 2
        start = resident()
        session = model.new_session()
        assert resident() - start < 1 << 20
        for _ in range(8):
            session.forward(some_tokens(256, model.config.vocabulary))
        used = resident() - start
        assert used < memory_needed(checkpoint, model.config, 2048) + (4 << 20)


def test_damaged_weights_give_damaged_numbers_and_no_crash(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", type=QuantType.Q4_0)
    with open_checkpoint(path) as checkpoint:
        first = min(tensor.offset for tensor in checkpoint.tensors.values())
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    data[first:] = rng.integers(0, 256, len(data) - first, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    logits = Model.load(path, threads=2).new_session().forward(list(range(40)), "all")
    assert logits.shape[0] == 40


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8), st.booleans())
def test_a_file_with_bytes_changed_anywhere_is_refused_or_runs(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], near_the_start: bool
) -> None:
    path = make_tiny(tmp_path_factory.mktemp("damaged") / "tiny.gguf", type=QuantType.Q4_1, n_layer=1)
    data = bytearray(path.read_bytes())
    for at, value in changes:
        data[at % (1000 if near_the_start else len(data))] = value
    path.write_bytes(data)
    try:
        with Model.load(path, context_length=64, threads=2) as model:
            logits = model.new_session().forward([1, 2, 3])
    except SelfeeError:
        return
    assert logits.shape == (1, model.config.vocabulary)


def test_native_code_refuses_tensors_that_do_not_fit_even_if_nobody_else_did() -> None:
    from selfee import _native

    sizes = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 2, "head_dim": 16, "hidden": 32, "vocabulary": 8}
    rest = {"norm_epsilon": 1e-5, "rope_halves": False, "rope_frequencies": [1.0] * 8, "threads": 1}

    def make(tensors: dict[str, object], **changes: int) -> None:
        arguments: dict[str, Any] = sizes | rest | changes
        _native.Model(**arguments, tensors=tensors)

    with pytest.raises(ValueError, match=r"token_embd.weight: missing"):
        make({})
    with pytest.raises(ValueError, match=r"token_embd.weight: 992 bytes; expected 1024"):
        make({"token_embd.weight": (0, np.zeros(31 * 8 * 4, dtype=np.uint8))})
    with pytest.raises(ValueError, match="heads are not a multiple"):
        make({}, kv_heads=3)
    with pytest.raises(ValueError, match="a size is not within"):
        make({}, width=1 << 40)


def test_kernels_built_from_other_sources_are_not_taken_for_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfee import _native

    def older(layers: int, width: int) -> None:
        """What the constructor of Model may have been like in earlier sources."""

    monkeypatch.setattr(_native, "Model", older)
    with pytest.raises(SelfeeError, match=r"do not fit the Python files; .* run `make setup`") as caught:
        Model.load(make_tiny(tmp_path / "tiny.gguf"), threads=1)
    assert not isinstance(caught.value, BadFileError)


def test_an_unknown_instruction_set_is_a_wrong_argument_and_not_a_damaged_file(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf")
    program = "import sys; from selfee.llama.model import Model; Model.load(sys.argv[1])"
    environment = os.environ | {"SELFEE_ISA": "abacus", "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", program, str(path)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "UsageError: SELFEE_ISA: instruction set 'abacus'" in ran.stderr.splitlines()[-1]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_control_c_ends_a_long_prompt_and_leaves_the_session_as_it_was(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_embd=256, n_layer=8, n_ctx=1 << 15)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with Model.load(path, threads=1) as model:
        session = model.new_session()
        session.forward([1, 2, 3])
        kept = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                session.forward(some_tokens(1 << 14, model.config.vocabulary))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, kept)
        assert session.length == 3
        regrown = session.forward([4, 5])
        assert regrown.tobytes() == model.new_session().forward([1, 2, 3, 4, 5]).tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_computes_without_the_threads_it_did_not_inherit(tiny: Model) -> None:
    session = tiny.new_session()
    session.forward([1, 2, 3])
    expected = tiny.new_session().forward([1, 2, 3, 4]).tobytes()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, session.forward([4]).tobytes()[:64])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == expected[:64]
    assert os.waitpid(child, 0)[1] == 0


def test_physical_cores_are_at_least_one_and_no_more_than_the_processors() -> None:
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)
