"""Prompts told again with their log-probabilities: how benchmarks score choices without a word being written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from selfee.engines.base import Chunk, FinishReason, TokenLogprob, Usage
from selfee.engines.scoring import ScoredToken
from selfee.serve.engine.backend import Backend
from selfee.serve.engine.jobs import TextJob


@dataclass(frozen=True)
class Echo:
    """A prompt, its tokens if they were scored, and the likeliest token after it."""

    text: str = ""
    tokens: tuple[TokenLogprob, ...] = ()
    next: TokenLogprob | None = None

    def continuation(self, job: TextJob) -> Chunk | None:
        """What the job gives where scoring has found it already: nothing, or one greedy token."""
        usage = Usage(len(self.tokens), 0, 0, 0.0, 0.0, job.params.seed)
        if job.max_tokens == 0:
            return Chunk("", FinishReason.LENGTH, usage)
        plain = not job.params.logit_bias and not job.stop
        if job.max_tokens != 1 or self.next is None or job.params.temperature or not plain:
            return None
        usage = Usage(len(self.tokens), 0, 1, 0.0, 0.0, job.params.seed)
        return Chunk(self.next.text, FinishReason.LENGTH, usage, None, (self.next,))


async def echoes_of(backend: Backend, jobs: Sequence[TextJob], logprobs: int | None) -> list[Echo]:
    """The echo of each job's prompt; scored together where log-probabilities are wanted."""
    if logprobs is None:
        return [Echo(await backend.detokenize(job.tokens) if job.tokens else job.prompt) for job in jobs]
    prompts = [job.prompt if job.tokens is None else job.tokens for job in jobs]
    echoes = []
    for job, scored in zip(jobs, await backend.score(prompts, top=logprobs, scope=jobs[0].scope), strict=True):
        text = await backend.detokenize(job.tokens) if job.tokens else job.prompt
        echoes.append(Echo(text, tuple(map(_told, scored.tokens)), _told(scored.next)))
    return echoes


def _told(token: ScoredToken) -> TokenLogprob:
    logprob = math.nan if token.logprob is None else token.logprob
    return TokenLogprob(token.token, token.text, logprob, token.top)
