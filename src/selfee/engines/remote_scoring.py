"""How likely a server finds given continuations: by echoing them, or by walking along its most likely tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from selfee.engines.base import ScoringEngine, TokenLogprob
from selfee.engines.wire import parse_logprobs
from selfee.errors import EngineError

_PROBE = "One, two, three, four"
_PATH = "/completions"
_TOP = 20
_MAX_STEPS = 64


class _Server(Protocol):
    def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]: ...


def find_scorer(server: _Server, model: str) -> ScoringEngine | None:
    """The better of two ways that works on this server, or None; asks for one token each.

    Raises EngineError only if the server cannot be asked at all (a retryable error); a refusal means None.
    """
    for scorer in (EchoScorer(server, model), WalkScorer(server, model)):
        try:
            if scorer.works():
                return scorer
        except EngineError as error:
            if error.retryable:
                raise
    return None


@dataclass(frozen=True)
class EchoScorer:
    """Exact: the server echoes prompt and choice with the log-probability of every token (vLLM, SGLang).

    The tokens that count are those of prompt + choice from where the text differs from the prompt; a token across the
    border counts.
    """

    server: _Server
    model: str

    def works(self) -> bool:
        """Whether an echo with log-probabilities comes back."""
        tokens = self._echo(_PROBE)
        return len(tokens) > 1 and all(-1e9 < token.logprob <= 0.0 for token in tokens[1:])

    def score(self, prompt: str, choices: Sequence[str], *, parse_special: bool = False) -> Sequence[float]:
        """See ``ScoringEngine.score``."""
        return [self._score(prompt, choice) for choice in choices]

    def _score(self, prompt: str, choice: str) -> float:
        if not choice:
            return 0.0
        tokens = self._echo(prompt + choice)
        total, left = 0.0, len(choice)
        for token in reversed(tokens):
            if left <= 0:
                break
            total += token.logprob
            left -= len(token.text)
        if left > 0:
            raise EngineError(f"{self.model}: the echo does not hold the text asked for; scoring is not possible")
        return total

    def _echo(self, text: str) -> tuple[TokenLogprob, ...]:
        """One token per token of ``text``: the one generated (some servers refuse 0) is cut off."""
        body = {"model": self.model, "prompt": text, "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0.0}
        choice = _choice(self.server.json("POST", _PATH, body))
        tokens = list(parse_logprobs(choice.get("logprobs")))
        while len(tokens) > 1 and len("".join(token.text for token in tokens[:-1])) >= len(text):
            tokens.pop()
        return tuple(tokens) if "".join(token.text for token in tokens).endswith(text) else ()


@dataclass(frozen=True)
class WalkScorer:
    """For servers that tell the most likely next tokens only (llama.cpp): one request for each step along a choice.

    At every step the longest of the likely tokens that continues the choice is taken. Where none does, the rest of the
    choice counts as likely as the least likely token shown, which is an upper bound.
    """

    server: _Server
    model: str

    def works(self) -> bool:
        """Whether a table of likely tokens comes back."""
        return len(self._table(_PROBE)) > 1

    def score(self, prompt: str, choices: Sequence[str], *, parse_special: bool = False) -> Sequence[float]:
        """See ``ScoringEngine.score``."""
        tables: dict[str, Mapping[str, float]] = {}
        return [self._score(prompt, choice, tables) for choice in choices]

    def _score(self, prompt: str, choice: str, tables: dict[str, Mapping[str, float]]) -> float:
        total = 0.0
        for _ in range(_MAX_STEPS):
            if not choice:
                break
            if prompt not in tables:
                tables[prompt] = self._table(prompt)
            table = tables[prompt]
            if not table:
                raise EngineError(f"{self.model}: no table of likely tokens came; scoring is not possible")
            token = max((text for text in table if text and choice.startswith(text)), key=len, default=None)
            if token is None:
                return total + min(table.values())
            total += table[token]
            prompt, choice = prompt + token, choice[len(token) :]
        return total

    def _table(self, prompt: str) -> Mapping[str, float]:
        body = {"model": self.model, "prompt": prompt, "max_tokens": 1, "logprobs": _TOP, "temperature": 0.0}
        tokens = parse_logprobs(_choice(self.server.json("POST", _PATH, body)).get("logprobs"))
        return {text: logprob for _, text, logprob in reversed(tokens[0].top)} if tokens else {}


def _choice(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = payload.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    raise EngineError("completions: the answer has no choices; expected one; is the server OpenAI-compatible?")
