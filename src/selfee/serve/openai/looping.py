"""Completions with a field ``selfee``: a prompt in SelFee's words, and the whole chain as the text that follows it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from selfee.chain.format import read_conversation
from selfee.errors import UsageError
from selfee.serve.admission import Ticket
from selfee.serve.asking import Suffix
from selfee.serve.openai.chains import Chains, Plan, chain_job, checked_count, choices_of, revisions_of
from selfee.serve.openai.merging import merged, together
from selfee.serve.openai.telling import RawText, ReasoningText, about, finish_reason, inline, pieces, usage_of
from selfee.serve.openai.writing import Row, as_events, head_of
from selfee.serve.protocol.chat import SelfeeOptions
from selfee.serve.protocol.completions import CompletionRequest
from selfee.serve.protocol.errors import ApiError
from selfee.serve.service import Served, Service


def asks_for_chain(asked: CompletionRequest, suffix: Suffix) -> bool:
    """Whether the text is to be revised, and not just continued as it stands."""
    if asked.selfee is not None:
        return asked.selfee.mode != "off"
    return bool(suffix.revisions)


def plan_loop(service: Service, asked: CompletionRequest, model: Served, suffix: Suffix) -> Plan:
    """What is to be done. Raises ApiError (400)."""
    asked.check_loop()
    options = asked.selfee or SelfeeOptions()
    policy = revisions_of(options, suffix, None, model.defaults.policy)
    assert isinstance(asked.prompt, str), "checked"
    try:
        instruction = read_conversation(asked.prompt)
    except UsageError as error:
        found = f"{error}; a prompt in the model's own words is not needed at /v1/chat/completions"
        raise ApiError(400, found, param="prompt", code="invalid_value") from None
    job = chain_job(model, asked, instruction, options, policy, asked.max_tokens)
    job = replace(job, params=replace(job.params, logit_bias=asked.biases()))
    includes_usage = asked.stream_options is not None and asked.stream_options.include_usage
    view = options.view or suffix.view or "raw"
    return Plan(model, choices_of(job, checked_count(service, asked.n)), view, includes_usage)


class LoopWriter:
    """Does the jobs of one request and writes the answer."""

    def __init__(self, service: Service, plan: Plan, tickets: list[Ticket], echo: str) -> None:
        self._plan = plan
        self._chains = Chains(service, plan, tickets)
        self.release = self._chains.release
        self._echo = echo
        self._head = head_of("cmpl-", "text_completion", plan.model.name)

    async def whole(self) -> Row:
        """See ``Writer.whole``."""
        choices = await together([self._choice(index) for index in range(len(self._chains))])
        return self._head | {"choices": choices, "usage": usage_of(self._chains.made)}

    async def _choice(self, index: int) -> Row:
        async with aclosing(self._pieces(index)) as texts:
            text = "".join([text async for text in texts])
        chain = self._chains[index]
        return self._told(index, text, finish_reason(chain)) | {"selfee": about(chain)}

    def stream(self) -> AsyncIterator[bytes]:
        """See ``Writer.stream``."""
        usage = (lambda: usage_of(self._chains.made)) if self._plan.includes_usage else None
        return as_events(self._head, self._rows(), usage)

    async def _rows(self) -> AsyncGenerator[Row, None]:
        async with aclosing(merged([self._parts(index) for index in range(len(self._chains))])) as rows:
            async for row in rows:
                yield row

    async def _parts(self, index: int) -> AsyncGenerator[Row, None]:
        async with aclosing(self._pieces(index)) as texts:
            async for text in texts:
                yield {"choices": [self._told(index, text, None)]}
        chain = self._chains[index]
        mark = {name: value for name, value in about(chain).items() if name != "chain"}
        yield {"choices": [self._told(index, "", finish_reason(chain))], "selfee": mark}

    def _told(self, index: int, text: str, reason: str | None) -> Row:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}

    async def _pieces(self, index: int) -> AsyncGenerator[str, None]:
        """The text of one choice in its view: all of the chain as it is made, or the answer once it is known."""
        view = self._plan.view
        text = RawText() if view == "raw" else ReasoningText()
        is_first = True
        async with aclosing(self._chains.events(index)) as events:
            async for event in events:
                if is_first and self._echo:
                    yield self._echo
                is_first = False
                for told in text.tell(event):
                    if told.text and view != "final":
                        yield told.text
        chain = self._chains[index]
        if view != "raw":
            for piece in pieces(chain.final if view == "final" else inline(chain)):
                yield piece
