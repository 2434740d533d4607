"""Which programs read a file, and since when; what a type is good for. Derived from the file, never from its name.

Dates and commits: llama.cpp's history as written down in the formats' specification, sections 1.1, 5 and 6. "Until 21
August 2023" is commit 6381d4e, with which llama.cpp left GGML for GGUF.
"""

from __future__ import annotations

from selfee.weights.checkpoint import Checkpoint
from selfee.weights.quantization.mixture import Mixture, types_of
from selfee.weights.quantization.recipes import FileType
from selfee.weights.quants import QuantType

_K = frozenset({QuantType.Q2_K, QuantType.Q3_K, QuantType.Q4_K, QuantType.Q5_K, QuantType.Q6_K})
_LAYERS_OF_2023 = frozenset({26, 32, 40, 60, 80})
_LEFT_GGML = "21 August 2023 (6381d4e)"

_GGML_SINCE = {
    "ggml": "10 March 2023",
    "ggmf v1": "20 March 2023",
    "ggjt v1": "30 March 2023",
    "ggjt v2": "12 May 2023 (b9fd7ee)",
    "ggjt v3": "19 May 2023 (2d5db48)",
}
_GGUF_SINCE = {
    "gguf v1": "llama.cpp from 21 August to November 2023 only; convert it again for programs of today",
    "gguf v2": "llama.cpp since 27 August 2023 and every program built on it since",
    "gguf v3": "llama.cpp since October 2023 and every program built on it since",
}
_ARCHITECTURES = {"qwen2": "January 2024", "qwen3": "April 2025"}

_USES = {
    FileType.f32: "the values as they are, in 32 bits; a source for other files, not for use",
    FileType.f16: "the values in 16 bits; what other files are made from and compared with",
    FileType.bf16: "the values in 16 bits with the range of 32; what other files are made from and compared with",
    FileType.q8_0: "as good as 16 bits for every purpose, at half the size",
    FileType.q6_K: "next to no loss; for those who have the memory",
    FileType.q5_K_M: "very little loss; the finer half of its sensitive matrices at six bits",
    FileType.q5_K_S: "little loss; q5_K_M is better for some percent more",
    FileType.q5_1: "of the first generation; q5_K_M is better and smaller",
    FileType.q5_0: "of the first generation, for programs without k-quants; q5_K_S is as large and better",
    FileType.q4_K_M: "where to begin: small, and its loss is rarely noticed",
    FileType.q4_K_S: "a little smaller than q4_K_M, a little worse",
    FileType.q4_1: "of the first generation, quick; q4_K_M is better at about its size",
    FileType.q4_0: "of the first generation, read by the most programs; q4_K_S is as large and better",
    FileType.q3_K_L: "noticeable loss; the best of the three-bit files",
    FileType.q3_K_M: "clear loss; where four bits do not fit",
    FileType.q3_K_S: "heavy loss; where nothing larger fits",
    FileType.q2_K: "the smallest; heavy loss, for trying things out",
}


def use_of(mixture: Mixture) -> str:
    """What a file is good for, in one line; of what it is, whatever its label says."""
    kind = mixture.file_type
    if kind is None:
        return f"a mixture of its own; most of it is {mixture.base}"
    if kind.base in _K and QuantType[mixture.base] not in _K:
        return f"a {kind.name} that is mostly {mixture.base}, because its rows do not divide into blocks of 256"
    return _USES[kind]


def readers_of(checkpoint: Checkpoint, mixture: Mixture, *, runs_here: bool) -> tuple[str, ...]:
    """Sentences about which programs read an open file, most important first; they end without a full stop."""
    found = _gguf(checkpoint) if checkpoint.container.startswith("gguf") else _ggml(checkpoint, mixture)
    return (*found, "selfee runs it" if runs_here else "selfee lists its tensors but cannot run it")


def _ggml(checkpoint: Checkpoint, mixture: Mixture) -> list[str]:
    container, types = checkpoint.container, types_of(checkpoint.tensors)
    finer = sorted(type.name for type in types & _K)
    since = "5 June 2023 (99009e7), which brought k-quants," if finer else _GGML_SINCE[container]
    found = [f"llama.cpp from {since} until {_LEFT_GGML}, and no later one"]
    if container == "ggjt v3":
        found.append("ctransformers up to 0.2.27, llama-cpp-python up to 0.1.78, koboldcpp")
    else:
        found.append("koboldcpp")
    label = mixture.label
    if finer and label and not label.endswith(("_K", "_S", "_M", "_L")):
        where = ", ".join(name for name, tensor in checkpoint.tensors.items() if tensor.type in _K and "." in name)
        found.append(
            f"labelled {label}, but {_shortened(where)} is {' and '.join(finer)}: llama.cpp of 19 May to 5 June 2023 "
            f'stops with "unrecognized tensor type {int(max(types & _K))}"'
        )
    arch = checkpoint.metadata
    heads, keys = arch.get("llama.attention.head_count"), arch.get("llama.attention.head_count_kv")
    if keys is not None and heads != keys:
        found.append("llama.cpp needs the option -gqa 8 for it, which it has since 23 July 2023 (e76d630)")
    if (layers := arch.get("llama.block_count")) not in _LAYERS_OF_2023:
        found.append(f"llama.cpp of 2023 knows models of 26, 32, 40, 60 and 80 layers and stops at one of {layers}")
    return found


def _gguf(checkpoint: Checkpoint) -> list[str]:
    found = [_GGUF_SINCE.get(checkpoint.container, "programs that read GGUF")]
    architecture = checkpoint.metadata.get("general.architecture")
    if isinstance(architecture, str) and architecture in _ARCHITECTURES:
        found.append(f"its architecture {architecture} is known since {_ARCHITECTURES[architecture]}")
    types = types_of(checkpoint.tensors)
    if QuantType.BF16 in types:
        found.append("BF16 is read since May 2024")
    if foreign := sorted(type.name for type in types if not type.readable):
        found.append(f"holds {', '.join(foreign)}, which only programs that know these types read")
    if checkpoint.vocab.model == "gpt2":
        found.append("llama.cpp before 29 April 2024 cuts its texts into other tokens")
    return found


def _shortened(names: str) -> str:
    return names if len(names) <= 60 else f"{names[:59]}…"
