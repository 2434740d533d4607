"""The benchmarks' own arithmetic: what they say about engines must not depend on how they were asked."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmarks import comparison, decode, engines, limits, prefill
from benchmarks.comparison import Measured, compare
from benchmarks.engines import Case, Engine, Times
from tests.tiny import make_tiny

from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType


def steady(name: str, seconds: Sequence[float]) -> Engine:
    """An engine that takes these times, one a round, for every case."""
    left = list(seconds)

    def time_cases(path: Path, threads: int, cases: Sequence[Case]) -> Times:
        taken = left.pop(0)
        return dict.fromkeys(cases, taken)

    return Engine(name, time_cases)


@pytest.fixture
def drifting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that gives 40, 20, 40, 20 ... GB/s."""
    rates = iter([40.0, 20.0] * 10)
    monkeypatch.setattr(limits, "measure", lambda threads, *parts: {"memory GB/s": next(rates)})


@pytest.mark.usefixtures("drifting")
def test_a_share_is_taken_of_the_limits_right_before_and_after(tmp_path: Path) -> None:
    case = Case(1)
    measured = compare(tmp_path / "m.gguf", 2, [case], [steady("selfee", [0.1, 0.1, 0.4])], 3, "memory")
    assert measured.seconds["selfee", case] == 0.1
    assert measured.share(case, "memory GB/s", 1.5) == pytest.approx(0.5)  # 0.1 s at 30 GB/s allow 3 GB


@pytest.mark.usefixtures("drifting")
def test_every_round_runs_every_engine_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rivals = [steady("selfee", [1, 2, 3]), steady("peer", [2, 2, 9])]
    measured = compare(tmp_path / "m.gguf", 1, [Case(8)], rivals, 3, "memory")
    assert measured.peers(Case(8)) == {"peer": 2}
    order = [line.split()[-1] for line in capsys.readouterr().err.splitlines()]
    assert order == ["selfee", "peer", "peer", "selfee", "selfee", "peer"]


def test_a_line_ends_with_the_best_peer() -> None:
    case = Case(1)
    measured = Measured({("selfee", case): 0.01, ("a", case): 0.03, ("b", case): 0.02})
    assert measured.against_peers(case) == "   a 30.00 ms x 3.00   b 20.00 ms x 2.00   best x 2.00"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that no program looks into."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    return path


def llama_bench(folder: Path, rows: Sequence[dict[str, object]]) -> str:
    """A program that prints what a llama-bench would, after a line of chatter, and keeps what it was asked."""
    program = folder / "llama-bench"
    asked = folder / "asked"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(asked)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"print('loading ...')\nprint({json.dumps(json.dumps(list(rows)))})\n",
        encoding="utf-8",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def test_the_faster_of_repacked_and_not_counts_for_each_case(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"n_prompt": 8, "n_gen": 0, "samples_ns": [30_000_000, 10_000_000, 20_000_000]},
        {"n_prompt": 8, "n_gen": 0, "samples_ns": [25_000_000]},
        {"n_prompt": 0, "n_gen": 64, "samples_ns": [640_000_000]},
        {"n_prompt": 0, "n_gen": 64, "samples_ns": [320_000_000]},
    ]
    monkeypatch.setenv("SELFEE_PEER_PYTHON", "false")
    monkeypatch.setenv("SELFEE_BENCH_LLAMA_CPP", llama_bench(tmp_path, rows))
    monkeypatch.delenv("SELFEE_BENCH_IK_LLAMA_CPP", raising=False)
    own, peer = engines.engines()
    assert (own.name, peer.name) == ("selfee", "llama.cpp")
    times = peer.time(model, 2, [Case(1), Case(8)])
    assert times == {Case(8): pytest.approx(0.020), Case(1): pytest.approx(0.005)}


def test_ik_is_asked_for_a_text_after_a_prompt_where_there_is_depth(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = llama_bench(tmp_path, [{"n_prompt": 1500, "n_gen": 64, "samples_ns": [640_000_000]}])
    monkeypatch.setenv("SELFEE_PEER_PYTHON", "false")
    monkeypatch.delenv("SELFEE_BENCH_LLAMA_CPP", raising=False)
    monkeypatch.setenv("SELFEE_BENCH_IK_LLAMA_CPP", program)
    times = engines.engines()[1].time(model, 2, [Case(1, 1500)])
    assert times == {Case(1, 1500): pytest.approx(0.010)}
    assert [line.split("-gp ")[1] for line in (tmp_path / "asked").read_text().splitlines()] == ["1500,64"] * 2


def test_a_peer_that_fails_ends_the_benchmark_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"ended with 3; expected figures\nno such model"):
        engines._run([sys.executable, "-c", "import sys; print('no such model', file=sys.stderr); sys.exit(3)"])


def test_selfee_times_every_case(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m.gguf", n_vocab=400)
    cases = [Case(1), Case(8), Case(1, 40)]
    for logits in ("last", "all"):
        times = engines.own_engine("selfee", logits=logits).time(path, 1, cases)
        assert list(times) == cases
        assert all(0 < seconds < 1 for seconds in times.values())


@pytest.mark.parametrize("tied", [False, True])
def test_a_token_reads_all_weights_but_an_embedding_table_that_is_no_head(tmp_path: Path, tied: bool) -> None:
    path = make_tiny(tmp_path / "m.gguf", type=QuantType.Q8_0, tied=tied)
    with open_checkpoint(path) as checkpoint:
        everything = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
        table = checkpoint.tensors["token_embd.weight"].nbytes
    assert decode.bytes_read(path) == everything - (0 if tied else table)


def test_a_model_smaller_than_the_cache_is_compared_with_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tiny(tmp_path / "m.gguf")
    size = path.stat().st_size
    monkeypatch.setattr(decode, "last_level_cache", lambda: size + 1)
    assert decode.place_of(path) == "cache"
    monkeypatch.setattr(decode, "last_level_cache", lambda: size)
    assert decode.place_of(path) == "memory"


def test_the_head_is_not_counted_in_a_prompts_work(tmp_path: Path) -> None:
    tied, untied = (make_tiny(tmp_path / f"{kind}.gguf", tied=kind) for kind in (True, False))
    assert prefill.multiplied(tied) == prefill.multiplied(untied)


def test_quick_is_two_types(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SELFEE_TEST_MODEL", raising=False)
    monkeypatch.setattr(sys, "argv", ["x", "--quick", "--scratch", str(tmp_path)])
    given = comparison.arguments("", shapes=("1.1b",))
    assert (given.type, given.rounds, given.model) == (["q4_0", "q4_K_M"], 2, None)


def test_a_model_of_the_environment_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SELFEE_TEST_MODEL", "m.gguf")
    monkeypatch.setattr(sys, "argv", ["x"])
    assert comparison.models_of(comparison.arguments("", shapes=("1.1b",))) == [Path("m.gguf")]


@pytest.mark.slow
def test_the_limits_program_measures_what_it_is_asked() -> None:
    figures = limits.measure(1, "compute", str(1 << 20))
    assert {"byte dot GMAC/s", "f32 FMA GMAC/s", "1048576 bytes GB/s"} <= set(figures)
    assert all(value > 0 for value in figures.values())
