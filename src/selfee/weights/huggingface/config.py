"""``config.json`` of a Hugging Face folder as GGUF metadata, and back.

Known are the models selfee runs: llama (and mistral, which is one), qwen2, qwen3. What such a file may say and this
code does not know is refused by name: a model that computes something else gives wrong answers, not errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from selfee.errors import BadFileError, UnsupportedFileError
from selfee.weights.huggingface.json_file import JsonFile
from selfee.weights.printable import printable

_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Llama3Scaling:
    """How Llama 3.1 stretches its positions: slow pairs by ``factor``, fast ones not, those between by degrees."""

    factor: float
    low: float  # turns within ``original`` tokens below which a pair is slow
    high: float  # and above which it is fast
    original: int  # tokens the model was first trained to look back on

    def factors(self, head_dim: int, base: float) -> npt.NDArray[np.float32]:
        """By how much the frequency of each pair is divided, shape (head_dim / 2,): GGUF's rope_freqs.weight."""
        wavelengths = 2 * math.pi * np.float64(base) ** (np.arange(0, head_dim, 2) / head_dim)
        turns = self.original / wavelengths
        share = (turns - self.low) / (self.high - self.low)
        between = 1 / ((1 - share) / self.factor + share)
        slow_or_between = np.where(turns < self.low, self.factor, between)
        return np.where(turns > self.high, 1.0, slow_or_between).astype(np.float32)


@dataclass(frozen=True)
class HfConfig:
    """What config.json says, in GGUF's words."""

    metadata: Mapping[str, Any]  # general.architecture and <architecture>.* keys
    scaling: Llama3Scaling | None
    tied: bool
    special_ids: Mapping[str, int]  # "bos", "eos", "padding", where the file names them
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def architecture(self) -> str:
        """GGUF's name of the architecture."""
        name: str = self.metadata["general.architecture"]
        return name


def read_config(file: JsonFile) -> HfConfig:
    """Read a config.json. Raises UnsupportedFileError for what selfee does not run, BadFileError for wrong values."""
    return _Reader(file).config()


