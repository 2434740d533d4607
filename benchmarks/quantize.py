"""How fast a model file is quantised and in how much memory, beside llama.cpp's quantiser in the same minutes.

    python benchmarks/quantize.py --scratch FOLDER --peer LLAMA_QUANTIZE [--threads 2] [--rounds 3] [--type q4_K_M ...]

A LLaMA of 1.1 billion random weights (2048 wide, 22 layers, 32 heads on 4) is written to FOLDER as F16 GGUF (2.2 GB)
and removed at the end. Each round runs both programs as whole processes, one after the other, on a source that lies in
the page cache; figures are medians. selfee's file is on the disk when it ends, llama.cpp's is not: "wall" is the
process, "kept" adds what flushing the file took. Peak memory is the kernel's figure, which counts mapped pages of the
source; "own" is what belongs to no file. The tensors of both files are compared byte for byte. What the disk takes is
measured in the same run: no quantiser is faster than its file is written. The peer: docs/explanation/peers.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results import record

from selfee.weights.gguf_writer import write_gguf
from selfee.weights.open import open_checkpoint
from selfee.weights.quants import QuantType
from selfee.weights.writing import Bytes, TensorData, TensorStream, TensorToWrite

TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K_M", "q4_K_M", "q5_K_M", "q6_K")
WIDTH, HIDDEN, HEADS, KEY_HEADS, WORDS = 2048, 5632, 32, 4, 32_000
MEASURED = Path(__file__).resolve().parent / "measured.py"
ROWS_AT_A_TIME = 1024

Cost = dict[str, float]


def write_model(path: Path, layers: int) -> None:
    """Write the F16 source, tensor by tensor."""
    write_gguf(path, metadata(layers), list(tensors(layers)))


def metadata(layers: int) -> dict[str, Any]:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3, *[6] * 256]
    pieces += [f"▁w{number}" for number in range(WORDS - len(pieces))]
    kinds += [1] * (WORDS - len(kinds))
    return {
        "general.architecture": "llama",
        "general.name": "random 1.1B",
        "general.file_type": 1,
        "general.quantization_version": 2,
        "llama.context_length": 2048,
        "llama.embedding_length": WIDTH,
        "llama.block_count": layers,
        "llama.feed_forward_length": HIDDEN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KEY_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": -np.arange(WORDS, dtype=np.float32),
        "tokenizer.ggml.token_type": np.array(kinds, dtype=np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def tensors(layers: int) -> Iterator[TensorToWrite]:
    keys = WIDTH * KEY_HEADS // HEADS
    yield matrix("token_embd.weight", WORDS, WIDTH)
    yield ones("output_norm.weight")
    yield matrix("output.weight", WORDS, WIDTH)
    for layer in range(layers):
        block = f"blk.{layer}."
        yield ones(block + "attn_norm.weight")
        yield matrix(block + "ffn_down.weight", WIDTH, HIDDEN)
        yield matrix(block + "ffn_gate.weight", HIDDEN, WIDTH)
        yield matrix(block + "ffn_up.weight", HIDDEN, WIDTH)
        yield ones(block + "ffn_norm.weight")
        yield matrix(block + "attn_k.weight", keys, WIDTH)
        yield matrix(block + "attn_output.weight", WIDTH, WIDTH)
        yield matrix(block + "attn_q.weight", WIDTH, WIDTH)
        yield matrix(block + "attn_v.weight", keys, WIDTH)


def matrix(name: str, rows: int, columns: int) -> TensorStream:
    """Gaussian weights of a trained model's size; the same bytes whenever they are asked for."""

    def make() -> Iterator[Bytes]:
        rng = np.random.default_rng(list(name.encode()))
        for begin in range(0, rows, ROWS_AT_A_TIME):
            count = min(ROWS_AT_A_TIME, rows - begin)
            values = rng.standard_normal((count, columns), dtype=np.float32) * np.float32(0.02)
            yield values.astype(np.float16).view(np.uint8)

    return TensorStream(name, (rows, columns), QuantType.F16, make)


def ones(name: str) -> TensorData:
    return TensorData(name, (WIDTH,), QuantType.F32, np.ones(WIDTH, dtype=np.float32).view(np.uint8))


def cost_of(command: list[str], written: Path) -> Cost:
    """Run a command in a process of its own, then flush the file it wrote."""
    done = subprocess.run([sys.executable, "-S", str(MEASURED), *command], capture_output=True, text=True, check=True)
    cost: Cost = json.loads(done.stdout.splitlines()[-1])
    if cost.pop("exit"):
        sys.exit(f"{' '.join(command)}: failed\n{done.stderr[-2000:]}")
    started = time.perf_counter()
    with written.open("rb+") as file:
        os.fsync(file.fileno())
    return cost | {"kept": cost["wall"] + time.perf_counter() - started}


def own_command(source: Path, target: Path, kind: str, threads: int) -> list[str]:
    start = [sys.executable, "-c", "from selfee.cli import main; main()", "quantize", "--quiet"]
    return [*start, str(source), str(target), kind, "--threads", str(threads)]


