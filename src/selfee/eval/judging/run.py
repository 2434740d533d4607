"""Ask for many judgments, several at a time; what the journal has is not asked again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from selfee.engines.base import Usage
from selfee.engines.paid.journalled import JournalledEngine
from selfee.engines.paid.prices import Price, estimate_prompt
from selfee.engines.paid.reply import asked_of
from selfee.errors import StoppedError
from selfee.eval.judging.asking import AskRules, ask, request_for
from selfee.eval.judging.items import Item
from selfee.eval.judging.prompts import build_prompt
from selfee.eval.judging.templates import Template, TemplateSet, uses_reference
from selfee.eval.scoring.judgment import Judgment
from selfee.journal import Journal, key_of

_AHEAD = 4  # judgments handed to each thread beforehand

Listener = Callable[[int, Judgment], None]
"""Called with (how many are done, the judgment that has just come), from the thread that runs the whole."""


@dataclass(frozen=True)
class Assignment:
    """An item with the template that it is to be judged by."""

    item: Item
    template: Template


def assign(items: Sequence[Item], templates: TemplateSet, references: str = "auto") -> list[Assignment]:
    """Choose a template for every item. Raises UsageError where none fits."""
    return [
        Assignment(
            item,
            templates.choose(
                item.question, item.turn, with_reference=uses_reference(item.question, item.turn, references)
            ),
        )
        for item in items
    ]


@dataclass
class Judged:
    """What came of a run: judgments in the order of the items; those missing where it was stopped."""

    judgments: list[Judgment] = field(default_factory=list)
    stopped: str | None = None  # why not all were asked for; None = all were


def judge_items(
    engine: JournalledEngine,
    work: Sequence[Assignment],
    rules: AskRules,
    *,
    parallel: int = 1,
    listen: Listener = lambda done, judgment: None,
) -> Judged:
    """Ask for all judgments. Stopped by the budget, or a server that is down, it returns what there is."""
    found: dict[int, Judgment] = {}
    stopped: str | None = None
    is_over = threading.Event()

    def one(number: int) -> Judgment:
        if is_over.is_set():
            raise StoppedError("stopped: an earlier judgment could not be asked for")
        return ask(engine, work[number].item, work[number].template, rules)

    waiting: dict[Future[Judgment], int] = {}
    numbers = iter(range(len(work)))
    pool = ThreadPoolExecutor(parallel, "judge")
    try:
        while True:
            while stopped is None and len(waiting) < _AHEAD * parallel and (number := next(numbers, None)) is not None:
                waiting[pool.submit(one, number)] = number
            if not waiting:
                break
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                number = waiting.pop(future)
                try:
                    found[number] = future.result()
                except StoppedError as error:
                    is_over.set()
                    stopped = stopped or str(error)
                    continue
                listen(len(found), found[number])
    finally:
        is_over.set()
        pool.shutdown(wait=False, cancel_futures=True)
    return Judged([found[number] for number in sorted(found)], stopped)


@dataclass(frozen=True)
class Estimate:
    """What a run would take, before anything is asked."""

    judgments: int
    known: int  # whose first reply the journal has
    prompt_tokens: int  # of the requests to come, reckoned from the length of their texts
    completion_tokens: int
    cost: float | None  # US dollars; None = no price is known


def estimate(
    engine: JournalledEngine,
    work: Sequence[Assignment],
    rules: AskRules,
    journal: Journal,
    price: Price | None,
    usual_reply: int = 250,
) -> Estimate:
    """Reckon tokens and cost of what the journal does not have; requests asked again are not in it."""
    known = prompt_tokens = completion_tokens = 0
    for each in work:
        prompt = build_prompt(each.item, each.template, seed=rules.seed, fences=rules.fences)
        request = request_for(engine, prompt.messages, each.item, each.template, rules)
        if journal.get(key_of(asked_of(request, engine.model))) is not None:
            known += 1
            continue
        prompt_tokens += estimate_prompt(request)
        completion_tokens += min(usual_reply, rules.limit(each.template))
    cost = None if price is None else price.of(Usage(prompt_tokens, 0, completion_tokens, 0.0, 0.0))
    return Estimate(len(work), known, prompt_tokens, completion_tokens, cost)
