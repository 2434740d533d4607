"""De-quantisation: every bit equals the reference implementation's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from gguf.quants import dequantize as gguf_dequantize

from selfee.errors import UnsupportedFileError
from selfee.weights.quants import QuantType, dequantize

READABLE = [type for type in QuantType if type.readable]
GOLDEN = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K"]


def random_blocks(type: QuantType, count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, type.block_bytes), dtype=np.uint8)


def same_bits(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> bool:
    """Equal to the bit; NaN equals NaN whatever its payload, which C leaves open."""
    nan = np.isnan(left) & np.isnan(right)
    return bool(((left.view(np.uint32) == right.view(np.uint32)) | nan).all())


def test_the_thirteen_types_a_model_may_use_are_readable() -> None:
    names = "F32 F16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K BF16"
    assert [type.name for type in READABLE] == names.split()


@pytest.mark.parametrize("type", READABLE, ids=lambda type: type.name)
def test_random_blocks_decode_to_the_floats_of_the_gguf_package(type: QuantType) -> None:
    blocks = random_blocks(type, 3000)
    with np.errstate(all="ignore"):
        theirs = gguf_dequantize(blocks.reshape(1, -1), gguf.GGMLQuantizationType(int(type))).reshape(-1)
    assert same_bits(dequantize(type, blocks), theirs.astype(np.float32))


# Q8_1 exists in memory only: the package still has its size of 2023 (40), ggml has 36 bytes.
@pytest.mark.parametrize("type", [type for type in QuantType if type is not QuantType.Q8_1], ids=lambda type: type.name)
def test_block_sizes_are_those_of_the_gguf_package(type: QuantType) -> None:
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(int(type))]
    assert (type.block_values, type.block_bytes) == size


@pytest.mark.corpus
@pytest.mark.parametrize("name", GOLDEN)
def test_blocks_of_the_2023_release_decode_to_the_floats_it_decoded(corpus: Path, name: str) -> None:
    expected = json.loads((corpus / "golden/manifest.json").read_text())["types"][name]
    blocks = np.fromfile(corpus / f"golden/q2023/{name}.bin", dtype=np.uint8)
    values = dequantize(QuantType[name.upper()], blocks)
    assert hashlib.sha256(values.tobytes()).hexdigest() == expected["sha256_dequantised_f32"]


def test_count_cuts_the_last_block() -> None:
    blocks = random_blocks(QuantType.Q4_0, 2)
    assert same_bits(dequantize(QuantType.Q4_0, blocks, 40), dequantize(QuantType.Q4_0, blocks)[:40])


def test_a_type_that_can_only_be_listed_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFileError, match="IQ2_XXS can be listed but not used"):
        dequantize(QuantType.IQ2_XXS, random_blocks(QuantType.IQ2_XXS, 1))


def test_half_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="not a whole number of Q8_0 blocks of 34 bytes"):
        dequantize(QuantType.Q8_0, np.zeros(17, dtype=np.uint8))
    with pytest.raises(ValueError, match="33 values asked"):
        dequantize(QuantType.Q8_0, np.zeros(34, dtype=np.uint8), 33)
