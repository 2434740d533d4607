"""A model that learns: loaded, wrapped for LoRA, taught one step at a time, and written as a folder again."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfee.train.config import Precision, TrainConfig
from selfee.train.dataset import Example
from selfee.train.libraries import library
from selfee.train.models import compute_dtype, merged, prepared, read_model, stored_dtype, write_adapter, write_model
from selfee.train.packing import PARTS, Batch, attention_mask, collate
from selfee.train.processes import Group, Processes
from selfee.train.sharding import gathered, shard, take_apart, whole


@dataclass
class Losses:
    """Sums over tokens, to be divided when all are in."""

    weighted: float = 0.0
    weight: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * len(PARTS))  # by part, without weights
    counts: list[int] = field(default_factory=lambda: [0] * len(PARTS))
    tokens: int = 0  # read, without padding

    @property
    def mean(self) -> float:
        """The weighted mean of the learned tokens: what training makes smaller."""
        return self.weighted / self.weight if self.weight else 0.0

    @property
    def by_part(self) -> dict[str, float]:
        """The mean of each part's tokens, also of masked parts, so that one sees what is not learned."""
        found = zip(PARTS[1:], self.sums[1:], self.counts[1:], strict=True)
        return {part.value: total / count for part, total, count in found if count}

    def over(self, group: Group) -> Losses:
        """The same over the rows of all processes; ``weight`` is known to each."""
        totals = group.total([self.weighted, float(self.tokens), *self.sums, *map(float, self.counts)])
        sums, counts = totals[2 : 2 + len(PARTS)], totals[2 + len(PARTS) :]
        return Losses(totals[0], self.weight, sums, [int(count) for count in counts], int(totals[1]))


