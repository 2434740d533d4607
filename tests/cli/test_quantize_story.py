"""``selfee quantize``, as a user types it."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from tests.cli.story import Shell
from tests.requantize import requantize
from tests.tiny import make_tiny

from selfee.weights.gguf_writer import write_gguf
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.imatrix import Importance, InputSums, write_imatrix
from selfee.weights.quantization.quantizers import Generation, quantize
from selfee.weights.quantization.recipes import CARD_TYPES
from selfee.weights.quants import QuantType, dequantize
from selfee.weights.writing import TensorData


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF model with rows of 256."""
    return make_tiny(tmp_path_factory.mktemp("wide") / "wide.gguf", type=QuantType.F16, n_embd=256)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGML model of the time with rows of 256."""
    folder = tmp_path_factory.mktemp("old")
    return make_tiny(folder / "old.bin", container="ggjt1", type=QuantType.F16, n_embd=256)


def types_of(path: Path) -> dict[str, str]:
    with open_checkpoint(path) as checkpoint:
        return {name: tensor.type.name for name, tensor in checkpoint.tensors.items()}


@pytest.mark.parametrize("kind", CARD_TYPES, ids=lambda kind: kind.name)
def test_every_type_of_the_card_is_the_file_that_the_twin_makes(
    shell: Shell, old: Path, tmp_path: Path, kind: object
) -> None:
    name = kind.name  # type: ignore[attr-defined]
    shell.run("quantize", str(old), "out.bin", name, "--rules", "2023-06-06", "-q")
    expected = requantize(old, tmp_path / "twin.bin", name)
    assert (tmp_path / "out.bin").read_bytes() == expected.read_bytes()


def test_the_result_is_said_on_stdout_and_nothing_on_stderr_when_piped(
    shell: Shell, wide: Path, tmp_path: Path
) -> None:
    done = shell.run("quantize", str(wide), "out.gguf", "q4_K_M")
    assert done.stderr == ""
    size = (tmp_path / "out.gguf").stat().st_size
    assert "out.gguf: written in" in done.stdout
    assert f"({size:,} bytes)" in done.stdout
    assert "q4_K_M, rules current" in done.stdout


def test_a_dry_run_says_the_exact_size_and_writes_nothing(shell: Shell, wide: Path, old: Path, tmp_path: Path) -> None:
    for source, ending in ((wide, "gguf"), (old, "bin")):
        target = tmp_path / f"out.{ending}"
        said = json.loads(shell.run("quantize", str(source), target.name, "q5_K_S", "--dry-run", "--json").stdout)
        assert not target.exists()
        shell.run("quantize", str(source), target.name, "q5_K_S")
        assert said["target_bytes"] == target.stat().st_size
        assert said["written"] is False


def test_metadata_and_vocabulary_stay_to_the_byte(shell: Shell, wide: Path, tmp_path: Path) -> None:
    shell.run("quantize", str(wide), "out.gguf", "q8_0")
    with open_checkpoint(wide) as before, open_checkpoint(tmp_path / "out.gguf") as after:
        changed = {"general.file_type", "general.quantization_version", "selfee.quantize.rules"}
        for key in before.metadata.keys() - changed:
            old, new = before.metadata[key], after.metadata[key]
            assert type(new) is type(old)
            assert np.array_equal(new, old) if isinstance(old, np.ndarray) else new == old, key
        assert after.metadata["general.file_type"] == 7
        assert list(after.tensors) == list(before.tensors)
        assert before.metadata.keys() <= after.metadata.keys()
        assert after.vocab == before.vocab


def test_any_number_of_threads_writes_the_same_file(shell: Shell, wide: Path, tmp_path: Path) -> None:
    for rules in ("current", "2023-06-06"):
        for threads in ("1", "2", "5"):
            shell.run("quantize", str(wide), f"{threads}.gguf", "q3_K_M", "-t", threads, "--rules", rules)
        files = {(tmp_path / f"{threads}.gguf").read_bytes() for threads in ("1", "2", "5")}
        assert len(files) == 1


def test_patterns_and_single_tensors_get_what_they_are_told(shell: Shell, wide: Path, tmp_path: Path) -> None:
    shell.run(
        *("quantize", str(wide), "out.gguf", "q4_0", "--tensor-type", r"blk\.0\.ffn_down=q6_K"),
        *("--output-tensor-type", "q8_0", "--token-embedding-type", "f16"),
    )
    types = types_of(tmp_path / "out.gguf")
    assert types["blk.0.ffn_down.weight"] == "Q6_K"
    assert types["blk.1.ffn_down.weight"] == "Q4_0"
    assert types["output.weight"] == "Q8_0"
    assert types["token_embd.weight"] == "F16"
    shell.run("quantize", str(wide), "out.gguf", "q4_K_M", "--pure", "--leave-output-tensor")
    types = types_of(tmp_path / "out.gguf")
    assert types.pop("output.weight") == "F16"
    assert set(types.values()) == {"Q4_K", "F32"}


def test_a_target_size_is_met_and_nearly_used_up(shell: Shell, wide: Path, tmp_path: Path) -> None:
    smallest = json.loads(shell.run("quantize", str(wide), "x.gguf", "q2_K", "--pure", "--dry-run", "--json").stdout)
    largest = wide.stat().st_size
    for share in (0.2, 0.5, 0.9):
        wanted = int(smallest["target_bytes"] + share * (largest - smallest["target_bytes"]))
        shell.run("quantize", str(wide), "out.gguf", "--target-size", str(wanted))
        size = (tmp_path / "out.gguf").stat().st_size
        assert 0.8 * wanted < size <= wanted
    done = shell.run("quantize", str(wide), "out.gguf", "--target-bpw", "5.5", "--json")
    assert 4.5 < json.loads(done.stdout)["bits_per_weight"] <= 5.5
    assert "expected at least" in shell.run("quantize", str(wide), "o.gguf", "--target-size", "10k", check=2).stderr


@pytest.mark.parametrize("container", ["gguf", pytest.param("ggjt3", marks=pytest.mark.slow)])
def test_a_target_size_is_never_exceeded_by_padding(shell: Shell, tmp_path: Path, container: str) -> None:
    make_tiny(tmp_path / "in", container=container)  # type: ignore[arg-type]
    checked = 0
    for wanted in range(109_000, 160_000, 517):
        done = shell.run("quantize", "in", "out", "--target-size", str(wanted), "--dry-run", "--json", check=None)
        if done.returncode == 0:
            assert json.loads(done.stdout)["target_bytes"] <= wanted
            checked += 1
    assert checked > 20


def test_a_target_takes_overrides_for_matrices_that_fit_alone(shell: Shell, tmp_path: Path) -> None:
    make_tiny(tmp_path / "in.gguf", type=QuantType.F16)
    shell.run("quantize", "in.gguf", "out.gguf", "--target-bpw", "9", "--tensor-type", "ffn_norm|ffn_up=q8_0")
    types = types_of(tmp_path / "out.gguf")
    assert (types["blk.0.ffn_up.weight"], types["blk.0.ffn_norm.weight"]) == ("Q8_0", "F32")
    done = shell.run("quantize", "in.gguf", "o.gguf", "--target-bpw", "9", "--tensor-type", "ffn_up=q4_K", check=2)
    assert "row of 64; q4_k needs a multiple of 256" in done.stderr


def test_more_bits_of_a_target_make_less_error(shell: Shell, wide: Path, tmp_path: Path) -> None:
    errors = []
    for bits in ("3", "4", "5", "6", "8"):
        shell.run("quantize", str(wide), "out.gguf", "--target-bpw", bits)
        with open_checkpoint(wide) as before, open_checkpoint(tmp_path / "out.gguf") as after:
            errors.append(
                sum(
                    float(
                        np.square(
                            dequantize(t.type, before.read(n)) - dequantize(after.tensors[n].type, after.read(n))
                        ).sum()
                    )
                    for n, t in before.tensors.items()
                )
            )
    assert errors == sorted(errors, reverse=True)


def test_an_importance_matrix_changes_the_bytes_as_the_twin_says(shell: Shell, wide: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    with open_checkpoint(wide) as checkpoint:
        sums = {
            name: InputSums(rng.uniform(0.1, 9, (1, tensor.shape[-1])).astype(np.float32), np.ones(1, np.float32))
            for name, tensor in checkpoint.tensors.items()
            if len(tensor.shape) == 2
        }
        importance = Importance(sums, chunks=1, chunk_size=512)
        write_imatrix(tmp_path / "i.gguf", importance)
        shell.run("quantize", str(wide), "out.gguf", "q4_K_S", "--imatrix", "i.gguf")
        name = "blk.1.attn_q.weight"
        values = dequantize(QuantType.F16, checkpoint.read(name)).reshape(checkpoint.tensors[name].shape)
    twin = quantize(QuantType.Q4_K, values, generation=Generation.CURRENT, importance=importance[name])
    with open_checkpoint(tmp_path / "out.gguf") as made:
        assert made.read(name).tobytes() == twin.tobytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["q9_9"], "type 'q9_9': unknown; choose one of"),
        ([], "no TYPE and no target"),
        (["q4_0", "--target-size", "1M"], "expected neither TYPE nor --pure"),
        (["--target-size", "1M", "--target-bpw", "3"], "both were given"),
        (["--target-size", "a lot"], "expected a size such as 700M"),
        (["q4_0", "--tensor-type", "ffn"], "expected PATTERN=TYPE"),
        (["q4_0", "--tensor-type", "ffn=q9"], "tensor type 'q9': unknown"),
        (["q4_0", "--tensor-type", "(=q8_0"], "no regular expression"),
        (["--target-bpw", "5", "--tensor-type", "(=q8_0"], "no regular expression"),
        (["q4_0", "--tensor-type", "ffn="], "expected PATTERN=TYPE"),
        (["q4_0", "--tensor-type", "ffn_donw=q8_0"], "fits the name of no matrix; expected a part of one, such as blk"),
        (["q4_0", "--tensor-type", "attn_norm=q8_0"], "fits the name of no matrix"),
        (["q4_0", "--imatrix", "missing"], "missing: there is no such file"),
        (["q4_0", "--rules", "2023-06-06", "--imatrix", "x"], "knew no importance matrix"),
        (["--target-bpw", "4", "--rules", "2023-06-05"], "knew no target size"),
    ],
)
def test_words_that_do_not_fit_are_one_line_and_exit_code_2(
    shell: Shell, wide: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    done = shell.run("quantize", str(wide), "out.gguf", *words, check=2)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_quantised_source_is_refused_unless_it_is_meant(shell: Shell, wide: Path) -> None:
    shell.run("quantize", str(wide), "q4.gguf", "q4_0")
    assert "quantising twice loses twice" in shell.run("quantize", "q4.gguf", "q2.gguf", "q2_K", check=2).stderr
    shell.run("quantize", "q4.gguf", "q2.gguf", "q2_K", "--allow-requantize")


def test_the_source_itself_is_never_written_over(shell: Shell, wide: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(wide)
    assert "which is to be read" in shell.run("quantize", str(wide), str(wide), "q4_0", check=2).stderr
    assert "which is to be read" in shell.run("quantize", str(wide), "link.gguf", "q4_0", check=2).stderr


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("type", ["q4_0", "q8_0", "q2_K", "q6_K"])
def test_weights_that_are_no_numbers_are_named_and_nothing_is_written(
    shell: Shell, tmp_path: Path, wrong: float, type: str
) -> None:
    values = np.ones((6, 512), dtype=np.float32)
    values[4, 300] = wrong
    write_gguf("/".join((str(tmp_path), "bad.gguf")), {"general.architecture": "llama"}, [
        TensorData("blk.0.ffn_up.weight", (6, 512), QuantType.F32, values.view(np.uint8))
    ])  # fmt: skip
    for words in ([type], ["--target-bpw", "5"]):
        done = shell.run("quantize", "bad.gguf", "out.gguf", *words, check=2)
        assert "tensor 'blk.0.ffn_up.weight': row 4, column 300 is NaN, infinite or too large" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.gguf"]


def test_a_ggml_file_is_not_written_under_a_name_of_gguf(shell: Shell, old: Path, tmp_path: Path) -> None:
    done = shell.run("quantize", str(old), "out.gguf", "q4_0", check=2)
    assert "expected a name such as out.bin; for GGUF: selfee convert" in done.stderr
    assert list(tmp_path.iterdir()) == []
    shell.run("convert", str(old), "out.gguf", "--type", "q4_0")
    assert types_of(tmp_path / "out.gguf")["blk.0.attn_q.weight"] == "Q4_0"


def test_nothing_that_is_read_is_written_over_and_a_missing_folder_is_said_first(
    shell: Shell, wide: Path, tmp_path: Path
) -> None:
    (tmp_path / "i.gguf").write_bytes(b"imatrix")
    done = shell.run("quantize", str(wide), "i.gguf", "q4_0", "--imatrix", "i.gguf", check=2)
    assert "i.gguf, which is to be read" in done.stderr
    assert "there is no folder no" in shell.run("quantize", str(wide), "no/x.gguf", "q4_0", check=2).stderr
    assert "is a folder or a device" in shell.run("quantize", str(wide), ".", "q4_0", check=2).stderr
    assert (tmp_path / "i.gguf").read_bytes() == b"imatrix"


def test_types_that_can_only_be_listed_are_named_before_the_work(shell: Shell, tmp_path: Path) -> None:
    tensors = [
        TensorData("blk.0.ffn_up.weight", (2, 256), QuantType.F32, np.zeros(2048, np.uint8)),
        TensorData("blk.0.ffn_down.weight", (2, 256), QuantType.IQ4_XS, np.zeros(272, np.uint8)),
    ]
    write_gguf(tmp_path / "iq.gguf", {"general.architecture": "llama"}, tensors)
    words = ("iq.gguf", "out.gguf", "q4_0", "--allow-requantize", "--dry-run")
    assert (
        "'blk.0.ffn_down.weight' is IQ4_XS, which can be listed but not read"
        in shell.run("quantize", *words, check=2).stderr
    )


def test_a_norm_that_is_no_number_is_named_though_it_is_only_copied(shell: Shell, tmp_path: Path) -> None:
    norm = np.ones(256, dtype=np.float32)
    norm[7] = np.nan
    matrix = np.ones((2, 256), dtype=np.float32)
    tensors = [
        TensorData("blk.0.ffn_up.weight", (2, 256), QuantType.F32, matrix.view(np.uint8)),
        TensorData("blk.0.ffn_norm.weight", (256,), QuantType.F32, norm.view(np.uint8)),
    ]
    write_gguf(tmp_path / "bad.gguf", {"general.architecture": "llama"}, tensors)
    done = shell.run("quantize", "bad.gguf", "out.gguf", "q4_0", check=2)
    assert "'blk.0.ffn_norm.weight': the value at row 0, column 7 is NaN" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.gguf"]


def test_a_killed_run_leaves_the_old_file_and_running_again_finishes(shell: Shell, tmp_path: Path) -> None:
    make_tiny(tmp_path / "in.gguf", type=QuantType.F16, n_embd=1024, n_layer=6)
    target = tmp_path / "out.gguf"

    def digest() -> str:
        return hashlib.sha256(target.read_bytes()).hexdigest()

    shell.run("quantize", "in.gguf", "out.gguf", "q4_K_M", "-q")
    new = digest()
    shell.run("quantize", "in.gguf", "out.gguf", "q8_0", "-q")
    old = digest()
    for delay in (0.35, 0.5, 0.65, 0.8):
        process = shell.start("quantize", "in.gguf", "out.gguf", "q4_K_M", "-t", "1", "-q")
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert digest() in (old, new)  # a fast machine may have renamed it before it was killed
    shell.run("quantize", "in.gguf", "out.gguf", "q4_K_M", "-q")
    assert digest() == new
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.gguf", "out.gguf"]


def test_rows_that_do_not_divide_fall_back_and_the_user_is_told(shell: Shell, tmp_path: Path) -> None:
    make_tiny(tmp_path / "narrow.gguf", type=QuantType.F16)
    done = shell.run("quantize", "narrow.gguf", "out.gguf", "q4_K_M")
    assert "rows of 64 do not divide into Q4_K blocks" in done.stdout
    assert types_of(tmp_path / "out.gguf")["blk.0.attn_q.weight"] == "Q5_0"
    done = shell.run("quantize", "narrow.gguf", "out.gguf", "q4_K_M", "--rules", "2023-06-06", check=2)
    assert "row of 64; q4_k needs a multiple of 256; choose q5_0" in done.stderr