class _Reader:
    def __init__(self, file: JsonFile) -> None:
        self.file = file
        self.notes: list[str] = []
        kind = file.text("model_type")
        if kind not in _ARCHITECTURES:
            raise self.unsupported(f"model_type is '{printable(str(kind), 40)}'", ", ".join(_ARCHITECTURES))
        self.arch = _ARCHITECTURES[kind]

    def unsupported(self, found: str, expected: str) -> UnsupportedFileError:
        return UnsupportedFileError(f"{self.file.path}: {found}; selfee runs {expected}; choose another model")

    def need(self, key: str) -> int:
        value = self.file.whole(key, least=1)
        if value is None:
            raise self.file.bad(key, "a whole number above 0")
        return value

    def config(self) -> HfConfig:
        self.refuse_variants()
        heads, width = self.need("num_attention_heads"), self.need("hidden_size")
        head_dim = self.file.whole("head_dim", least=1)
        if head_dim is None:
            # Qwen3's own default, which its files may leave out.
            head_dim = 128 if self.arch == "qwen3" else width // heads
        base, factor, scaling = self.rope()
        eps = self.file.number("rms_norm_eps")
        keys: dict[str, Any] = {
            "context_length": self.file.whole("max_position_embeddings", least=1) or 2048,
            "embedding_length": width,
            "block_count": self.need("num_hidden_layers"),
            "feed_forward_length": self.need("intermediate_size"),
            "attention.head_count": heads,
            "attention.head_count_kv": self.file.whole("num_key_value_heads", least=1) or heads,
            "attention.layer_norm_rms_epsilon": 1e-6 if eps is None else eps,
            "rope.freq_base": base,
            "rope.dimension_count": head_dim,
            "vocab_size": self.need("vocab_size"),
        }
        if head_dim * heads != width:
            keys |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
        if factor is not None:
            keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
        metadata = {"general.architecture": self.arch} | {f"{self.arch}.{key}": value for key, value in keys.items()}
        tied = self.file.flag("tie_word_embeddings")
        return HfConfig(metadata, scaling, bool(tied), self.special_ids(), tuple(self.notes))

    def refuse_variants(self) -> None:
        file = self.file
        if file.get("quantization_config") is not None:
            part = file.part("quantization_config")
            method = printable(str(part.get("quant_method") if part else None), 20)
            raise self.unsupported(f"the weights are quantised in {method}'s way", "plain ones: F32, F16 or BF16")
        for key in _EXPERTS:
            if file.get(key):
                raise self.unsupported(f"'{key}' says it is a mixture of experts", "dense models only")
        act = file.text("hidden_act") or "silu"
        if act not in ("silu", "swish"):
            raise self.unsupported(f"hidden_act is '{printable(act, 30)}'", "silu")
        if file.flag("mlp_bias"):
            raise self.unsupported("'mlp_bias' is true", "feed-forward layers without biases")
        if file.flag("attention_bias") and self.arch != "qwen2":
            raise self.unsupported("'attention_bias' is true", f"{self.arch} without biases")
        if (file.number("partial_rotary_factor") or 1.0) != 1.0:
            raise self.unsupported("'partial_rotary_factor' is not 1", "heads whose every value is rotated")
        window = file.whole("sliding_window")
        used = file.get("use_sliding_window") is not False
        if window is not None and used and window < (file.whole("max_position_embeddings", least=1) or 0):
            self.notes.append(
                f"it looks back {window} tokens in some layers (sliding_window); selfee lets it look back on all, so "
                "texts longer than that come out otherwise"
            )

    def rope(self) -> tuple[float, float | None, Llama3Scaling | None]:
        """Base, linear factor, Llama 3.1's scaling. Since 2026 one object holds all three: rope_parameters."""
        both = self.file.part("rope_parameters")
        scaling = both or self.file.part("rope_scaling")
        base = (both.number("rope_theta") if both else None) or self.file.number("rope_theta") or 10000.0
        if not 0 < base <= 1e12:
            raise self.file.bad("rope_theta", "a number above 0, at most 1e12")
        if scaling is None:
            return base, None, None
        kind = scaling.text("rope_type") or scaling.text("type") or "default"
        if kind == "default":
            return base, None, None
        if kind not in ("linear", "llama3"):
            raise self.unsupported(f"rope scaling is '{printable(kind, 30)}'", "none, linear and llama3")
        factor = self.positive(scaling, "factor")
        if kind == "linear":
            return base, factor, None
        original = scaling.whole("original_max_position_embeddings", least=1)
        if original is None:
            raise scaling.bad("original_max_position_embeddings", "a whole number above 0")
        low, high = self.positive(scaling, "low_freq_factor"), self.positive(scaling, "high_freq_factor")
        if low >= high:
            raise scaling.bad("low_freq_factor", f"less than high_freq_factor, {high:g}")
        return base, None, Llama3Scaling(factor, low, high, original)

    def positive(self, scaling: JsonFile, key: str) -> float:
        value = scaling.number(key)
        if value is None or not 1e-6 <= value <= 1e6:
            raise scaling.bad(key, "a number from 1e-6 to 1e6")
        return value

    def special_ids(self) -> dict[str, int]:
        found = {}
        for role, key in (("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id")):
            value = self.file.get(key)
            if isinstance(value, list):  # Llama 3.1 names several ends
                value = value[0] if value else None
            if type(value) is int and 0 <= value < self.need("vocab_size"):
                found[role] = value
        return found


