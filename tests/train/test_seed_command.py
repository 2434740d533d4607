"""SelFee's own training command, word by word, on the tiny model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from tests.tiny_hf import make_tiny_hf
from tests.train.chains import some_chains
from tests.train.test_processes import torchrun

from selfee.chain.record import to_dataset
from selfee.cli.training.seed import _parse, _require_layers, config_of
from selfee.errors import UsageError
from selfee.train.config import Precision, Schedule, TrainConfig
from selfee.weights.open import open_checkpoint

PUBLISHED = r"""
torchrun --nproc_per_node=4 train/train_mem.py \
    --model_name_or_path llama-7b \
    --data_path outputs/feedback_gpt_3.5_turbo_merged_whole.json \
    --bf16 True \
    --output_dir ckpt/selfee-7b \
    --num_train_epochs 3 \
    --per_device_train_batch_size 16 \
    --per_device_eval_batch_size 16 \
    --gradient_accumulation_steps 2 \
    --evaluation_strategy "no" \
    --save_strategy "steps" \
    --save_steps 5000 \
    --save_total_limit 1 \
    --learning_rate 2e-5 \
    --weight_decay 0. \
    --warmup_ratio 0.03 \
    --lr_scheduler_type "cosine" \
    --logging_steps 1 \
    --fsdp "shard_grad_op auto_wrap" \
    --fsdp_transformer_layer_cls_to_wrap 'LlamaDecoderLayer' \
    --tf32 True \
    --model_max_length 2048 \
    --gradient_checkpointing True \
    --lazy_preprocess True \
    --training_objective full \
"""
"""As SelFee's README has it (commit 0ececc8), with the backslash at its end."""

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def words_of(**paths: object) -> list[str]:
    """The published words behind ``torchrun``, with these paths and numbers for theirs."""
    line = PUBLISHED.strip().removesuffix("\\").replace("\\\n", " ")
    for old, new in paths.items():
        line, count = re.subn(rf"(--{old}[= ])\S+", rf"\g<1>{new}", line)
        assert count == 1
    return shlex.split(line)[1:]


def test_the_published_command_means_the_published_recipe() -> None:
    config = config_of(_parse(words_of()[2:]), 4)
    assert config == TrainConfig(
        batch_size=16,
        global_batch=128,
        warmup=0.03,
        precision=Precision.BF16,
        seed=42,
        save_every=5000,
        keep=1,
        keep_gathered=True,
    )


def test_what_is_not_given_is_as_it_was_in_2023() -> None:
    config = config_of({}, 1)
    assert (config.learning_rate, config.schedule, config.warmup) == (5e-5, Schedule.LINEAR, 0)
    assert (config.batch_size, config.global_batch, config.max_length) == (8, 8, 512)
    assert not config.gradient_checkpointing
    assert not config.lazy


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fp16", "True"], "--fp16 is True; expected one of False"),
        (["--bf16", "maybe"], "found 'maybe'; expected True or False"),
        (["--fsdp", "full_shard offload"], "--fsdp is 'full_shard offload'"),
        (["--training_objective", "faf"], "expected one of 'full', 'answer-only'"),
        (["--deepspeed", "x.json"], "unrecognized arguments: --deepspeed"),
        (["--learning", "1"], "unrecognized arguments: --learning"),
    ],
)
def test_what_cannot_be_had_is_said_and_not_passed_over(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        config_of(_parse(words), 1)


def test_a_flag_alone_is_a_yes_and_one_without_effect_is_taken() -> None:
    given = _parse(["--bf16", "--cache_dir", "cache", "--overwrite_output_dir"])
    assert config_of(given, 1).precision is Precision.BF16


def test_layers_of_another_name_are_an_error_that_names_the_right_one(tmp_path: Path) -> None:
    make_tiny_hf(tmp_path / "base", architecture="qwen2")
    with pytest.raises(UsageError, match="is LlamaDecoderLayer; expected Qwen2DecoderLayer"):
        _require_layers(tmp_path / "base", _parse(words_of()[2:]))


@pytest.mark.slow
def test_the_published_command_trains_with_other_paths_and_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="torch is not installed; pip install 'selfee[train]'")
    make_tiny_hf(tmp_path / "base", config={"max_position_embeddings": 2048})
    chains = [to_dataset(chain) for chain in some_chains(60)]
    (tmp_path / "merged.json").write_text(json.dumps(chains), encoding="utf-8")
    places = {"model_name_or_path": tmp_path / "base", "data_path": tmp_path / "merged.json"}
    words = words_of(nproc_per_node=2, output_dir=tmp_path / "out", **places)
    assert words.pop(0) == "--nproc_per_node=2"
    monkeypatch.chdir(EXAMPLES)
    with torchrun(2, *words) as running:
        told, errors = running.communicate()
    assert running.returncode == 0, errors
    assert told.strip() == str(tmp_path / "out" / "model")
    assert (
        open_checkpoint(tmp_path / "out" / "model").tensors.keys() == open_checkpoint(tmp_path / "base").tensors.keys()
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (rows[0]["processes"], rows[0]["steps"], rows[-1]["kind"]) == (2, 3, "end")
    assert rows[3]["loss"] < rows[1]["loss"]
    assert "--logging_steps has no effect: every step is logged" in errors
