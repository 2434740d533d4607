"""The deltas of 2023: what we make of them is what their formulas give, number by number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.weights.delta.models import Model, bf16, spread, to_f32
from tests.weights.huggingface.craft_tensors import Array, write_folder, write_state

from selfee.errors import BadFileError, UsageError
from selfee.weights.delta.make import DeltaReport, make_delta
from selfee.weights.delta.published import DeltaKind, apply_published, find_kind
from selfee.weights.huggingface.shards import open_tensors
from selfee.weights.huggingface.stored import DType

VOCAB, DIM = 50, 8
GROWN = ("model.embed_tokens.weight", "lm_head.weight")


def numbers(seed: int, extra_rows: int = 0) -> dict[str, Array]:
    """float64 weights of a small model."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(GROWN, (VOCAB + extra_rows, DIM))
    shapes |= {"model.layers.0.self_attn.q_proj.weight": (DIM, DIM), "model.norm.weight": (DIM,)}
    return {name: rng.normal(0, 0.02, shape) for name, shape in shapes.items()}


def write(folder: Path, arrays: dict[str, Array], dtype: DType, count: int = 1) -> Path:
    made: Model = {
        name: (dtype, bf16(array) if dtype is DType.BF16 else array.astype(dtype.numpy))
        for name, array in arrays.items()
    }
    write_folder(folder, spread(made, count), {"format": "pt"})
    (folder / "tokenizer.json").write_text(json.dumps({"of": folder.name}))
    return folder


def apply(base: Path, delta: Path, out: Path, kind: DeltaKind, **options: Any) -> DeltaReport:
    with open_tensors(base) as ours, open_tensors(delta) as theirs:
        return apply_published(ours, theirs, out, kind, **options)


def result(folder: Path) -> dict[str, Array]:
    with open_tensors(folder) as opened:
        return {
            name: np.array(opened.read(name)).view(found.dtype.numpy or found.dtype.unsigned).reshape(found.shape)
            for name, found in opened.tensors.items()
        }


@pytest.mark.parametrize("stored", [DType.F32, DType.F16, DType.BF16])
@pytest.mark.parametrize("extra", [0, 1, 3])
def test_an_alpaca_delta_is_added_in_float32_and_new_rows_start_as_the_mean(
    extra: int, stored: DType, tmp_path: Path
) -> None:
    base, delta = numbers(0), numbers(1, extra)
    write(tmp_path / "base", base, stored, 2)
    write(tmp_path / "delta", delta, DType.F32)
    report = apply(tmp_path / "base", tmp_path / "delta", tmp_path / "out", DeltaKind.ALPACA)
    found = result(tmp_path / "out")
    for name, difference in delta.items():
        raw = to_f32(bf16(base[name])) if stored is DType.BF16 else base[name].astype(stored.numpy).astype("<f4")
        if extra and name in GROWN:
            raw = np.concatenate(
                [raw, np.repeat(raw.astype("f8").mean(axis=0, keepdims=True).astype("<f4"), extra, axis=0)]
            )
        assert found[name].dtype == np.float32
        assert found[name].tobytes() == (raw + difference.astype("<f4")).tobytes()
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"of": "delta"}'
    assert report.grown == (GROWN if extra else ())


@pytest.mark.parametrize("stored", [DType.F32, DType.F16, DType.BF16])
@pytest.mark.parametrize("extra", [0, 1])
def test_a_fastchat_delta_is_added_in_float16_and_new_rows_start_as_zeros(
    extra: int, stored: DType, tmp_path: Path
) -> None:
    base, delta = numbers(2), numbers(3, extra)
    write(tmp_path / "base", base, stored)
    write(tmp_path / "delta", delta, DType.F16, 3)
    apply(tmp_path / "base", tmp_path / "delta", tmp_path / "out", DeltaKind.FASTCHAT, max_shard_bytes=500)
    found = result(tmp_path / "out")
    for name, difference in delta.items():
        raw = (to_f32(bf16(base[name])) if stored is DType.BF16 else base[name].astype(stored.numpy)).astype("<f2")
        if extra and name in GROWN:
            raw = np.concatenate([raw, np.zeros((extra, DIM), "<f2")])
        assert found[name].dtype == np.float16
        assert found[name].tobytes() == (raw + difference.astype("<f2")).tobytes()


def test_the_result_can_be_stored_smaller(tmp_path: Path) -> None:
    base, delta = numbers(0), numbers(1)
    write(tmp_path / "base", base, DType.F32)
    write(tmp_path / "delta", delta, DType.F32)
    apply(tmp_path / "base", tmp_path / "delta", tmp_path / "out", DeltaKind.ALPACA, dtype=DType.BF16)
    for name, found in result(tmp_path / "out").items():
        assert found.tobytes() == bf16(base[name].astype("<f4") + delta[name].astype("<f4")).tobytes()


