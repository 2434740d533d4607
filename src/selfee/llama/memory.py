"""How much memory a model needs, from its configuration: nothing is loaded."""

from __future__ import annotations

from selfee.llama.cells import CHUNK, CacheType, cell_type
from selfee.llama.config import LlamaConfig
from selfee.weights.checkpoint import Checkpoint

_LANES = 8  # values of a head are rounded up to these (native/cache.h)
_BATCH = 256  # tokens that go through the layers together (native/forward.h)


def memory_needed(
    checkpoint: Checkpoint,
    config: LlamaConfig,
    context_length: int,
    sessions: int = 1,
    cache_type: CacheType = "f16",
) -> int:
    """Bytes for the weights, sessions of ``context_length`` tokens and the scratch memory of a forward pass.

    Mapped weights are shared with the system's file cache, which may drop them again; a packed copy takes their place.
    Raises what ``cache_bytes`` raises.
    """
    weights = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    return memory_beside(weights, config, context_length, sessions, cache_type)


def memory_beside(
    weights: int, config: LlamaConfig, context_length: int, sessions: int = 1, cache_type: CacheType = "f16"
) -> int:
    """As ``memory_needed``, for a model that is known by its shape and the bytes of its ``weights`` alone."""
    return weights + sessions * cache_bytes(config, context_length, cache_type) + _scratch_bytes(config)


def cache_bytes(config: LlamaConfig, context_length: int, cache_type: CacheType = "f16") -> int:
    """Bytes of a full session: keys and values of every layer. Raises UsageError for a type that heads do not fit."""
    kind = cell_type(cache_type, config)
    positions = -(-context_length // CHUNK) * CHUNK
    padded = -(-config.head_dim // _LANES) * _LANES  # changes nothing for blocks, which are whole
    token_bytes = (config.head_dim + padded) * kind.block_bytes // kind.block_values
    return config.layers * config.kv_heads * positions * token_bytes


def _scratch_bytes(config: LlamaConfig) -> int:
    """Bytes of the intermediate values of a forward pass."""
    widest = max(config.width, config.hidden, config.q_width)
    per_token = 4 * (3 * config.width + 2 * config.q_width + 2 * config.kv_width + 2 * config.hidden + 2 * widest)
    return _BATCH * per_token + config.vocabulary * 4
