"""TRL's SFTTrainer on the same rows and the same model: the same tokens, labels and loss."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_hf import make_tiny_hf
from tests.train.chains import some_chains, write_chains

from selfee.chain.format import render_prompt, render_target
from selfee.errors import UsageError
from selfee.llama.tokenizer import load_tokenizer
from selfee.train.config import Engine, TrainConfig, preset
from selfee.train.dataset import Example, Weights, encode_lesson
from selfee.train.learner import Learner
from selfee.train.lessons import Objective, lessons_of
from selfee.train.run import plan, train
from selfee.weights.open import open_checkpoint

trl = pytest.importorskip("trl", reason="TRL, the oracle, is not installed; pip install trl")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
datasets = pytest.importorskip("datasets", reason="datasets is not installed")

CHAINS = some_chains(5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trl") / "model"
    make_tiny_hf(path)
    return path


@pytest.fixture(scope="module")
def trainer(folder: Path) -> Any:
    """TRL's, given prompts and completions as texts: it tokenises, appends the end, and masks the prompt by itself."""
    rows = [{"prompt": render_prompt(chain.instruction), "completion": render_target(chain)} for chain in CHAINS]
    settings = trl.SFTConfig(
        output_dir=str(folder.parent / "out"),
        per_device_train_batch_size=len(rows),
        max_length=None,
        completion_only_loss=True,
        report_to="none",
        bf16=False,
        use_cpu=True,
        seed=0,
        gradient_checkpointing=False,
        dataset_num_proc=None,
        disable_tqdm=True,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32", attn_implementation="sdpa")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return trl.SFTTrainer(
        model=model, args=settings, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer
    )


@pytest.fixture(scope="module")
def ours(folder: Path) -> list[Example]:
    tokenizer = load_tokenizer(open_checkpoint(folder).vocab)
    return [
        encode_lesson(lesson, tokenizer, Weights(), 1 << 20)
        for chain in CHAINS
        for lesson in lessons_of(chain, Objective.FULL)
    ]


def test_labels_equal_those_of_trl_token_by_token(trainer: Any, ours: list[Example]) -> None:
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(len(CHAINS))])
    for row, example in enumerate(ours):
        length = len(example.ids)
        assert batch["input_ids"][row, :length].tolist() == list(example.ids)
        assert batch["labels"][row, :length].tolist() == example.labels
        assert (batch["labels"][row, length:] == -100).all()


def test_the_loss_equals_that_of_trl(trainer: Any, ours: list[Example], folder: Path) -> None:
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(len(CHAINS))])
    theirs = float(trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)).detach())
    learner = Learner(folder, preset("tiny", batch_size=2, global_batch=5))
    losses, _ = learner.step([[example] for example in ours], 0.0)
    assert losses.mean == pytest.approx(theirs, abs=1e-4)


def test_the_losses_of_a_whole_run_equal_those_of_trl(trainer: Any, ours: list[Example], folder: Path) -> None:
    """Five steps on all rows: the optimiser and its settings are the same too."""
    trainer.args.max_steps, trainer.args.logging_steps = 5, 1
    trainer.args.learning_rate, trainer.args.lr_scheduler_type = 1e-3, "constant"
    trainer.train()
    theirs = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    learner = Learner(folder, preset("tiny", batch_size=2, global_batch=5))
    losses = [learner.step([[example] for example in ours], 1e-3)[0].mean for _ in range(5)]
    assert losses == pytest.approx(theirs, abs=1e-4)
    assert losses[-1] < losses[0] - 0.05


SHORT = preset("tiny", max_steps=5, global_batch=6, batch_size=3, warmup=0.3)
ENGINES = {
    "full": SHORT,
    "lora": replace(SHORT, lora_rank=2, learning_rate=1e-2, gradient_checkpointing=True),
    "packed": replace(SHORT, lazy=False, pack=True, global_batch=2, batch_size=1, objective=Objective.SPLIT),
    "masked": replace(SHORT, weights=("flawed=0",)),
}


@pytest.mark.parametrize("config", ENGINES.values(), ids=ENGINES.keys())
def test_both_engines_run_along_the_same_curve_and_leave_the_same_kind_of_folder(
    tmp_path: Path, folder: Path, config: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_chains(tmp_path / "train.jsonl", some_chains(8))
    write_chains(tmp_path / "validation.jsonl", some_chains(2))
    curves, ends = [], []
    for engine in Engine:
        out = tmp_path / engine.value
        ends.append(train(plan(folder, data.parent, out, replace(config, engine=engine))))
        rows = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        steps = [row for row in rows if row["kind"] == "step"]
        curves.append([row[name] for row in steps for name in ("step", "loss", "rate", "gradient", "tokens")])
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert curves[0][1] - curves[0][-4] > 0.05
    assert ends[0]["validation_loss"] == pytest.approx(ends[1]["validation_loss"], abs=1e-4)
    ours, theirs = (sorted(path.name for path in (tmp_path / e.value / "model").iterdir()) for e in Engine)
    assert ours == theirs
    settings = [json.loads((tmp_path / e.value / "model" / "config.json").read_text(encoding="utf-8")) for e in Engine]
    assert settings[0] == settings[1]
    assert capsys.readouterr().out == ""  # standard output belongs to whoever called


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": ("verdict=2",)}, "found a weight of 2; expected 0 or 1"),
        ({"batch_size": 4}, "found 6 rows a step in batches of 4"),
    ],
)
def test_what_trl_cannot_do_is_refused_before_it_begins(
    tmp_path: Path, folder: Path, change: dict[str, Any], message: str
) -> None:
    data = write_chains(tmp_path / "train.jsonl", some_chains(8))
    with pytest.raises(UsageError, match=message):
        plan(folder, data, tmp_path / "out", replace(SHORT, engine=Engine.TRL, **change))
