"""Whole files, quantised: the bytes that llama.cpp wrote in June 2023, and the laws of a plan."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny import make_tiny

from selfee.errors import UnsupportedFileError, UsageError
from selfee.weights.open import open_checkpoint
from selfee.weights.quantization.budget import choose_for_size
from selfee.weights.quantization.quantize_file import (
    Plan,
    nearest_file_type,
    require_plain,
    target_size,
    write_quantized,
)
from selfee.weights.quantization.recipes import (
    CARD_TYPES,
    Choice,
    FileType,
    ModelFacts,
    Recipe,
    RuleSet,
    choose_types,
    file_type,
)
from selfee.weights.quantize import Quantizer, instruction_sets
from selfee.weights.quants import QuantType

GOLDEN: dict[str, dict[str, dict[str, str]]] = json.loads(
    (Path(__file__).parents[2] / "golden" / "quantize_2023.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def inputs(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The inputs of the golden hashes, made anew by the shared program: arguments -> file."""
    program = corpus.parent / "tools" / "make_tiny_ggml.py"
    if not program.is_file():
        pytest.skip("make_tiny_ggml.py is not beside the shared data")
    folder = tmp_path_factory.mktemp("inputs")
    made = {}
    for arguments in GOLDEN["2023-06-06"]:
        made[arguments] = folder / f"{arguments.replace(' ', '-')}.bin"
        subprocess.run([sys.executable, program, made[arguments], *arguments.split()], check=True, timeout=60)
    return made


@pytest.mark.corpus
@pytest.mark.parametrize("name", [kind.name for kind in CARD_TYPES])
@pytest.mark.parametrize("rules", ["2023-06-06", "2023-06-05"])
def test_whole_files_are_those_of_june_2023(inputs: dict[str, Path], tmp_path: Path, rules: str, name: str) -> None:
    for arguments, source in inputs.items():
        with open_checkpoint(source) as checkpoint:
            recipe = Recipe(file_type(name), RuleSet(rules))
            facts = ModelFacts.of(checkpoint.metadata, checkpoint.tensors)
            plan = Plan(choose_types(checkpoint.tensors.values(), recipe, facts), recipe.file_type, recipe.rules)
            write_quantized(checkpoint, tmp_path / "out.bin", plan, Quantizer(2))
        digest = hashlib.sha256((tmp_path / "out.bin").read_bytes()).hexdigest()
        assert digest == GOLDEN[rules][arguments][name], arguments


def plan_of(path: Path, name: str, rules: RuleSet = RuleSet.CURRENT) -> Plan:
    with open_checkpoint(path) as checkpoint:
        facts = ModelFacts.of(checkpoint.metadata, checkpoint.tensors)
        return Plan(
            choose_types(checkpoint.tensors.values(), Recipe(file_type(name), rules), facts), file_type(name), rules
        )


@pytest.mark.parametrize("container", ["gguf", "gguf2", "gguf1", "ggjt3", "ggjt1", "ggmf", "ggml"])
def test_the_size_is_known_before_the_file_is_written(tmp_path: Path, container: str) -> None:
    source = make_tiny(tmp_path / "in", container=container, type=QuantType.F16)  # type: ignore[arg-type]
    plan = plan_of(source, "q4_0")
    with open_checkpoint(source) as checkpoint:
        report = write_quantized(checkpoint, tmp_path / "out", plan, Quantizer(1))
        assert report.target_bytes == target_size(checkpoint, plan) == (tmp_path / "out").stat().st_size
    with open_checkpoint(tmp_path / "out") as made:
        assert made.container == ("gguf v3" if container.startswith("gguf") else "ggjt v3")


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("rules", [RuleSet.CURRENT, RuleSet.JUNE_6])
def test_every_instruction_set_writes_the_same_file(tmp_path: Path, rules: RuleSet, instruction_set: str) -> None:
    source = make_tiny(tmp_path / "in.gguf", type=QuantType.F16, n_embd=256)
    for name in ("q2_K", "q3_K_M", "q4_K_M", "q5_0", "q6_K"):
        plan = plan_of(source, name, rules)
        with open_checkpoint(source) as checkpoint:
            write_quantized(checkpoint, tmp_path / "a", plan, Quantizer(3, instruction_set=instruction_set))
            write_quantized(checkpoint, tmp_path / "b", plan, Quantizer(1, instruction_set="scalar"))
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_type_that_ggml_files_have_no_place_for_is_refused(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "in.bin", container="ggjt3", type=QuantType.F16)
    with open_checkpoint(source) as checkpoint, pytest.raises(UnsupportedFileError, match="convert the model to GGUF"):
        write_quantized(checkpoint, tmp_path / "out.bin", plan_of(source, "bf16"), Quantizer(1))
    assert not (tmp_path / "out.bin").exists()


def test_what_is_quantised_already_is_named(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "in.gguf", type=QuantType.Q4_0)
    with open_checkpoint(source) as checkpoint:
        require_plain(checkpoint, allow_requantize=True)
        with pytest.raises(UsageError, match=r"'token_embd\.weight' is Q4_0 already"):
            require_plain(checkpoint, allow_requantize=False)


def test_a_budget_keeps_what_is_fixed_and_never_spends_too_much(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "in.gguf", type=QuantType.F16, n_embd=256)
    with open_checkpoint(source) as checkpoint:
        quantizer = Quantizer(1)
        fixed = {"output.weight": QuantType.Q8_0}
        whole = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
        errors = []
        for share in (0.3, 0.45, 0.6, 0.95):
            budget = choose_for_size(checkpoint, int(share * whole), quantizer=quantizer, fixed=fixed)
            assert budget.nbytes <= share * whole
            assert budget.choices["output.weight"] == Choice(QuantType.Q8_0)
            assert budget.choices["output_norm.weight"] == Choice(QuantType.F32)
            errors.append(budget.error)
        assert errors == sorted(errors, reverse=True)
        again = choose_for_size(checkpoint, int(0.45 * whole), quantizer=Quantizer(3), fixed=fixed)
        assert again == choose_for_size(checkpoint, int(0.45 * whole), quantizer=quantizer, fixed=fixed)
        with pytest.raises(UsageError, match="all in the smallest types"):
            choose_for_size(checkpoint, whole // 20, quantizer=quantizer)


def test_a_mixture_without_a_name_is_called_after_most_of_its_values(tmp_path: Path) -> None:
    source = make_tiny(tmp_path / "in.gguf", type=QuantType.F16, n_embd=256)
    with open_checkpoint(source) as checkpoint:
        types = plan_of(source, "q5_K_S").types
        assert nearest_file_type(types, checkpoint) is FileType.q5_K_M