def config_json(
    metadata: Mapping[str, Any], *, dtype: str, tied: bool, factors: npt.NDArray[np.float32] | None, where: str
) -> dict[str, Any]:
    """The config.json of a model with this GGUF metadata, without token ids. ``factors`` are its rope_freqs.weight.

    Raises UnsupportedFileError where the factors are not Llama 3.1's, which is all that config.json can say.
    """
    arch = metadata["general.architecture"]

    def get(key: str, default: Any = None) -> Any:
        value = metadata.get(f"{arch}.{key}", default)
        return value[0].item() if isinstance(value, np.ndarray) else value

    heads, width = get("attention.head_count"), get("embedding_length")
    base, head_dim = short(get("rope.freq_base", 10000.0)), get("attention.key_length", 0) or width // heads
    config: dict[str, Any] = {
        "architectures": [_CLASSES[arch]],
        "model_type": arch,
        "torch_dtype": dtype,
        "vocab_size": get("vocab_size"),
        "hidden_size": width,
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": short(get("attention.layer_norm_rms_epsilon")),
        "rope_theta": base,
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
    }
    if arch == "qwen2":
        del config["attention_bias"]
        config["use_sliding_window"] = False
    if arch == "llama":
        config["mlp_bias"] = False
    old = get("rope.scale_linear")
    if get("rope.scaling.type", "none" if old is None else "linear") == "linear":
        config["rope_scaling"] = {"rope_type": "linear", "factor": short(get("rope.scaling.factor", old))}
    if factors is not None and (factors != 1).any():
        scaling = _recover(factors, head_dim, base, where)
        config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low,
            "high_freq_factor": scaling.high,
            "original_max_position_embeddings": scaling.original,
        }
    return config


def short(value: float) -> float:
    """The shortest decimal number that is this one in 32 bits: 1e-05, not 9.99999974e-06."""
    return float(str(np.float32(value)))


def _recover(factors: npt.NDArray[np.float32], head_dim: int, base: float, where: str) -> Llama3Scaling:
    """The settings that make these factors: only a few were ever used (Llama 3.1, 3.2 and their derivatives)."""
    for original in (8192, 4096, 2048, 16384, 32768):
        scaling = Llama3Scaling(short(float(factors.max())), 1.0, 4.0, original)
        if np.allclose(scaling.factors(head_dim, base), factors, rtol=1e-5, atol=0):
            return scaling
    raise UnsupportedFileError(
        f"{where}: tensor 'rope_freqs.weight' holds factors that config.json cannot say (they are not Llama 3.1's); "
        "convert to GGUF instead"
    )


def meta_metadata(file: JsonFile, *, n_ff: int, n_vocab: int, context: int | None) -> HfConfig:
    """The metadata of a Meta folder's params.json. ``n_ff`` and ``n_vocab`` come from the shapes of its tensors."""
    heads, width = (file.whole(key, least=1) for key in ("n_heads", "dim"))
    layers = file.whole("n_layers", least=1)
    if heads is None or width is None or layers is None:
        missing = "n_heads" if heads is None else "dim" if width is None else "n_layers"
        raise file.bad(missing, "a whole number above 0")
    if file.get("moe") is not None or file.get("num_experts"):
        raise UnsupportedFileError(f"{file.path}: is a mixture of experts; selfee runs dense models only")
    eps = file.number("norm_eps")
    if eps is None or not 0 < eps <= 1:
        raise BadFileError(f"{file.path}: 'norm_eps' is {eps}; expected a number above 0, at most 1; fetch it again")
    base = file.number("rope_theta") or 10000.0
    # Not stored: LLaMA 2 raised norm_eps to 1e-5 and looks back on 4096 tokens, Llama 3 has another rope_theta too.
    guessed = 8192 if base == 500000.0 else 16384 if base == 1000000.0 else 4096 if eps == 1e-5 else 2048
    scaling = Llama3Scaling(8.0, 1.0, 4.0, 8192) if file.flag("use_scaled_rope") else None
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": context or guessed,
        "llama.embedding_length": width,
        "llama.block_count": layers,
        "llama.feed_forward_length": n_ff,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": file.whole("n_kv_heads", least=1) or heads,
        "llama.attention.layer_norm_rms_epsilon": eps,
        "llama.rope.freq_base": base,
        "llama.rope.dimension_count": width // heads,
        "llama.vocab_size": n_vocab,
    }
    notes = () if context else (f"params.json names no context length; {guessed} tokens are taken (--context)",)
    return HfConfig(metadata, scaling, False, {}, notes)


def read_generation_ends(file: JsonFile) -> list[int]:
    """The ids after which generation_config.json ends an answer."""
    value = file.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return [item for item in values if type(item) is int and item >= 0]


def no_config(folder: Path) -> BadFileError:
    """The error for a folder that holds no model."""
    return BadFileError(
        f"{folder}: has neither config.json nor params.json; expected the folder of a Hugging Face or Meta model; name "
        "that folder, or the .gguf or .bin file inside it"
    )
