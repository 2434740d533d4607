"""The small files that lie beside a model's tensors: configuration, tokenizer, chat template, licence."""

from __future__ import annotations

from pathlib import Path

from selfee.errors import BadFileError
from selfee.weights.huggingface.shards import TensorFolder

_NAMES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
        "params.json",
        "model.safetensors.index.json",
    }
)
_BEGINNINGS = ("tokenizer", "LICENSE", "NOTICE", "USE_POLICY")
_ENDINGS = ("", ".json", ".model", ".txt", ".md")
_MAX_SIZE = 64 << 20  # bytes; tokenizers have up to 20 MB


def is_companion(name: str) -> bool:
    """Whether a file of this name belongs to a model without holding tensors."""
    return name in _NAMES or (name.startswith(_BEGINNINGS) and Path(name).suffix in _ENDINGS and "/" not in name)


def read_companions(model: TensorFolder) -> dict[str, bytes]:
    """Name -> content of the small files of a model folder; none for a model that is a single file."""
    if not model.path.is_dir():
        return {}
    found: dict[str, bytes] = {}
    for path in sorted(model.path.iterdir()):
        if not is_companion(path.name) or not path.is_file():
            continue
        if (size := path.stat().st_size) > _MAX_SIZE:
            raise BadFileError(f"{path}: has {size} bytes; expected a small file, at most {_MAX_SIZE}; remove it")
        try:
            found[path.name] = path.read_bytes()
        except OSError as error:
            raise BadFileError(f"{path}: cannot be read ({error.strerror}); give yourself permission") from error
    return found
