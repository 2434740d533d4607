"""A model that learns: loaded, wrapped for LoRA, taught one step at a time, and written as a folder again."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfee.train.config import Precision, TrainConfig
from selfee.train.dataset import Example
from selfee.train.libraries import library
from selfee.train.packing import PARTS, Batch, attention_mask, collate
from selfee.weights.huggingface.companions import is_companion


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


class Learner:
    """A model, its optimiser and the device they are on."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self.torch = library("torch")
        self.config = config
        self.folder = folder
        self.device = "cuda" if self.torch.cuda.is_available() else "cpu"
        self.torch.manual_seed(config.seed)
        self.torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
        self.model = self._load()
        trained = [value for value in self.model.parameters() if value.requires_grad]
        self.optimizer = self.torch.optim.AdamW(
            trained, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=config.weight_decay
        )

    def _read(self, dtype: Any) -> Any:
        return library("transformers").AutoModelForCausalLM.from_pretrained(
            self.folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True, trust_remote_code=False
        )

    def _load(self) -> Any:
        transformers, config = library("transformers"), self.config
        short = config.lora_rank and config.precision is Precision.BF16
        transformers.utils.logging.disable_progress_bar()
        self.stored = transformers.AutoConfig.from_pretrained(self.folder, local_files_only=True).dtype
        model = self._read(self.torch.bfloat16 if short else self.torch.float32)
        model.config.use_cache = False
        if config.lora_rank:
            peft = library("peft")
            settings = peft.LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.scale,
                lora_dropout=config.lora_dropout,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # peft calls transformers by a name it will lose
                model = peft.get_peft_model(model, settings)
        if config.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        return model.to(self.device)

    def parameters(self) -> dict[str, Any]:
        """The trained tensors by name."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def step(self, rows: Sequence[Sequence[Example]], rate: float) -> tuple[Losses, float]:
        """Learn from the rows of one step; the losses before it, and the length of the gradient."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = Losses(weight=total_weight(rows))
        for batch in self._batches(rows):
            loss = self._loss(batch, losses)
            (loss / losses.weight).backward()
        limit = self.config.max_grad_norm or float("inf")
        norm = self.torch.nn.utils.clip_grad_norm_(list(self.parameters().values()), limit)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return losses, float(norm)

    def measure(self, rows: Iterable[Sequence[Example]]) -> Losses:
        """The losses on rows that are not learned."""
        self.model.eval()
        losses = Losses()
        waiting = iter(rows)
        with self.torch.no_grad():
            while some := list(itertools.islice(waiting, self.config.batch_size)):
                losses.weight += total_weight(some)
                for batch in self._batches(some):
                    self._loss(batch, losses)
        return losses

    def _batches(self, rows: Sequence[Sequence[Example]]) -> Iterable[Batch]:
        # Rows of like length share a batch: less padding, and the sum over all is the same.
        ordered = sorted(rows, key=lambda row: -sum(len(example.ids) for example in row))
        for start in range(0, len(ordered), self.config.batch_size):
            yield collate(ordered[start : start + self.config.batch_size], padding=0)

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
        losses.weighted += float(loss.detach())
        sums = torch.bincount(parts, weights=nll.detach().double(), minlength=len(PARTS)).tolist()
        counts = torch.bincount(parts, minlength=len(PARTS)).tolist()
        losses.sums = [old + new for old, new in zip(losses.sums, sums, strict=True)]
        losses.counts = [old + new for old, new in zip(losses.counts, counts, strict=True)]
        losses.tokens += batch.tokens
        return loss

    def _autocast(self) -> Any:
        if self.config.precision is Precision.BF16:
            return self.torch.autocast(self.device, dtype=self.torch.bfloat16)
        return contextlib.nullcontext()

    def write(self, folder: Path, adapter: Path | None = None) -> None:
        """Write the model as a Hugging Face folder, in the number type it came in.

        An ``adapter`` is added to the base as it is stored: what LoRA does not touch keeps every bit. The learner
        cannot be used afterwards.
        """
        stored = self.stored or self.torch.float32
        if adapter is not None:
            self.model = None  # its memory is needed
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                model = library("peft").PeftModel.from_pretrained(self._read(stored), adapter).merge_and_unload()
        else:
            self.model.config.use_cache = True
            model = self.model.to(stored)
        model.save_pretrained(folder)
        _let_others_read(folder, folder / "config.json")
        for path in self.folder.iterdir():
            if path.is_file() and is_companion(path.name) and not (folder / path.name).exists():
                (folder / path.name).write_bytes(path.read_bytes())

    def write_adapter(self, folder: Path) -> None:
        """Write LoRA's matrices alone, as peft does."""
        self.model.save_pretrained(folder)
        _let_others_read(folder, folder / "adapter_config.json")


def _let_others_read(folder: Path, like: Path) -> None:
    """Give tensors, which the library writes for their owner alone, the permissions of an ordinary file."""
    for path in folder.glob("*.safetensors"):
        path.chmod(like.stat().st_mode & 0o777)


def total_weight(rows: Sequence[Sequence[Example]]) -> float:
    """The sum of all tokens' weights."""
    return sum(span.weight * (span.end - span.start) for row in rows for example in row for span in example.spans)
