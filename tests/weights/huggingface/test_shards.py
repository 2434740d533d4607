"""Model folders: every tensor under one roof, an index that leads nowhere else, Meta's parts made whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.cli.story import ROOT
from tests.weights.huggingface.craft_tensors import Array, refused, write_folder, write_state

from selfee.errors import BadFileError, ResourceError, UsageError
from selfee.weights.folders import replacing_folder
from selfee.weights.huggingface.safetensors import TensorSource
from selfee.weights.huggingface.shard_writer import write_shards
from selfee.weights.huggingface.shards import TensorFolder, open_tensors
from selfee.weights.huggingface.stored import DType

A = np.arange(6, dtype="<f4").reshape(2, 3)
B = np.arange(4, dtype="<f4")
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
TWO: dict[str, dict[str, tuple[DType, Array]]] = {FIRST: {"a": (DType.F32, A)}, SECOND: {"b": (DType.F32, B)}}
INDEX = "model.safetensors.index.json"


def sources(opened: TensorFolder) -> list[TensorSource]:
    return [
        TensorSource(name, found.shape, found.dtype, lambda name=name: [opened.read(name)])  # type: ignore[misc]
        for name, found in opened.tensors.items()
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("ask_for", ["", INDEX])
def test_shards_are_one_model(ask_for: str, tmp_path: Path) -> None:
    with open_tensors(write_folder(tmp_path, TWO, {"format": "pt"}) / ask_for) as opened:
        assert list(opened.tensors) == ["a", "b"]
        assert opened.read("a").tobytes() == A.tobytes()
        assert opened.read_rows("b", 1, 3).tobytes() == B[1:3].tobytes()
        assert [path.name for path in opened.shards] == list(TWO)
        assert opened.metadata == {"format": "pt"}
        assert opened.unlisted == ()
        with pytest.raises(BadFileError, match="has no tensor 'c'"):
            opened.read("c")


def test_a_single_file_and_a_folder_of_it_are_the_same(tmp_path: Path) -> None:
    write_folder(tmp_path, {"model.safetensors": {"a": (DType.F32, A)}})
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with open_tensors(path) as opened:
            assert opened.read("a").tobytes() == A.tobytes()
            assert opened.folder == tmp_path


def test_a_header_of_128_bytes_is_not_taken_for_a_pickle(tmp_path: Path) -> None:
    for length in range(1, 60):
        write_folder(tmp_path, {"model.safetensors": {"a" * length: (DType.F32, A)}}, {"format": "pt"})
        with open_tensors(tmp_path) as opened:
            assert opened.read("a" * length).tobytes() == A.tobytes()


def test_a_pytorch_folder_is_read(tmp_path: Path) -> None:
    write_state(tmp_path / "pytorch_model-1.bin", {"a": A})
    write_state(tmp_path / "pytorch_model-2.bin", {"b": B})
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}})
    )
    with open_tensors(tmp_path) as opened:
        assert opened.read("b").tobytes() == B.tobytes()


def test_a_linked_shard_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "snapshot", TWO)
    (tmp_path / "blobs").mkdir()
    for name in TWO:
        (folder / name).rename(tmp_path / "blobs" / name)
        (folder / name).symlink_to(Path("../blobs") / name)
    with open_tensors(folder) as opened:
        assert opened.read("a").tobytes() == A.tobytes()


def test_a_tensor_outside_the_index_is_reported(tmp_path: Path) -> None:
    shards = {name: dict(tensors) for name, tensors in TWO.items()}
    shards[SECOND]["extra"] = (DType.F32, B)
    folder = write_folder(tmp_path, shards)
    index = json.loads((folder / INDEX).read_text())
    del index["weight_map"]["extra"]
    (folder / INDEX).write_text(json.dumps(index))
    with open_tensors(folder) as opened:
        assert opened.unlisted == ("extra",)
        assert list(opened.tensors) == ["a", "b"]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"weight_map": {"a": "../x.safetensors"}}', "lies in '../x.safetensors'; expected the plain name"),
        ('{"weight_map": {"a": "/etc/x.safetensors"}}', "expected the plain name"),
        ('{"weight_map": {"a": "s/x.safetensors"}}', "expected the plain name"),
        ('{"weight_map": {"a": "..\\\\x.safetensors"}}', "expected the plain name"),
        ('{"weight_map": {"a": ".safetensors"}}', "expected the plain name"),
        ('{"weight_map": {"a": "x\\u0000.safetensors"}}', "expected the plain name"),
        ('{"weight_map": {"a": "passwd"}}', "expected the plain name"),
        ('{"weight_map": {"a": 3}}', "lies in '3'; expected the plain name"),
        ('{"weight_map": ["a"]}', "has no weight_map"),
        ("[]", "has no weight_map"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"weight_map": {"a": "x.bin", "a": "y.bin"}}', "names 'a' twice"),
        ("", "is no JSON"),
    ],
)
def test_an_index_that_leads_astray_is_one_clear_line(index: str, message: str, tmp_path: Path) -> None:
    write_folder(tmp_path, TWO)
    (tmp_path / INDEX).write_text(index)
    assert INDEX in refused(tmp_path, message)


def test_what_the_index_promises_must_be_there(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, TWO)
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys("ab", FIRST)}))
    refused(folder, "model-00001-of-00002.safetensors: has no tensor 'b'; model.safetensors.index.json says it lies")
    write_folder(folder, TWO)
    (folder / SECOND).unlink()
    refused(folder, "model-00002-of-00002.safetensors: there is no such file; model.safetensors.index.json names it")


def test_a_folder_without_a_model_says_what_was_sought(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a model: model.safetensors, pytorch_model.bin, .* holds none"):
        open_tensors(tmp_path)
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(UsageError, match="a LoRA adapter only; merge it"):
        open_tensors(tmp_path)
    with pytest.raises(BadFileError, match="there is no such file"):
        open_tensors(tmp_path / "nothing.safetensors")


DIM, HIDDEN, VOCAB = 4, 6, 10


def meta_model(llama3: bool) -> tuple[dict[str, npt.NDArray[Any]], dict[str, int | None]]:
    """Whole tensors of a Meta model and the axis along which each is split."""
    rng = np.random.default_rng(0)
    layer = "layers.0."
    shapes: dict[str, tuple[tuple[int, ...], int | None]] = {
        "tok_embeddings.weight": ((VOCAB, DIM), 0 if llama3 else 1),
        "norm.weight": ((DIM,), None),
        "output.weight": ((VOCAB, DIM), 0),
        layer + "attention.wq.weight": ((DIM, DIM), 0),
        layer + "attention.wk.weight": ((DIM, DIM), 0),
        layer + "attention.wv.weight": ((DIM, DIM), 0),
        layer + "attention.wo.weight": ((DIM, DIM), 1),
        layer + "feed_forward.w1.weight": ((HIDDEN, DIM), 0),
        layer + "feed_forward.w2.weight": ((DIM, HIDDEN), 1),
        layer + "feed_forward.w3.weight": ((HIDDEN, DIM), 0),
        layer + "attention_norm.weight": ((DIM,), None),
        layer + "ffn_norm.weight": ((DIM,), None),
    }
    arrays = {name: rng.normal(size=shape).astype("<f2") for name, (shape, _) in shapes.items()}
    return arrays, {name: axis for name, (_, axis) in shapes.items()}


@pytest.mark.parametrize("llama3", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_metas_parts_are_made_whole(count: int, llama3: bool, tmp_path: Path) -> None:
    arrays, axes = meta_model(llama3)
    for part in range(count):
        split = {
            name: array if axis is None else np.ascontiguousarray(np.split(array, count, axis)[part])
            for (name, array), axis in zip(arrays.items(), axes.values())
        }
        write_state(tmp_path / f"consolidated.{part:02}.pth", split)
    with open_tensors(tmp_path) as opened:
        for name, array in arrays.items():
            found = opened.tensors[name]
            assert (found.shape, found.nbytes) == (array.shape, array.nbytes)
            assert opened.read(name).tobytes() == array.tobytes()
            for begin, end in ((0, 1), (1, len(array)), (len(array) // 2 - 1, len(array) // 2 + 1)):
                assert opened.read_rows(name, begin, end).tobytes() == array[begin:end].tobytes()
            opened.release(name)


def test_metas_parts_that_do_not_fit_are_one_clear_line(tmp_path: Path) -> None:
    write_state(tmp_path / "consolidated.00.pth", {"output.weight": A, "norm.weight": B})
    write_state(tmp_path / "consolidated.02.pth", {"output.weight": A, "norm.weight": B})
    refused(tmp_path, "consolidated.01.pth: there is no such file; fetch all parts")
    write_state(tmp_path / "consolidated.01.pth", {"output.weight": A})
    refused(tmp_path, "tensor 'norm.weight' is not in all parts")
    (tmp_path / "consolidated.02.pth").unlink()
    write_state(tmp_path / "consolidated.01.pth", {"output.weight": A[:, :2], "norm.weight": B})
    refused(tmp_path, r"'output.weight' is F32 \[2, 2\]; expected it to fit to F32 \[2, 3\] of consolidated.00.pth")
    for part in range(2):
        write_state(tmp_path / f"consolidated.{part:02}.pth", {"odd.weight": A})
    refused(tmp_path, "tensor 'odd.weight' is split over several files in a way that is not known")


def test_written_shards_are_read_back(tmp_path: Path) -> None:
    with open_tensors(write_folder(tmp_path / "in", TWO, {"format": "pt"})) as opened:
        write_shards(tmp_path / "out", sources(opened), max_shard_bytes=24, small_files={"config.json": b"{}"})
        write_shards(tmp_path / "one", sources(opened))
    assert set(contents(tmp_path / "out")) == {*TWO, INDEX, "config.json"}
    assert set(contents(tmp_path / "one")) == {"model.safetensors"}
    assert json.loads(contents(tmp_path / "out")[INDEX])["metadata"] == {"total_size": 40}
    for folder in ("out", "one"):
        with open_tensors(tmp_path / folder) as opened:
            assert {name: opened.read(name).tobytes() for name in opened.tensors} == {
                "a": A.tobytes(),
                "b": B.tobytes(),
            }


def test_a_folder_with_something_in_it_is_replaced_only_by_force(tmp_path: Path) -> None:
    out = write_folder(tmp_path / "out", {"model.safetensors": {"a": (DType.F32, B)}})
    with open_tensors(write_folder(tmp_path / "in", TWO)) as opened:
        with pytest.raises(
            UsageError, match="is there and not empty; expected a new folder; choose another or add --force"
        ):
            write_shards(out, sources(opened))
        write_shards(out, sources(opened), force=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
        home = tmp_path / "home"
        (home / "photos").mkdir(parents=True)
        (home / "model.bin").touch()
        with pytest.raises(UsageError, match="--force replaces only folders of model files"):
            write_shards(home, sources(opened), force=True)
        (tmp_path / "empty").mkdir()
        write_shards(tmp_path / "empty", sources(opened))
        with pytest.raises(UsageError, match="is there and no folder"):
            write_shards(home / "model.bin", sources(opened), force=True)
        with pytest.raises(UsageError, match="at least 1 byte"):
            write_shards(tmp_path / "new", sources(opened), max_shard_bytes=0)
    with open_tensors(out) as opened:
        assert opened.read("a").tobytes() == A.tobytes()


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> list[npt.NDArray[Any]]:
        raise OSError(28, "No space left on device")

    broken = [
        TensorSource("a", (4,), DType.U8, lambda: [np.zeros(4, np.uint8)]),
        TensorSource("b", (4,), DType.U8, fail),
    ]
    with pytest.raises(ResourceError, match="out: the disk is full"):
        write_shards(tmp_path / "out", broken, max_shard_bytes=4)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ResourceError, match=r"expected room for 1000000\.0 TB"):
        write_shards(tmp_path / "out", [TensorSource("a", (10**6, 10**6), DType.F32, list)] * 250_000)
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    with (
        replacing_folder(tmp_path / "out") as part,
        pytest.raises(ResourceError, match="another process is writing it"),
        replacing_folder(tmp_path / "out"),
    ):
        raise AssertionError("both are in")
    assert (tmp_path / "out").is_dir()
    assert not part.exists()


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from selfee.weights.folders import replacing_folder\n"
        "with replacing_folder(Path(sys.argv[1])) as part:\n"
        "    (part / 'half').write_bytes(b'x' * 1000); print(flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert [path.name for path in tmp_path.iterdir()] == [".out.part"]
    for _ in range(50):  # the kernel lets go of the lock a moment after the process is gone
        time.sleep(0.01)
    with replacing_folder(tmp_path / "out") as part:
        assert list(part.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
