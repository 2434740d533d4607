"""A model file made ready to run: its tokenizer, its chat template and its forward pass behind one face."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from math import prod
from pathlib import Path
from typing import cast

from selfee.engines.base import Message, Prediction, SamplingParams
from selfee.engines.cancelling import Cancellation
from selfee.engines.local import Decoder, Generated
from selfee.engines.memory import available_memory, has_room_to_pack, require_memory
from selfee.engines.scoring import Logits
from selfee.engines.sessions import Session
from selfee.errors import UsageError
from selfee.llama.cells import CacheType
from selfee.llama.chat_template import ChatTemplate
from selfee.llama.company import Company, GivenUpError
from selfee.llama.config import LlamaConfig
from selfee.llama.constraints import Constraints
from selfee.llama.drafting import CopyDrafter, Draft, DraftMemory
from selfee.llama.generate import generate
from selfee.llama.memory import memory_needed
from selfee.llama.model import Model
from selfee.llama.model import Session as LlamaSession
from selfee.llama.sampling import Sampler, SamplerConfig
from selfee.llama.session_file import load_session, save_session
from selfee.llama.tokenizer import load_tokenizer
from selfee.weights.adapter import TRAINED_ON_CHAINS
from selfee.weights.checkpoint import Checkpoint
from selfee.weights.open import open_checkpoint

_SMALLEST_CONTEXT = 512  # tokens; below that no chain fits
_SAMPLER_FIELDS = frozenset(field.name for field in dataclasses.fields(SamplerConfig))


class LlamaRuntime:
    """Implements ``Runtime`` and ``SessionFiles`` for a GGUF or GGML file. Made by ``load_runtime``."""

    def __init__(self, checkpoint: Checkpoint, model: Model, *, drafting: bool = True) -> None:
        self.name = checkpoint.path.name
        self._checkpoint = checkpoint
        self._model = model
        self._tokenizer = load_tokenizer(checkpoint.vocab)
        self._own_template = ChatTemplate.for_vocab(checkpoint.vocab, self._tokenizer)
        self._template = self._own_template
        self.context_length = model.context_length
        self.vocab_size = model.config.vocabulary
        self.end_tokens: Collection[int] = self._tokenizer.end_tokens
        self.num_parameters = sum(prod(tensor.shape) for tensor in checkpoint.tensors.values())
        self.trained_on_chains = checkpoint.metadata.get(TRAINED_ON_CHAINS) is True
        newline = self._tokenizer.encode("\n", add_bos=False)
        self._newline = newline[-1] if newline else None  # a byte-level vocabulary may lack the byte
        self._constraints = Constraints(self._tokenizer, self.vocab_size)
        self._company = Company(model)
        self._memory = DraftMemory() if drafting else None

    @property
    def supports_chat(self) -> bool:
        """See ``Runtime.supports_chat``."""
        return self._template is not None

    @property
    def template(self) -> str:
        """See ``Runtime.template``."""
        if self._template is None:
            return ""
        name = self._template.name or "no known name"
        return f"the model's own ({name})" if self._template is self._own_template else name

    @property
    def chat_stops(self) -> Sequence[str]:
        """See ``Runtime.chat_stops``."""
        return () if self._template is None else self._template.stops

    def use_template(self, name: str) -> None:
        """See ``Runtime.use_template``."""
        if name == "own" and self._own_template is None:
            raise UsageError(
                f"template: {self.name} has none of its own; expected alpaca, chatml or selfee; what it was trained on "
                "stands in its model card"
            )
        self._template = self._own_template if name == "own" else ChatTemplate.named(name, self._tokenizer)

    def encode(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        """See ``Runtime.encode``."""
        return self._tokenizer.encode(text, add_bos=None if add_bos else False, parse_special=parse_special)

    def encode_chat(self, messages: Sequence[Message], prefix: str) -> list[int]:
        """See ``Runtime.encode_chat``. Raises UsageError where the file has no template."""
        if self._template is None:
            raise UsageError(f"{self._checkpoint.path}: has no chat template; expected one for a chat; use guided mode")
        return self._template.encode(messages, prefix)

    def piece(self, token: int) -> str:
        """See ``Runtime.piece``."""
        return self._tokenizer.piece(token)

    def decoder(self) -> Decoder:
        """See ``Runtime.decoder``: for tokens that continue a text."""
        return self._tokenizer.stream_decoder()

    def new_session(self) -> Session:
        """See ``Runtime.new_session``."""
        return self._model.new_session()

    def save_session(self, path: Path, session: Session, tokens: Sequence[int], remembered: Path | None) -> None:
        """See ``SessionFiles.save_session``."""
        save_session(path, cast(LlamaSession, session), tokens, remembered=remembered)

    def load_session(self, path: Path, session: Session, remembered: Path | None) -> list[int]:
        """See ``SessionFiles.load_session``."""
        return load_session(path, cast(LlamaSession, session), remembered=remembered)

    def quiet(self) -> AbstractContextManager[None]:
        """See ``Runtime.quiet``."""
        return self._company.pause()

    def generate(
        self,
        session: Session,
        tokens: Sequence[int],
        params: SamplingParams,
        seed: int,
        max_tokens: int,
        prediction: Prediction | None,
        cancellation: Cancellation | None = None,
        schema: str | None = None,
    ) -> Generator[Generated, None, None]:
        """See ``Runtime.generate``."""
        settings = {name: value for name, value in vars(params).items() if name in _SAMPLER_FIELDS}
        free = Sampler(SamplerConfig(**(settings | {"seed": seed})), self._newline)
        sampler = free if schema is None else self._constraints.sampler(schema, free)
        drafter = None if self._memory is None else _Predicted(self._memory, prediction, self._encode_line)
        own = cast(LlamaSession, session)
        with self._company.join(own) as member, ExitStack() as hearing, suppress(GivenUpError):
            if cancellation is not None:
                hearing.enter_context(cancellation.heard_by(member.give_up))
            for step in generate(own, tokens, sampler, drafter, max_tokens, member):
                yield Generated(step.id, step.logits, step.drafted, step.verified)

    def forward_many(self, parts: Sequence[tuple[Session, Sequence[int], int]]) -> list[Logits]:
        """See ``Runtime.forward_many``."""
        return self._model.forward_many(
            [(cast(LlamaSession, session), tokens, rows) for session, tokens, rows in parts]
        )

    def _encode_line(self, text: str) -> list[int]:
        """Tokens of a text as they are where it begins a line, which is where answers begin."""
        tokens = self.encode("\n" + text, add_bos=False, parse_special=False)
        return tokens[tokens.index(self._newline) + 1 :] if self._newline in tokens[:2] else tokens

    def close(self) -> None:
        """Let go of the weights."""
        self._model.close()
        self._checkpoint.close()


class _Predicted:
    """A Drafter that hears what the reader of the text predicts."""

    def __init__(self, memory: DraftMemory, prediction: Prediction | None, encode: Callable[[str], list[int]]) -> None:
        self._drafter = CopyDrafter(memory)
        self._prediction = prediction
        self._encode = encode
        self._heard: int | None = None

    def begin(self, tokens: Sequence[int]) -> None:
        self._drafter.begin(tokens)
        self._heard = None

    def wrote(self, tokens: Sequence[int]) -> None:
        self._listen()  # what was said about a token before these
        self._drafter.wrote(tokens)

    def propose(self, limit: int) -> Draft:
        self._listen()
        return self._drafter.propose(limit)

    def _listen(self) -> None:
        if self._prediction is not None and self._prediction.changes != self._heard:
            self._heard = self._prediction.changes
            text = self._prediction.text
            self._drafter.revise(self._encode(text) if text else ())


def load_runtime(
    path: Path,
    *,
    context_length: int | None = None,
    threads: int | None = None,
    repack: bool | None = None,
    parallel: int = 1,
    drafting: bool = True,
    cache_type: CacheType = "f16",
) -> LlamaRuntime:
    """Open a model file and bind it to the forward pass.

    Quantised weights are copied into the kernels' faster layout, which takes one pass over the file and the place of
    its pages in memory; ``repack`` False leaves them where they are mapped, None does so only where memory is short.
    ``context_length`` None takes the model's own, halved until weights and the caches of ``parallel`` requests fit into
    the memory there is; a number is taken as it is. ``drafting`` False has every token computed on its own: the same
    text, slower. ``cache_type`` "q8_0" halves the memory of the caches and may change the text. Raises BadFileError,
    UnsupportedFileError, UsageError, and ResourceError naming what is needed and what there is.
    """
    checkpoint = open_checkpoint(path)
    try:
        config, have = LlamaConfig.from_checkpoint(checkpoint), available_memory()
        length = _fitting_context(checkpoint, config, context_length, have, parallel, cache_type)
        need = memory_needed(checkpoint, config, length, parallel, cache_type)
        packed = has_room_to_pack(need, have) if repack is None else repack
        model = Model.load(checkpoint, context_length=length, threads=threads, packed=packed, cache_type=cache_type)
        return LlamaRuntime(checkpoint, model, drafting=drafting)
    except BaseException:
        checkpoint.close()
        raise


def _fitting_context(
    checkpoint: Checkpoint,
    config: LlamaConfig,
    asked: int | None,
    have: int | None,
    parallel: int,
    cache_type: CacheType,
) -> int:
    length = asked or config.context_length
    while not asked and have is not None and length > _SMALLEST_CONTEXT:
        if memory_needed(checkpoint, config, length, parallel, cache_type) <= have:
            break
        length = max(_SMALLEST_CONTEXT, length // 2)
    need = memory_needed(checkpoint, config, length, parallel, cache_type)
    advice = "use a smaller file" + (" or a smaller context_length" if asked else "")
    require_memory(str(checkpoint.path), need, have, advice)
    return length