def peer_command(peer: Path, source: Path, target: Path, kind: str, threads: int) -> list[str]:
    return [str(peer), str(source), str(target), kind, str(threads)]


def differing_tensors(one: Path, other: Path) -> list[str]:
    """Names of tensors that are not the same bytes of the same type in both files."""
    with open_checkpoint(one) as a, open_checkpoint(other) as b:
        names = sorted({*a.tensors, *b.tensors})
        return [
            name
            for name in names
            if name not in a.tensors
            or name not in b.tensors
            or a.tensors[name].type is not b.tensors[name].type
            or not np.array_equal(a.read(name), b.read(name))
        ]


def disk_rates(scratch: Path, size: int = 1 << 30) -> Cost:
    """GB/s of a plain write that ends in the page cache, and of one that ends on the disk."""
    block = np.random.default_rng(0).bytes(4 << 20)
    path = scratch / "write-speed.bin"
    started = time.perf_counter()
    try:
        with path.open("wb", buffering=0) as file:
            for _ in range(size // len(block)):
                file.write(block)
            cached = time.perf_counter() - started
            os.fsync(file.fileno())
            kept = time.perf_counter() - started
    finally:
        path.unlink(missing_ok=True)
    return {"cached": size / cached / 1e9, "kept": size / kept / 1e9}


def read_once(path: Path) -> None:
    """Bring a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(16 << 20):
            pass


def compare(source: Path, kind: str, options: argparse.Namespace) -> tuple[list[Cost], list[Cost]]:
    """Costs of selfee and of the peer, round by round."""
    mine, theirs = (source.with_name(f"{who}.{kind}.gguf") for who in ("selfee", "peer"))
    own, peer = [], []
    try:
        for _ in range(options.rounds):
            own.append(cost_of(own_command(source, mine, kind, options.threads), mine))
            if options.peer:
                command = peer_command(options.peer, source, theirs, kind, options.threads)
                peer.append(cost_of(command, theirs))
        if options.peer and (different := differing_tensors(mine, theirs)):
            print(f"{kind}: {len(different)} tensors DIFFER from llama.cpp's: {', '.join(different[:4])}", flush=True)
    finally:
        mine.unlink(missing_ok=True)
        theirs.unlink(missing_ok=True)
    return own, peer


def medians(costs: list[Cost]) -> Cost:
    return {name: statistics.median(cost[name] for cost in costs) for name in costs[0]}


COLUMNS = "".join(f"{name:>8}" for name in ("wall", "kept", "user", "peak", "own"))
HEADER = f"{'':8}{COLUMNS}   llama.cpp:\n{'':51}{COLUMNS}   faster  kept"


def row(kind: str, own: Cost, peer: Cost | None) -> str:
    """Seconds and MB of both, and how many times as long the peer took."""

    def columns(cost: Cost) -> str:
        seconds = "".join(f"{cost[name]:8.2f}" for name in ("wall", "kept", "user"))
        return seconds + "".join(f"{cost[name] / 1e6:8.0f}" for name in ("peak", "own"))

    beside = (
        f"     {columns(peer)}   {peer['wall'] / own['wall']:6.2f}{peer['kept'] / own['kept']:6.2f}" if peer else ""
    )
    return f"{kind:8}{columns(own)}{beside}"


def named(who: str, kind: str, cost: Cost) -> dict[str, float]:
    seconds = {f"{who} {kind} {name} s": cost[name] for name in ("wall", "kept", "user")}
    return seconds | {f"{who} {kind} {name} MB": cost[name] / 1e6 for name in ("peak", "own")}


def measure(source: Path, options: argparse.Namespace) -> dict[str, float]:
    rates = disk_rates(options.scratch)
    print(f"the disk takes {rates['cached']:.2f} GB/s into the page cache, {rates['kept']:.2f} GB/s to keep")
    read_once(source)
    figures = {"write GB/s": rates["cached"], "write and flush GB/s": rates["kept"]}
    print(HEADER)
    for kind in options.type or TYPES:
        own, peer = compare(source, kind, options)
        mine, theirs = medians(own), medians(peer) if peer else None
        print(row(kind, mine, theirs), flush=True)
        figures |= named("selfee", kind, mine) | (named("llama.cpp", kind, theirs) if theirs else {})
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scratch", type=Path, required=True, help="a folder with 5 GB free on the disk to measure")
    parser.add_argument("--peer", type=Path, help="llama.cpp's llama-quantize; without it only selfee is measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=22, help="fewer for a quick look")
    parser.add_argument("--type", action="append", choices=TYPES, help="may be repeated; default: all ten")
    options = parser.parse_args()
    source: Path = options.scratch / f"random-{options.layers}-f16.gguf"
    try:
        write_model(source, options.layers)
        figures = measure(source, options)
    finally:
        source.unlink(missing_ok=True)
    from selfee.weights.quantize import isa

    record(f"quantize f16 {options.layers} layers threads={options.threads}", figures, isa=isa())


if __name__ == "__main__":
    main()
