"""A model made ready for ``selfee main``: found, weighed against the memory there is, bound to the forward pass."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selfee.cli.output import Screen
from selfee.engines.memory import available_memory, has_room_to_pack, require_memory
from selfee.errors import UsageError
from selfee.llama.config import LlamaConfig
from selfee.llama.memory import memory_needed
from selfee.llama.model import Model
from selfee.llama.tokenizer import Tokenizer, load_tokenizer
from selfee.weights.adapter import TRAINED_ON_CHAINS
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.fetch.builtin import DEFAULT_MODEL
from selfee.weights.open import open_checkpoint

MODEL_OF_2023 = "models/7B/ggml-model.bin"
LEAST_CONTEXT = 8


@dataclass(frozen=True)
class Opened:
    """A model, its tokenizer, and what is known of the form its prompts should have."""

    model: Model
    tokenizer: Tokenizer
    path: Path
    is_selfee: bool
    has_template: bool


def named_model(named: str | None, environ: Mapping[str, str], *, is_2023: bool) -> str:
    """The model to open: the one named, else SELFEE_MODEL, else that of 2023, else the built-in one."""
    if named is not None:
        return named
    if environ.get("SELFEE_MODEL"):
        return environ["SELFEE_MODEL"]
    return MODEL_OF_2023 if is_2023 or Path(MODEL_OF_2023).is_file() else DEFAULT_MODEL


@contextmanager
def opened_model(
    name: str, context: int, threads: int | None, stderr: Screen, note: Callable[[str], None]
) -> Iterator[Opened]:
    """Open a model for ``context`` tokens; one that is not here yet is fetched, with progress on ``stderr``.

    Raises UsageError for a server or a script, which have no tokens to sample from, and what ``Model.load`` raises.
    """
    from selfee.cli.progress import DownloadDisplay
    from selfee.cli.settings import model_store
    from selfee.weights.fetch.model_names import is_model_url

    is_server = name.lower().startswith(("http://", "https://")) and not is_model_url(name)
    if is_server or name.startswith("script:"):
        raise UsageError(f"{name}: does not run here; expected a model on this machine; selfee ask -m takes it")
    path = model_store(os.environ).resolve(name, DownloadDisplay(stderr))
    with open_checkpoint(path) as checkpoint:
        config, have = LlamaConfig.from_checkpoint(checkpoint), available_memory()
        if context > config.context_length:
            note(
                f"main: warning: the model was made for {config.context_length} tokens of context, {context} are "
                "asked for; expect poor results"
            )
        need = memory_needed(checkpoint, config, context)
        require_memory(str(path), need, have, "use a smaller file or a smaller -c")
        packed = has_room_to_pack(need, have)
        with Model.load(checkpoint, context_length=context, threads=threads, packed=packed) as model:
            tokenizer = load_tokenizer(checkpoint.vocab)
            yield Opened(model, tokenizer, path, _is_selfee(checkpoint), checkpoint.vocab.chat_template is not None)


def _is_selfee(checkpoint: Checkpoint) -> bool:
    """Whether a model was trained on chains, as far as can be seen; only a hint depends on it.

    A GGML file has no room to say so, and the published ones say it in their names.
    """
    names = (checkpoint.path.name, str(checkpoint.metadata.get("general.name", "")))
    return checkpoint.metadata.get(TRAINED_ON_CHAINS) is True or any("selfee" in name.lower() for name in names)
