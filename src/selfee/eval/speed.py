"""How many tokens a second a model generates, one after another, as it does when it answers."""

from __future__ import annotations

import statistics
import time

from selfee.llama.generate import generate
from selfee.llama.model import Model
from selfee.llama.sampling import Sampler, SamplerConfig

_PROMPT, _NEW = 16, 48  # tokens
RUNS = 3


def decode_speed(model: Model, *, runs: int = RUNS, new_tokens: int = _NEW) -> float:
    """Tokens a second: the median of ``runs`` short greedy continuations; the prompt's time is not counted.

    The model's sessions must hold a few dozen tokens (context_length 64).
    """
    sampler = Sampler(SamplerConfig(temperature=0))
    vocabulary, session = model.config.vocabulary, model.new_session()
    prompt = [(7 * index) % vocabulary for index in range(min(_PROMPT, model.context_length // 4))]
    count = min(new_tokens, model.context_length - len(prompt))
    rates = []
    for _ in range(runs):
        session.truncate(0)
        stream = generate(session, prompt, sampler, max_tokens=count)
        next(stream)
        started = time.perf_counter()
        made = sum(1 for _ in stream)
        rates.append(made / (time.perf_counter() - started))
    return statistics.median(rates)
