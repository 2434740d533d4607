"""The command line of SelFee's ``train_mem.py``: its flags, with their meanings and defaults of 2023, for our training.

``torchrun --nproc_per_node=4 train/train_mem.py --model_name_or_path …`` works as it is published, in ``examples/``;
installed without the examples, ``-m selfee.cli.training.seed`` takes the script's place.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from selfee.cli.output import Color
from selfee.cli.training.start import processes_here, start
from selfee.errors import UsageError
from selfee.train.config import Precision, Schedule, TrainConfig
from selfee.train.lessons import Objective

_DEFAULTS: dict[str, Any] = {
    "model_name_or_path": "",
    "data_path": "",
    "output_dir": "",
    "training_objective": "full",
    "lazy_preprocess": False,
    "optim": "adamw_torch",
    "model_max_length": 512,
    "num_train_epochs": 3.0,
    "max_steps": -1,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "evaluation_strategy": "no",
    "eval_strategy": "",
    "eval_steps": 500,
    "save_strategy": "steps",
    "save_steps": 500,
    "save_total_limit": 0,
    "learning_rate": 5e-5,
    "weight_decay": 0.0,
    "warmup_ratio": 0.0,
    "lr_scheduler_type": "linear",
    "max_grad_norm": 1.0,
    "seed": 42,
    "bf16": False,
    "fp16": False,
    "tf32": False,
    "gradient_checkpointing": False,
    "fsdp": "",
    "fsdp_transformer_layer_cls_to_wrap": "",
    "report_to": "",
}
"""Flag -> default, as transformers 4.28 and SelFee had them. The kind of a value is that of its default."""

_WITHOUT_EFFECT = {
    "cache_dir": "nothing is downloaded",
    "per_device_eval_batch_size": "validation takes as many rows at a time as training",
    "logging_steps": "every step is logged",
    "logging_dir": "the log is in the folder of the run",
    "logging_strategy": "every step is logged",
    "overwrite_output_dir": "an interrupted run goes on, a finished one is kept",
    "run_name": "a run is its folder",
    "dataloader_num_workers": "tokens are made when they are needed",
    "local_rank": "torchrun tells it otherwise",
}
"""Flag -> why it changes nothing here."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Train as these words of SelFee's say (default: the command line's), and exit."""
    from selfee.cli.run import ended

    sys.exit(ended(lambda: _train(sys.argv[1:] if arguments is None else list(arguments))))


def _train(arguments: Sequence[str]) -> int:
    given = _parse(arguments)
    processes = processes_here()
    config = config_of(given, processes.count)
    if processes.is_first:
        for name in given.keys() & _WITHOUT_EFFECT.keys():
            sys.stderr.write(f"--{name} has no effect: {_WITHOUT_EFFECT[name]}\n")
    model, data, out = (
        Path(given.get(name) or _missing(name)) for name in ("model_name_or_path", "data_path", "output_dir")
    )
    _require_layers(model, given)
    start(model, data, out, config, None, as_json=False, quiet=False, color=Color.AUTO)
    return 0


def _missing(name: str) -> NoReturn:
    raise UsageError(f"train_mem: --{name} was not given; expected a path")


class _Parser(argparse.ArgumentParser):
    """Complains as the rest of the command line does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"train_mem: {message}; expected the flags of SelFee's train_mem.py; see docs/guides/train.md")


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The flags that were given."""
    parser = _Parser(
        prog="train_mem.py",
        description=__doc__,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default in _DEFAULTS.items():
        if isinstance(default, bool):  # a flag alone is a yes, as it was
            parser.add_argument(f"--{name}", type=_truth, nargs="?", const=True, metavar="True|False")
        else:
            parser.add_argument(f"--{name}", type=type(default), help=f"default: {default}" if default else None)
    for name, reason in _WITHOUT_EFFECT.items():
        parser.add_argument(f"--{name}", nargs="?", help=f"no effect: {reason}")
    return vars(parser.parse_args(arguments))


def _truth(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected True or False")
    return words[text.lower()]


def config_of(given: dict[str, Any], processes: int) -> TrainConfig:
    """The settings that SelFee's flags mean in so many processes. Raises UsageError for what cannot be had here."""
    value = _DEFAULTS | given
    for name, known in _KNOWN.items():
        if value[name] not in known:
            words = ", ".join(repr(word) for word in known)
            raise UsageError(f"train_mem: --{name} is {value[name]!r}; expected one of {words}")
    looks = (value["eval_strategy"] or value["evaluation_strategy"]) == "steps"
    rows = value["per_device_train_batch_size"]
    return TrainConfig(
        objective=Objective(value["training_objective"]),
        max_length=value["model_max_length"],
        epochs=value["num_train_epochs"],
        max_steps=max(0, value["max_steps"]),
        batch_size=rows,
        global_batch=rows * value["gradient_accumulation_steps"] * processes,
        learning_rate=value["learning_rate"],
        schedule=Schedule(value["lr_scheduler_type"]),
        warmup=value["warmup_ratio"],
        weight_decay=value["weight_decay"],
        max_grad_norm=value["max_grad_norm"],
        precision=Precision.BF16 if value["bf16"] else Precision.FP32,
        tf32=value["tf32"],
        gradient_checkpointing=value["gradient_checkpointing"],
        lazy=value["lazy_preprocess"],
        seed=value["seed"],
        save_every=value["save_steps"] if value["save_strategy"] == "steps" else 0,
        keep=value["save_total_limit"] or 2,
        validate_every=value["eval_steps"] if looks else 0,
        keep_gathered=value["fsdp"].startswith("shard_grad_op"),
        tensorboard=value["report_to"] == "tensorboard",
    )


_KNOWN: dict[str, tuple[Any, ...]] = {
    "training_objective": tuple(objective.value for objective in Objective),
    "optim": ("adamw_torch", "adamw_torch_fused", "adamw_hf"),
    "evaluation_strategy": ("no", "steps"),
    "eval_strategy": ("", "no", "steps"),
    "save_strategy": ("steps", "no"),
    "lr_scheduler_type": tuple(schedule.value for schedule in Schedule),
    "fp16": (False,),
    "fsdp": ("", "full_shard auto_wrap", "full_shard", "shard_grad_op auto_wrap", "shard_grad_op"),
    "report_to": ("", "none", "tensorboard"),
}
"""Flags of which only some values can be had."""


def _require_layers(model: Path, given: dict[str, Any]) -> None:
    """The layers that are to be sharded are named as those of the model: we shard them whatever they are called."""
    wanted = given.get("fsdp_transformer_layer_cls_to_wrap", "")
    try:
        kinds = json.loads((model / "config.json").read_bytes())["architectures"]
        layers = [str(kind).removesuffix("ForCausalLM") + "DecoderLayer" for kind in kinds]
    except (OSError, ValueError, KeyError, TypeError):
        return  # planning says what is wrong with the folder
    if wanted and wanted not in layers:
        raise UsageError(
            f"train_mem: --fsdp_transformer_layer_cls_to_wrap is {wanted}; expected {layers[0]}, as {model} has them"
        )


if __name__ == "__main__":
    main()