def test_pytorch_files_of_that_time_are_read(tmp_path: Path) -> None:
    base, delta = numbers(0), numbers(1, 1)
    for name, arrays in (("base", base), ("delta", delta)):
        (tmp_path / name).mkdir()
        write_state(tmp_path / name / "pytorch_model.bin", {key: a.astype("<f2") for key, a in arrays.items()})
    assert find_kind(tmp_path / "delta")[0] is DeltaKind.FASTCHAT
    apply(tmp_path / "base", tmp_path / "delta", tmp_path / "out", DeltaKind.FASTCHAT)
    name = "model.norm.weight"
    assert result(tmp_path / "out")[name].tobytes() == (base[name].astype("<f2") + delta[name].astype("<f2")).tobytes()


def test_the_kind_is_told_by_the_files(tmp_path: Path) -> None:
    for dtype, kind in ((DType.F32, DeltaKind.ALPACA), (DType.F16, DeltaKind.FASTCHAT)):
        found, sign = find_kind(write(tmp_path / dtype.name, numbers(0), dtype))
        assert (found, sign) == (kind, f"its numbers are float{8 * dtype.nbytes}")
    with open_tensors(tmp_path / "F32") as base, open_tensors(tmp_path / "F16") as target:
        make_delta(base, target, tmp_path / "own")
    assert find_kind(tmp_path / "own") == (DeltaKind.EXACT, "marked in its metadata")
    assert find_kind(tmp_path / "own" / "delta.safetensors")[0] is DeltaKind.EXACT
    with pytest.raises(
        UsageError, match=r"a delta of BF16 numbers; expected float32 .* say --kind alpaca or --kind fastchat"
    ):
        find_kind(write(tmp_path / "BF16", numbers(0), DType.BF16))


def test_stored_angles_of_old_models_are_left_away(tmp_path: Path) -> None:
    angles = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4)}
    write(tmp_path / "base", numbers(0), DType.F16)
    write(tmp_path / "delta", numbers(1) | angles, DType.F16)
    report = apply(tmp_path / "base", tmp_path / "delta", tmp_path / "out", DeltaKind.FASTCHAT)
    assert result(tmp_path / "out").keys() == numbers(0).keys()
    assert report.dropped == tuple(angles)


def test_what_does_not_belong_together_is_one_clear_line(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    base, delta = numbers(0), numbers(1, 1)
    cases: list[tuple[dict[str, Array], dict[str, Array], str]] = [
        (
            base | {name: np.ones((DIM, DIM + 1))},
            delta,
            rf"'{name}' is \[8, 9\], in the delta \[8, 8\]; expected the model",
        ),
        (base | {name: np.ones((DIM - 1, DIM))}, delta, rf"'{name}' is \[7, 8\], in the delta \[8, 8\]"),
        (base | {name: np.ones(DIM)}, delta, rf"'{name}' is \[8\], in the delta"),
        (
            base | {"lm_head.weight": np.ones((VOCAB + 2, DIM))},
            delta,
            r"'lm_head.weight' is \[52, 8\], in the delta \[51, 8\]",
        ),
        ({key: value for key, value in base.items() if key != name}, delta, f"base: lacks tensor '{name}' of"),
        (base | {"more.weight": np.ones(1)}, delta, "delta: lacks tensor 'more.weight' of"),
    ]
    for ours, theirs, message in cases:
        write(tmp_path / "base", ours, DType.F32)
        write(tmp_path / "delta", theirs, DType.F32)
        with pytest.raises(BadFileError, match=message):
            apply(tmp_path / "base", tmp_path / "delta", tmp_path / "out", DeltaKind.ALPACA)
    whole: Model = {"lm_head.weight": (DType.I32, np.ones((2, 2), "<i4"))}
    write_folder(tmp_path / "base", spread(whole, 1))
    write_folder(tmp_path / "delta", spread(whole, 1))
    with pytest.raises(BadFileError, match="stored as I32; expected F32, F16 or BF16"):
        apply(tmp_path / "base", tmp_path / "delta", tmp_path / "out", DeltaKind.ALPACA)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delta"]


def test_torch_itself_gives_the_same(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch", reason="torch is not installed")
    base, delta = numbers(4), numbers(5, 1)
    for dtype, kind, theirs in (
        (DType.F32, DeltaKind.ALPACA, torch.float32),
        (DType.F16, DeltaKind.FASTCHAT, torch.float16),
    ):
        folder = tmp_path / kind.value
        write(folder / "base", base, DType.F16)
        write(folder / "delta", delta, dtype)
        apply(folder / "base", folder / "delta", folder / "out", kind)
        for name, array in result(folder / "out").items():
            raw = torch.from_numpy(base[name].astype("<f2")).to(theirs)
            if name in GROWN:
                new = raw.mean(dim=0, keepdim=True) if kind is DeltaKind.ALPACA else torch.zeros(1, DIM, dtype=theirs)
                raw = torch.cat([raw, new])
            expected = raw.add_(torch.from_numpy(delta[name].astype(dtype.numpy))).numpy()
            assert array[:VOCAB].tobytes() == expected[:VOCAB].tobytes()
            # torch sums the rows of the mean in an order of its own.
            assert np.abs(array - expected).max() <= 1e-9
