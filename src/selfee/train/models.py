"""A model's folder read to be trained, and written again as a folder that every other program opens."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfee.train.config import Precision, TrainConfig
from selfee.train.libraries import library
from selfee.weights.huggingface.companions import is_companion


def read_model(folder: Path, dtype: Any) -> Any:
    """The model of a Hugging Face folder in a number type; nothing is fetched, no code of the folder's is run."""
    library("transformers").utils.logging.disable_progress_bar()
    return library("transformers").AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True, trust_remote_code=False
    )


def stored_dtype(folder: Path) -> Any:
    """The number type that a folder says its tensors have."""
    config = library("transformers").AutoConfig.from_pretrained(folder, local_files_only=True)
    return config.dtype or library("torch").float32


def compute_dtype(config: TrainConfig) -> Any:
    """The number type in which weights are kept: short only where they are not trained."""
    torch = library("torch")
    return torch.bfloat16 if config.lora_rank and config.precision is Precision.BF16 else torch.float32


def prepared(model: Any, config: TrainConfig) -> Any:
    """The model as it is trained: LoRA's matrices beside it, activations computed twice, as the settings say."""
    model.config.use_cache = False
    if config.lora_rank:
        settings = library("peft").LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.scale,
            lora_dropout=config.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        with quiet():
            model = library("peft").get_peft_model(model, settings)
    if config.gradient_checkpointing:
        with quiet():
            model.activation_checkpointing_enable({"use_reentrant": False})
    return model


def write_model(model: Any, folder: Path, base: Path) -> None:
    """Write a model as a Hugging Face folder, with what ``base`` has beside its tensors: tokenizer, templates."""
    model.config.use_cache = True
    model.save_pretrained(folder)
    _let_others_read(folder, folder / "config.json")
    for path in base.iterdir():
        if path.is_file() and is_companion(path.name) and not (folder / path.name).exists():
            (folder / path.name).write_bytes(path.read_bytes())


def write_adapter(model: Any, folder: Path, base: Path, tensors: Mapping[str, Any] | None = None) -> None:
    """Write LoRA's matrices alone, as peft does; ``tensors`` are they, where the model holds a share of each.

    The base is named and no folder of this machine is told: whoever loads the adapter has it elsewhere.
    """
    model.save_pretrained(folder, state_dict=dict(tensors) if tensors is not None else None)
    _let_others_read(folder, folder / "adapter_config.json")
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = base.resolve().name
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # peft's card: nothing but gaps to fill, and the same path


def merged(base: Path, adapter: Path) -> Any:
    """The base as it is stored with an adapter added: what LoRA does not touch keeps every bit."""
    with quiet():
        return (
            library("peft").PeftModel.from_pretrained(read_model(base, stored_dtype(base)), adapter).merge_and_unload()
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of libraries that call each other by names that they will lose, and what they do then."""
    logging = library("transformers").utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)


def _let_others_read(folder: Path, like: Path) -> None:
    """Give tensors, which the library writes for their owner alone, the permissions of an ordinary file."""
    for path in folder.glob("*.safetensors"):
        path.chmod(like.stat().st_mode & 0o777)
