"""A model in shares: each process holds a part of every weight, and layers are put together when their turn comes.

FSDP2's ``fully_shard``, a layer at a time; gradients are summed, not averaged, for a step's loss is one sum.
"""

from __future__ import annotations

from typing import Any

from selfee.train.config import TrainConfig
from selfee.train.libraries import library
from selfee.train.processes import Group


def shard(model: Any, group: Group, config: TrainConfig, dtype: Any) -> None:
    """Give each process of the group its share of the model, in ``dtype`` where it is trained."""
    fsdp = library("torch.distributed.fsdp")
    settings = {"mesh": group.mesh, "reshard_after_forward": not config.keep_gathered}
    whole = model.get_base_model() if config.lora_rank else model
    for layer in whole.model.layers:
        _widen(layer, dtype)
        fsdp.fully_shard(layer, **settings)
    _widen(model, dtype)
    fsdp.fully_shard(model, **settings)
    for module in model.modules():
        if isinstance(module, fsdp.FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sums


def take_apart(model: Any) -> None:
    """Leave each process its share alone: looking without learning may have left the weights together."""
    kind = library("torch.distributed.fsdp").FSDPModule
    for module in model.modules():
        if isinstance(module, kind):
            module.reshard()


def _widen(module: Any, dtype: Any) -> None:
    # A layer at a time: the whole model in 32 bits need not fit into one process.
    for value in module.parameters():
        if value.requires_grad and not _is_shared(value):
            value.data = value.data.to(dtype)


def _is_shared(value: Any) -> bool:
    return isinstance(value, library("torch.distributed.tensor").DTensor)


def whole(value: Any) -> Any:
    """A tensor put together from the shares, on every process."""
    return value.full_tensor() if _is_shared(value) else value


def gathered(parameters: dict[str, Any], group: Group) -> dict[str, Any]:
    """The tensors put together, on the processor of the first process; the others get an empty dictionary."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        together = whole(value.detach())
        if group.processes.is_first:
            found[name] = together.cpu()
    return found
