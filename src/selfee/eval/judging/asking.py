"""Ask one judge for one judgment, again if its reply cannot be read, and record whatever comes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfee import __version__
from selfee.chain.asking import derive_seed
from selfee.engines.base import ChatRequest, FinishReason, Message, Request, SamplingParams
from selfee.engines.paid.journalled import JournalledEngine
from selfee.engines.paid.reply import Reply
from selfee.errors import ContextOverflowError, EngineError, StoppedError, UsageError
from selfee.eval.judging.items import Item
from selfee.eval.judging.prompts import Prompt, build_prompt, check_fits
from selfee.eval.judging.templates import Template
from selfee.eval.judging.weighing import TOP, weigh_label, weigh_rating
from selfee.eval.scoring.judgment import Form, JudgeUsage, Judgment, Unreadable
from selfee.eval.scoring.reading import Reading, read_reply

DEFAULT_MAX_TOKENS = 1024
_UNREADABLE_BECAUSE = {
    Unreadable.EMPTY: "it is empty",
    Unreadable.NO_VERDICT: "it holds no verdict",
    Unreadable.ONE_SCORE: "it holds one score, and two answers were shown",
    Unreadable.OUT_OF_RANGE: "its numbers are not on the scale",
    Unreadable.CONTRADICTION: "it says two different things",
}


@dataclass(frozen=True)
class AskRules:
    """How a judge is asked. Two judgments with equal rules, template, judge and texts are the same request."""

    seed: int = 0
    temperature: float | None = None  # None = as the template says, else 0
    max_tokens: int | None = None  # of a reply; None = as the template says, else 1,024
    asks: int = 3  # requests at most until a reply can be read
    fences: bool = True
    weighs: bool = False  # ask for token probabilities, and weigh the verdict with them

    def __post_init__(self) -> None:
        if self.asks < 1:
            raise UsageError(f"asks: {self.asks}; expected 1 or more")

    def params(self, item: Item, template: Template) -> SamplingParams:
        """How a reply is drawn: repeated judgments, and the other order of equal texts, have other seeds."""
        temperature = template.temperature if self.temperature is None else self.temperature
        seed = derive_seed(self.seed, 2 * item.repeat + item.is_swapped, "repeat ")
        # Only what every server knows: others than the defaults would be sent, and strict servers refuse them.
        return SamplingParams(temperature=temperature or 0.0, top_p=1.0, seed=seed)

    def limit(self, template: Template) -> int:
        """Tokens that a reply may have."""
        return self.max_tokens or template.max_tokens or DEFAULT_MAX_TOKENS


def ask(engine: JournalledEngine, item: Item, template: Template, rules: AskRules) -> Judgment:
    """One judgment. A judge that fails, or never says anything readable, is recorded so.

    Raises StoppedError if no more may be asked, and UsageError for what does not fit the judge.
    """
    check_fits(item, template)
    prompt = build_prompt(item, template, seed=rules.seed, fences=rules.fences)
    messages, replies = list(prompt.messages), list[Reply]()
    reading = Reading(unreadable=Unreadable.FAILED)
    notes: tuple[str, ...] = ()
    for _ in range(rules.asks):
        try:
            reply = engine.obtain(request_for(engine, messages, item, template, rules))
        except StoppedError:
            raise
        except (EngineError, ContextOverflowError) as error:
            reading, notes = Reading(unreadable=Unreadable.FAILED), (_failure(error),)
            break
        replies.append(reply)
        reading = read_reply(reply.text, template.form, template.scale)
        notes = _notes(reading, reply)
        if reading.is_readable:
            break
        messages += _ask_again(reading, reply, template)
    return _judgment(engine, item, template, rules, prompt, replies, reading, notes)


def request_for(
    engine: JournalledEngine, messages: Sequence[Message], item: Item, template: Template, rules: AskRules
) -> ChatRequest | Request:
    """The request; a judge that cannot chat is sent the messages as one text."""
    params, limit = rules.params(item, template), rules.limit(template)
    logprobs = TOP if rules.weighs else None
    if engine.supports_chat:
        return ChatRequest(tuple(messages), params, limit, logprobs=logprobs)
    text = "\n\n".join(message.content for message in messages)
    return Request(f"{text}\n\nJudgment:\n", params, limit, logprobs=logprobs)


def _ask_again(reading: Reading, reply: Reply, template: Template) -> list[Message]:
    assert reading.unreadable is not None, "a readable reply is not asked for again"
    why = _UNREADABLE_BECAUSE.get(reading.unreadable, "it cannot be read")
    if reply.finish_reason is FinishReason.LENGTH:
        why += " (it was cut off: be brief)"
    asked = f"Your reply cannot be used: {why}. Now {template.reminder}. Write nothing else."
    said = [Message("assistant", reply.text)] if reply.text.strip() else [Message("assistant", "(no reply)")]
    return [*said, Message("user", asked)]


def _notes(reading: Reading, reply: Reply) -> tuple[str, ...]:
    cut = reply.finish_reason in (FinishReason.LENGTH, FinishReason.CONTEXT)
    return (*reading.notes, *(["the reply was cut off by its token limit"] if cut else []))


def _failure(error: Exception) -> str:
    kind = getattr(error, "kind", "") or type(error).__name__
    return f"{kind}: {error}"


def judgment_id(engine: JournalledEngine, item: Item, template: Template, rules: AskRules, prompt: Prompt) -> str:
    """A name for everything that could change the reply."""
    told = [engine.model, [[m.role, m.content] for m in prompt.messages], template.sha256, item.repeat]
    told += [item.question_id, [answer.system for answer in item.answers]]  # equal texts are judgments of their own
    more = [rules.params(item, template).temperature, rules.limit(template), rules.asks, rules.weighs, rules.seed]
    return hashlib.blake2b(json.dumps([told, more]).encode(), digest_size=16).hexdigest()


def _judgment(
    engine: JournalledEngine,
    item: Item,
    template: Template,
    rules: AskRules,
    prompt: Prompt,
    replies: Sequence[Reply],
    reading: Reading,
    notes: tuple[str, ...],
) -> Judgment:
    shown = item.shown()
    last = replies[-1] if replies else None
    failed = reading.unreadable is Unreadable.FAILED
    judgment = Judgment(
        id=judgment_id(engine, item, template, rules, prompt),
        form=template.form,
        question_id=item.question_id,
        question_sha256=item.question.sha256,
        category=item.question.category,
        first=shown[0],
        second=shown[1] if len(shown) > 1 else None,
        judge=engine.model,
        template=template.name,
        template_sha256=template.sha256,
        parameters=_parameters(template, rules),
        repeat=item.repeat,
        scores=reading.scores,
        label=reading.label,
        strong=reading.strong,
        unreadable=reading.unreadable,
        notes=notes,
        reply="" if last is None or failed else last.text,
        earlier_replies=tuple(reply.text for reply in (replies if failed else replies[:-1])),
        finish_reason="" if last is None else last.finish_reason.value,
        usage=_usage(replies),
        selfee=__version__,
    )
    return _weighed(judgment, last) if rules.weighs and last is not None and reading.is_readable else judgment


def _parameters(template: Template, rules: AskRules) -> dict[str, Any]:
    """What judgments have in common that may be summed up together; seeds and fences of each follow from it."""
    temperature = template.temperature if rules.temperature is None else rules.temperature
    told = {"temperature": temperature or 0.0, "seed": rules.seed, "max_tokens": rules.limit(template)}
    return told | {"asks": rules.asks, "fences": rules.fences} | ({"weighs": True} if rules.weighs else {})


def _weighed(judgment: Judgment, reply: Reply) -> Judgment:
    """The judgment with what the judge's token probabilities say, where they can be read."""
    if judgment.form is Form.PAIR_LABEL:
        preference = weigh_label(reply.text, reply.logprobs, judgment.label)
        if preference is not None:
            return replace(judgment, preference=preference)
    elif judgment.form is Form.SINGLE_SCORE and judgment.scores is not None:
        expected = weigh_rating(reply.text, reply.logprobs)
        if expected is not None:
            said = f"weighed by token probabilities; the judge wrote {judgment.scores[0]:g}"
            return replace(judgment, scores=(round(expected, 6),), notes=(*judgment.notes, said))
    return replace(judgment, notes=(*judgment.notes, "the judge's token probabilities do not tell: not weighed"))


def _usage(replies: Sequence[Reply]) -> JudgeUsage:
    known = [reply.usage for reply in replies if reply.usage is not None]
    costs = [reply.cost for reply in replies if reply.cost is not None]
    return JudgeUsage(
        len(replies),
        sum(usage.prompt_tokens for usage in known),
        sum(usage.cached_tokens for usage in known),
        sum(usage.completion_tokens for usage in known),
        round(sum(reply.seconds for reply in replies), 3),
        round(sum(costs), 8) if costs else None,
    )
