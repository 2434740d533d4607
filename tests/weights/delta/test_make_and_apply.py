"""Our own deltas: the target comes back to the bit, so does the base, and a wrong model is noticed."""

from __future__ import annotations

import hashlib
import json
import resource
import signal
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.weights.delta.models import (
    Model,
    base_and_target,
    bf16,
    files_of,
    tensors_of,
    to_f32,
    trained,
    write_model,
)
from tests.weights.huggingface.craft_tensors import write_state

from selfee.errors import BadFileError, ResourceError, SelfeeError, UnsupportedFileError, UsageError
from selfee.weights.delta import codec as delta_codec
from selfee.weights.delta.apply import apply_delta
from selfee.weights.delta.codec import convert, pack, unpack
from selfee.weights.delta.file import open_delta
from selfee.weights.delta.make import DeltaReport, make_delta
from selfee.weights.huggingface.safetensors import open_safetensors
from selfee.weights.huggingface.shards import open_tensors
from selfee.weights.huggingface.stored import DType


def make(base: Path, target: Path, out: Path, **options: Any) -> DeltaReport:
    with open_tensors(base) as ours, open_tensors(target) as theirs:
        return make_delta(ours, theirs, out, **options)


def apply(source: Path, delta: Path, out: Path, **options: Any) -> DeltaReport:
    with open_tensors(source) as opened, open_delta(delta) as found:
        return apply_delta(opened, found, out, **options)


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Base, target and the delta between them."""
    base, target = base_and_target()
    paths = write_model(tmp_path / "base", base, 2), write_model(tmp_path / "target", target, 3), tmp_path / "delta"
    make(paths[0], paths[1], paths[2])
    return paths


@given(st.sampled_from(DType), st.binary(max_size=64), st.binary(max_size=64), st.integers(0, 40))
def test_packing_loses_nothing_in_either_direction(dtype: DType, one: bytes, two: bytes, repeat: int) -> None:
    count = min(len(one), len(two)) // dtype.nbytes
    target, base = (np.frombuffer(raw[: count * dtype.nbytes] * repeat, np.uint8) for raw in (one, two))
    packed = np.frombuffer(pack(target, base, dtype), np.uint8)
    found, end = unpack(packed, 0, base, dtype)
    back, _ = unpack(packed, 0, target, dtype, backwards=True)
    assert (found.tobytes(), back.tobytes(), end) == (target.tobytes(), base.tobytes(), packed.nbytes)


@pytest.mark.parametrize(
    ("dtype", "base", "target", "packed"),
    [
        (DType.F16, "003c 00bc 0000 0080", "013c 01bc 0080 0000", "04000000 02010102 00000000"),
        (DType.BF16, "803f", "7f3f", "01000000 01 00000000"),
        (DType.I8, "7f00", "8001", "02000000 0202"),
        (DType.U16, "0000", "0080", "01000000 ff 01000000 ff"),
    ],
)
def test_the_format_is_what_the_guide_says(dtype: DType, base: str, target: str, packed: str) -> None:
    # By hand: 0x3c01 is the number after 0x3c00, -0 the one before +0; 0, -1, 1, -2 are written as 0, 1, 2, 3.
    before, after, difference = (np.frombuffer(bytes.fromhex(text), np.uint8) for text in (base, target, packed))
    assert unpack(difference, 0, before, dtype)[0].tobytes() == after.tobytes()
    assert pack(after, before, dtype) == difference.tobytes()


@settings(max_examples=25)
@given(st.data())
def test_the_target_comes_back_to_the_bit_whatever_the_two_hold(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("law")
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    models: list[Model] = [{}, {}]
    for name in ("lm_head.weight", "b", "c"):
        row = tuple(data.draw(st.lists(st.integers(0, 3), max_size=2)))
        for model in models:
            if name != "lm_head.weight" and data.draw(st.booleans()):
                continue
            dtype = data.draw(st.sampled_from([DType.F32, DType.F16, DType.BF16, DType.I8, DType.F64, DType.BOOL]))
            shape = (data.draw(st.integers(0, 4)), *row)
            numbers = rng.integers(0, 256, (*shape, dtype.nbytes), np.uint8)
            model[name] = (dtype, numbers.reshape(-1).view(dtype.unsigned).reshape(shape))
    base, target = (write_model(folder / name, model) for name, model in zip(("base", "target"), models))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delta_codec, "CHUNK", 8)
        make(base, target, folder / "delta", max_shard_bytes=data.draw(st.sampled_from([1, 30, 10_000])))
        apply(base, folder / "delta", folder / "there")
        apply(target, folder / "delta", folder / "back", reverse=True)
    assert tensors_of(folder / "there") == tensors_of(target)
    assert tensors_of(folder / "back") == tensors_of(base)


@pytest.mark.parametrize("counts", [(1, 1), (2, 3)])
@pytest.mark.parametrize("max_shard_bytes", [1, 2000, 10**9])
def test_both_folders_come_back_byte_for_byte(counts: tuple[int, int], max_shard_bytes: int, tmp_path: Path) -> None:
    models = base_and_target()
    source = [
        write_model(tmp_path / f"plain{at}", model, count, tokenizer_json=f"{at}")
        for at, (model, count) in enumerate(zip(models, counts))
    ]
    (source[0] / "merges.txt").write_text("only the base has this")
    # First through our own writer: others may lay tensors out in another order.
    base, target = tmp_path / "base", tmp_path / "target"
    for path, new in zip(source, (base, target)):
        make(path, path, tmp_path / "same")
        apply(path, tmp_path / "same", new, force=True)
        for file in (tmp_path / "same").iterdir():
            file.unlink()
        (tmp_path / "same").rmdir()
    report = make(base, target, tmp_path / "delta", max_shard_bytes=max_shard_bytes)
    apply(base, tmp_path / "delta", tmp_path / "there")
    apply(target, tmp_path / "delta", tmp_path / "back", reverse=True)
    assert files_of(tmp_path / "there") == files_of(target)
    assert files_of(tmp_path / "back") == files_of(base)
    assert report.grown == ("lm_head.weight", "model.embed_tokens.weight")
    assert report.added == ("position_ids", "score.weight")
    assert report.dropped == ("model.layers.0.self_attn.rotary_emb.inv_freq",)
    assert report.reversible


def test_threads_do_not_change_the_delta(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, target, delta = models
    for threads in (1, 5):
        make(base, target, tmp_path / f"d{threads}", threads=threads)
        assert files_of(tmp_path / f"d{threads}") == files_of(delta)


def test_the_checksum_is_what_the_format_says(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, _, delta = models
    lines = [
        json.dumps([name, dtype, list(shape), sha], separators=(",", ":")) + "\n"
        for name, (dtype, shape, sha) in sorted(tensors_of(base).items())
    ]
    with open_delta(delta) as opened:
        assert opened.base.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_delta_is_a_sound_safetensors_file_for_others(models: tuple[Path, Path, Path]) -> None:
    library: Any = pytest.importorskip("safetensors", reason="safetensors is not installed")
    with library.safe_open(models[2] / "delta.safetensors", "np") as opened:
        assert opened.metadata()["format"] == "selfee-delta"
        assert "target:lm_head.weight" in set(opened.keys())


def test_small_steps_of_training_pack_well(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    weights = bf16(rng.normal(0, 0.02, (1000, 512)))
    shares = []
    for size in (0.0, 3e-5, 3e-4, 1e-3):
        target = trained(weights, rng, size) if size else weights
        shares.append(len(pack(target.reshape(-1).view(np.uint8), weights.reshape(-1).view(np.uint8), DType.BF16)))
    assert [share / weights.nbytes for share in shares] == pytest.approx([0, 0.14, 0.33, 0.45], abs=0.02)


def test_other_types_are_compared_with_the_base_made_like_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    weights = rng.normal(0, 0.02, (500, 64)).astype("<f2")
    base: Model = {"lm_head.weight": (DType.F16, weights)}
    target: Model = {"lm_head.weight": (DType.BF16, bf16(weights.astype("<f4")))}
    first, second = write_model(tmp_path / "base", base), write_model(tmp_path / "target", target)
    report = make(first, second, tmp_path / "there-only", reversible=False)
    assert report.delta_bytes < 100
    make(first, second, tmp_path / "delta")
    apply(second, tmp_path / "delta", tmp_path / "back", reverse=True)
    assert tensors_of(tmp_path / "back") == tensors_of(first)


def test_conversion_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -np.inf, np.inf, 3.4e38, 1e-41], "<f4")
    rounded = convert(values.view(np.uint8), DType.F32, DType.BF16).view("<u2")
    assert to_f32(rounded).tolist() == [1.0, 1.0, 1 + 2**-6, -np.inf, np.inf, np.inf, pytest.approx(1e-41, rel=0.1)]
    nan = np.array([0x7F800001, 0xFFFFFFFF], "<u4").view(np.uint8)
    assert np.isnan(to_f32(convert(nan, DType.F32, DType.BF16).view("<u2"))).all()
    assert convert(np.array([65504, 7e4], "<f4").view(np.uint8), DType.F32, DType.F16).view("<f2").tolist() == [
        65504,
        np.inf,
    ]


def test_without_the_way_back_a_delta_says_so(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, target, delta = models
    report = make(base, target, tmp_path / "one-way", reversible=False)
    with open_delta(delta) as both, open_delta(tmp_path / "one-way") as one:
        assert (both.is_reversible, one.is_reversible) == (True, False)
    assert not report.reversible
    apply(base, tmp_path / "one-way", tmp_path / "there")
    assert tensors_of(tmp_path / "there") == tensors_of(target)
    with pytest.raises(UsageError, match="was made with --no-reverse"):
        apply(target, tmp_path / "one-way", tmp_path / "back", reverse=True)


def test_a_pytorch_base_serves_as_well(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    arrays = {"lm_head.weight": rng.normal(size=(6, 4)).astype("<f2"), "norm": rng.normal(size=4).astype("<f4")}
    (tmp_path / "bin").mkdir()
    write_state(tmp_path / "bin" / "pytorch_model.bin", arrays)
    kinds = {"float16": DType.F16, "float32": DType.F32}
    target = write_model(tmp_path / "target", {name: (kinds[a.dtype.name], a * 2) for name, a in arrays.items()})
    make(tmp_path / "bin", target, tmp_path / "delta")
    apply(tmp_path / "bin", tmp_path / "delta", tmp_path / "there")
    assert files_of(tmp_path / "there").keys() == files_of(target).keys()
    assert tensors_of(tmp_path / "there") == tensors_of(target)
    apply(target, tmp_path / "delta", tmp_path / "back", reverse=True)
    assert tensors_of(tmp_path / "back") == tensors_of(tmp_path / "bin")


def test_a_wrong_base_is_one_clear_line_and_nothing_is_written(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, target, delta = models
    sound, _ = base_and_target()
    name = "model.layers.1.mlp.up_proj.weight"
    one_bit = sound[name][1].copy()
    one_bit[-1, -1] ^= 1
    dropped = "model.layers.0.self_attn.rotary_emb.inv_freq"
    cases: list[tuple[Model, str]] = [
        (sound | {name: (DType.BF16, one_bit)}, f"tensor '{name}' has other numbers than the base of the delta"),
        (sound | {dropped: (DType.F32, sound[dropped][1] + 1)}, f"tensor '{dropped}' has other numbers"),
        ({key: value for key, value in sound.items() if key != name}, f"lacks tensor '{name}', unlike the base"),
        (sound | {"more": sound[name]}, "has tensor 'more', unlike the base"),
        (
            sound | {name: (DType.F16, one_bit)},
            rf"'{name}' is F16 \[48, 16\], in the base of the delta BF16 \[48, 16\]",
        ),
        (sound | {name: (DType.BF16, one_bit[:-1])}, rf"'{name}' is BF16 \[47, 16\], in the base"),
    ]
    for model, message in cases:
        wrong = write_model(tmp_path / "wrong", model)
        with pytest.raises(BadFileError, match=message) as caught:
            apply(wrong, delta, tmp_path / "out")
        assert str(caught.value).startswith(str(wrong))
    with pytest.raises(BadFileError, match=r"tensor 'position_ids', unlike the target|has tensor|lacks tensor"):
        apply(tmp_path / "wrong", delta, tmp_path / "out", reverse=True)
    with pytest.raises(BadFileError, match=r"(lacks|has) tensor '.*', unlike the base of the delta"):
        apply(target, delta, tmp_path / "out")
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


def test_models_that_are_no_kin_make_no_delta(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, _, _ = models
    wide, _ = base_and_target(dim=8)
    other = write_model(tmp_path / "wide", wide)
    with pytest.raises(
        UsageError, match=r"is \[.*, 8\], in .*base \[.*, 16\]; expected shapes that differ in their rows"
    ):
        make(base, other, tmp_path / "out")
    alien = write_model(tmp_path / "alien", {"lm_head.weight": wide["lm_head.weight"]})
    (alien / "model.safetensors").write_bytes(
        (alien / "model.safetensors").read_bytes().replace(b"lm_head", b"mm_head")
    )
    with pytest.raises(UsageError, match="has no tensor of a name that"):
        make(base, alien, tmp_path / "out")
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


def rewritten(delta: Path, change: Any) -> None:
    """The metadata of a delta changed."""
    path = delta / "delta.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def set_metadata(key: str, value: Any) -> Any:
    return lambda header: header["__metadata__"].update({key: value if isinstance(value, str) else json.dumps(value)})


def set_tensor(value: Any) -> Any:
    def change(header: dict[str, Any]) -> None:
        tensors = json.loads(header["__metadata__"]["tensors"])
        tensors["lm_head.weight"] = value(*tensors["lm_head.weight"])
        header["__metadata__"]["tensors"] = json.dumps(tensors)

    return change


def rename_piece(old: str, new: str) -> Any:
    return lambda header: header.update({new: header.pop(old)})


SHA = "0" * 64
DAMAGE: dict[str, tuple[Any, str, type[SelfeeError]]] = {
    "later version": (
        set_metadata("version", "2"),
        "a delta of version 2; this selfee reads version 1",
        UnsupportedFileError,
    ),
    "other chunks": (set_metadata("chunk_bytes", "8"), "this selfee reads version 1", UnsupportedFileError),
    "no delta": (set_metadata("format", "pt"), "holds no delta of selfee's own", BadFileError),
    "tensors no JSON": (set_metadata("tensors", "{"), "metadata 'tensors' is no JSON", BadFileError),
    "tensors too deep": (set_metadata("tensors", "[" * 100_000), "metadata 'tensors' is no JSON", BadFileError),
    "tensors a list": (set_metadata("tensors", []), "metadata 'tensors' is no dict", BadFileError),
    "files of one side": (set_metadata("files", [[]]), "does not tell of base and target", BadFileError),
    "file outside": (
        set_metadata("files", [[["../x.safetensors", {}]], []]),
        "names a file that is none",
        BadFileError,
    ),
    "file metadata": (
        set_metadata("files", [[["x.safetensors", {"a": 1}]], []]),
        "names a file that is none",
        BadFileError,
    ),
    "small file outside": (
        set_metadata("small_files", [{"../../config.json": SHA}, {}]),
        "names a file that",
        BadFileError,
    ),
    "small file of code": (set_metadata("small_files", [{}, {"modeling.py": SHA}]), "names a file that", BadFileError),
    "small file's checksum": (
        set_metadata("small_files", [{}, {"config.json": "x"}]),
        "names a file that",
        BadFileError,
    ),
    "base's checksum": (
        set_metadata("base_sha256", SHA),
        "the description of the base does not have its own",
        BadFileError,
    ),
    "a tensor's checksum": (
        set_tensor(lambda base, target: [base, [*target[:2], SHA, 0]]),
        "the description of the target does not have its own checksum",
        BadFileError,
    ),
    "one side": (set_tensor(lambda base, target: [base]), "'lm_head.weight' is described wrongly", BadFileError),
    "no side": (set_tensor(lambda base, target: [None, None]), "'lm_head.weight' is described wrongly", BadFileError),
    "unknown type": (set_tensor(lambda base, target: [["F7", *base[1:]], target]), "described wrongly", BadFileError),
    "negative size": (
        set_tensor(lambda base, target: [[base[0], [-1], SHA, 0], target]),
        "described wrongly",
        BadFileError,
    ),
    "huge shape": (
        set_tensor(lambda base, target: [[base[0], [1 << 40, 2], SHA, 0], target]),
        "described wrongly; expected type, shape",
        BadFileError,
    ),
    "file that is not": (set_tensor(lambda base, target: [[*base[:3], 9], target]), "described wrongly", BadFileError),
    "difference missing": (
        rename_piece("target:lm_head.weight", "target:x"),
        "the difference of tensor 'lm_head.weight' is missing",
        BadFileError,
    ),
    "packed tensor of nothing": (
        rename_piece("base:model.norm.weight", "odd:model.norm.weight"),
        "'odd:model.norm.weight' belongs to no tensor",
        BadFileError,
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_description_is_one_clear_line(name: str, models: tuple[Path, Path, Path]) -> None:
    change, message, error = DAMAGE[name]
    rewritten(models[2], change)
    with pytest.raises(error, match=message) as caught:
        open_delta(models[2])
    line = str(caught.value)
    assert line.startswith(str(models[2]))
    assert line.isprintable()
    assert len(line) < 600


def test_a_row_of_another_shape_is_refused(models: tuple[Path, Path, Path]) -> None:
    with open_delta(models[2]) as opened:
        sides = {"base": opened.base, "target": opened.target}
    shape = {name: replace(side.tensors["lm_head.weight"], shape=(640,)) for name, side in sides.items()}
    changed = replace(sides["base"], tensors={**sides["base"].tensors, "lm_head.weight": shape["base"]})

    def change(header: dict[str, Any]) -> None:
        set_tensor(lambda base, target: [[base[0], [640], *base[2:]], target])(header)
        set_metadata("base_sha256", changed.sha256)(header)

    rewritten(models[2], change)
    with pytest.raises(BadFileError, match=r"tensor 'lm_head.weight' changes its row's shape"):
        open_delta(models[2])


def test_any_damage_to_what_is_packed_is_noticed_before_anything_appears(
    models: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    base, _, delta = models
    path = delta / "delta.safetensors"
    whole = path.read_bytes()
    with open_safetensors(path) as opened:
        piece = opened.tensors["target:model.layers.0.mlp.up_proj.weight"]
    for at in range(piece.offset, piece.offset + piece.nbytes, 41):
        changed = bytearray(whole)
        changed[at] ^= 0x55
        path.write_bytes(changed)
        with pytest.raises(BadFileError, match=r"difference of tensor 'model.layers.0.mlp.up_proj.weight': .* damaged"):
            apply(base, delta, tmp_path / "out")
        assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


def test_a_group_that_inflates_beyond_its_size_is_stopped(models: tuple[Path, Path, Path]) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(bytes(50_000_000)) + deflate.flush()
    packed = np.frombuffer(len(bomb).to_bytes(4, "little") + bomb, np.uint8)
    with pytest.raises(ValueError, match="does not inflate to 60000 bytes"):
        unpack(packed, 0, np.zeros(60_000, np.uint8), DType.U8)


def test_a_damaged_small_file_is_noticed(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, _, delta = models
    (delta / "config.json").write_text("{")
    with pytest.raises(BadFileError, match=r"config.json: has another checksum than recorded"):
        apply(base, delta, tmp_path / "out")
    (delta / "config.json").unlink()
    with pytest.raises(BadFileError, match=r"config.json: cannot be read .* the delta needs it"):
        apply(base, delta, tmp_path / "out")


def test_parts_of_two_deltas_do_not_mix(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, target, _ = models
    make(base, target, tmp_path / "one", max_shard_bytes=2000)
    make(base, target, tmp_path / "two", max_shard_bytes=2000, reversible=False)
    make(target, target, tmp_path / "three", max_shard_bytes=2000)
    names = sorted(path.name for path in (tmp_path / "one").glob("*.safetensors"))
    assert len(names) > 2
    (tmp_path / "one" / names[1]).unlink()
    with pytest.raises(BadFileError, match=r"there is no such file; delta\.safetensors\.index\.json names it"):
        open_delta(tmp_path / "one")


def test_a_full_disk_leaves_nothing(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, target, delta = models
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, before[1]))
        with pytest.raises(ResourceError, match="out: the disk is full"):
            make(base, target, tmp_path / "out")
        with pytest.raises(ResourceError, match="out: the disk is full"):
            apply(base, delta, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]
