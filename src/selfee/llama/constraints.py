"""Text that satisfies a JSON schema: which tokens may come next, by the package llguidance (extra ``json``).

A token that would leave the schema loses its logit before the samplers see it; the others keep theirs. Once the text
is complete only an end token may come. White space between the parts of the text is left out, so that a small model
cannot lose itself in it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from selfee.errors import EngineError, MissingExtraError, UsageError
from selfee.llama.tokenizer import Tokenizer

if TYPE_CHECKING:
    from selfee.llama.generate import Sampler

_NEVER = np.float32(-1e30)  # a finite logit, because samplers refuse infinite ones, that no token is drawn with


class Constraints:
    """A model's vocabulary, made ready for schemas when the first comes; safe to share between threads.

    ``size`` counts the model's logits, of which a few may belong to no token.
    """

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self._tokenizer = tokenizer
        self._size = size
        self._made: Any = None
        self._lock = threading.Lock()

    def sampler(self, schema: str, sampler: Sampler) -> ConstrainedSampler:
        """The sampler, for one text that satisfies ``schema``.

        Raises UsageError for what is no schema, or one that cannot be enforced, and MissingExtraError.
        """
        try:
            import llguidance
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "response_format: llguidance is not installed; expected it for schemas; run: pip install 'selfee[json]'"
            ) from error
        try:
            options = {"whitespace_flexible": False}
            grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=options)
        except ValueError as error:
            raise _refused(str(error)) from error
        matcher = llguidance.LLMatcher(self._vocabulary(llguidance), grammar, log_level=0)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return ConstrainedSampler(sampler, matcher, self._size)

    def _vocabulary(self, llguidance: Any) -> Any:
        with self._lock:
            if self._made is None:
                ends = sorted(self._tokenizer.end_tokens)
                if not ends:
                    raise UsageError("response_format: this model has no end token; expected one to end the text with")
                wrapper = llguidance.TokenizerWrapper(_Vocabulary(self._tokenizer, ends[0]))
                self._made = llguidance.LLTokenizer(wrapper, n_vocab=self._size, eos_token=ends)
            return self._made


class _Vocabulary:
    """What llguidance wants to know of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, end: int) -> None:
        self.eos_token_id = end
        self.bos_token_id = tokenizer.bos
        self.tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(tokenizer.control_tokens | tokenizer.end_tokens)
        self._tokenizer = tokenizer

    def __call__(self, text: bytes | str) -> list[int]:
        text = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return self._tokenizer.encode(text, add_bos=False, continues=True)


class ConstrainedSampler:
    """Implements ``Sampler`` for one text: draws only among the tokens that may come next."""

    def __init__(self, sampler: Sampler, matcher: Any, size: int) -> None:
        self._sampler = sampler
        self._matcher = matcher
        self._size = size

    def begin(self, tokens: Sequence[int]) -> None:
        """See ``Sampler.begin``."""
        self._sampler.begin(tokens)

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """See ``Sampler.sample``. Raises EngineError where no token can come, as when ``logit_bias`` bans them all."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little", count=self._size).view(bool)
        token = self._sampler.sample(np.where(allowed, logits, _NEVER))
        if not self._matcher.consume_token(token):
            raise EngineError(f"response_format: no token can go on with the text ({self._matcher.get_error()[:200]})")
        return token


def _refused(found: str) -> UsageError:
    return UsageError(
        f"response_format: {found.strip().splitlines()[0][:200]}; expected a JSON schema of the usual kind"
    )