class Learner:
    """A model, its optimiser and the device they are on; of several processes, each has a share of them.

    The model is read from ``folder``, or was made of it elsewhere.
    """

    def __init__(self, folder: Path, config: TrainConfig, group: Group | None = None, model: Any = None) -> None:
        self.torch = library("torch")
        self.config = config
        self.folder = folder
        self.group = group or Group(Processes())
        self.device = self.group.device
        self.torch.manual_seed(config.seed)
        self.torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
        self.model = model or self._load()
        trained = [value for value in self.model.parameters() if value.requires_grad]
        self.optimizer = self.torch.optim.AdamW(
            trained, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=config.weight_decay
        )

    def _load(self) -> Any:
        config, dtype = self.config, compute_dtype(self.config)
        if self.group.is_alone:
            return prepared(read_model(self.folder, dtype), config).to(self.device)
        held = dtype if config.lora_rank else stored_dtype(self.folder)
        model = prepared(read_model(self.folder, held), config)
        shard(model, self.group, config, self.torch.float32)
        return model

    def parameters(self) -> dict[str, Any]:
        """The trained tensors by name."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def step(self, rows: Sequence[Sequence[Example]], rate: float, number: int = 0) -> tuple[Losses, float]:
        """Learn from the rows of one step; the losses before it, and the length of the gradient.

        ``number`` is that of the step: what is drawn in it (dropout) is a function of it and the seed alone, so that
        an interrupted run draws the same, also in another number of processes.
        """
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = Losses(weight=total_weight(rows))
        for place, batch in self._share(rows):
            self.torch.manual_seed(_drawn(self.config.seed, number, place))
            loss = self._loss(batch, losses)
            (loss / losses.weight).backward()
        limit = self.config.max_grad_norm or float("inf")
        norm = self.torch.nn.utils.clip_grad_norm_(list(self.parameters().values()), limit)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return losses.over(self.group), float(whole(norm))

    def measure(self, rows: Iterable[Sequence[Example]]) -> Losses:
        """The losses on rows that are not learned."""
        self.model.eval()
        losses = Losses()
        waiting = iter(rows)
        with self.torch.no_grad():
            while some := list(itertools.islice(waiting, self.config.batch_size * self.group.processes.count)):
                losses.weight += total_weight(some)
                for _, batch in self._share(some):
                    self._loss(batch, losses)
        if not self.group.is_alone:
            take_apart(self.model)
        return losses.over(self.group)

    def _share(self, rows: Sequence[Sequence[Example]]) -> Iterator[tuple[int, Batch]]:
        """This process's batches of the rows, numbered among all.

        Whoever has none left computes one again that counts nothing: the others need its share of the weights.
        """
        # Rows of like length share a batch: less padding, and the sum over all is the same.
        ordered = sorted(rows, key=lambda row: -sum(len(example.ids) for example in row))
        size = self.config.batch_size
        batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        mine = self.group.processes
        for first in range(0, len(batches), mine.count):
            place = first + mine.rank
            if place < len(batches):
                yield place, collate(batches[place], padding=0)
            else:
                yield place, collate(batches[-1], padding=0).without_weight()

    def _loss(self, batch: Batch, losses: Losses) -> Any:
        """The weighted sum over the batch's tokens, which is also added to ``losses``."""
        torch = self.torch
        ids_BT, weights_BT, parts_BT = (
            torch.from_numpy(values).to(self.device) for values in (batch.ids_BT, batch.weights_BT, batch.parts_BT)
        )
        inputs = {"input_ids": ids_BT, "position_ids": torch.from_numpy(batch.positions_BT).to(self.device)}
        if batch.is_packed:
            inputs["attention_mask"] = torch.from_numpy(attention_mask(batch.segments_BT)).to(self.device)
        with self._autocast():
            logits_BTV = self.model(**inputs, use_cache=False).logits
        targets, parts = ids_BT[:, 1:].reshape(-1), parts_BT[:, 1:].reshape(-1)
        nll = torch.nn.functional.cross_entropy(
            logits_BTV[:, :-1].float().reshape(-1, logits_BTV.shape[-1]), targets, reduction="none"
        )
        loss = (nll * weights_BT[:, 1:].reshape(-1)).sum()
        if batch.counts:
            losses.weighted += float(loss.detach())
            sums = torch.bincount(parts, weights=nll.detach().double(), minlength=len(PARTS)).tolist()
            counts = torch.bincount(parts, minlength=len(PARTS)).tolist()
            losses.sums = [old + new for old, new in zip(losses.sums, sums, strict=True)]
            losses.counts = [old + new for old, new in zip(losses.counts, counts, strict=True)]
            losses.tokens += batch.tokens
        return loss

    def _autocast(self) -> Any:
        if self.config.precision is Precision.BF16:
            # Kept short copies of gathered weights would be the whole model in every process.
            return self.torch.autocast(self.device, dtype=self.torch.bfloat16, cache_enabled=self.group.is_alone)
        return contextlib.nullcontext()

    def write(self, folder: Path, adapter: Path | None = None) -> None:
        """Write the model as a Hugging Face folder, in the number type it came in; LoRA's from its ``adapter``.

        Of several processes the first writes, and all must ask. The learner cannot be used afterwards.
        """
        if adapter is not None:
            self.model = None  # its memory is needed
            if self.group.processes.is_first:
                write_model(merged(self.folder, adapter), folder, self.folder)
        elif self.group.is_alone:
            write_model(self.model.to(stored_dtype(self.folder)), folder, self.folder)
        else:
            tensors = gathered(self.parameters(), self.group)
            if self.group.processes.is_first:
                self.model = read_model(self.folder, stored_dtype(self.folder))
                with self.torch.no_grad():
                    for name, value in self.model.named_parameters():
                        value.copy_(tensors.pop(name))
                write_model(self.model, folder, self.folder)

    def write_adapter(self, folder: Path) -> None:
        """Write LoRA's matrices alone, as peft does. Of several processes the first writes, and all must ask."""
        tensors = None if self.group.is_alone else gathered(self.parameters(), self.group)
        if self.group.processes.is_first:
            write_adapter(self.model, folder, self.folder, tensors)


def _drawn(seed: int, step: int, place: int) -> int:
    """The seed of a batch's random numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}:{place}".encode()).digest()[:7], "big")


def total_weight(rows: Sequence[Sequence[Example]]) -> float:
    """The sum of all tokens' weights."""
    return sum(span.weight * (span.end - span.start) for row in rows for example in row for span in example.spans)
