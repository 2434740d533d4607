"""A longer chain holds the shorter ones: read off it, they are what the engine would have made."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.chain.budgets import Budgets
from selfee.chain.policy import RevisionPolicy
from selfee.chain.run import Mode, run_chain
from selfee.chain.shorter import shorten
from selfee.chain.types import Chain, ChainEnd, Cost
from selfee.engines.base import ChatRequest, Chunk, FinishReason, Request, SamplingParams, Usage
from selfee.engines.scripted import ScriptedEngine, split_tokens
from selfee.errors import UsageError

WORDS = ("sky", "blue", "light", "scatters", "ocean.", "Why?", "because")
VERDICTS = ("Revision is needed.", "Revision is not needed.", "No revision needed.", "It should be revised.", "Hm.")


class Improviser:
    """Makes everything up, each text from a hash of its prompt and seed alone, as a model does.

    With ``lets_go`` its stream now and then writes headers, skips feedback, or ends anywhere.
    """

    name = "improviser"
    context_length: int | None = None

    def __init__(self, character: int) -> None:
        self.trained_on_chains = True
        self._character = character

    def stream(self, request: Request) -> Iterator[Chunk]:
        return self._speak(
            request.prompt, request, self._chain_words(request.prompt, self._rng(request.prompt, request))
        )

    def stream_chat(self, request: ChatRequest) -> Iterator[Chunk]:
        prompt = "\n".join(message.content for message in request.messages)
        rng = self._rng(prompt, request)
        return self._speak(prompt, request, [*self._some_words(rng), " ", rng.choice(VERDICTS)])

    def count_tokens(self, text: str, *, parse_special: bool = False) -> int:
        return len(split_tokens(text))

    def _rng(self, prompt: str, request: Request | ChatRequest) -> random.Random:
        return random.Random(f"{self._character} {prompt} {request.params.seed}")

    def _some_words(self, rng: random.Random) -> list[str]:
        return [f"{rng.choice(WORDS)} " for _ in range(rng.randint(1, 3))]

    def _chain_words(self, prompt: str, rng: random.Random) -> list[str]:
        words: list[str] = []
        number = prompt.count("### Feedback")
        in_feedback = prompt.rfind("### Feedback") > max(prompt.rfind("### Revision"), prompt.rfind("### Answer"))
        while rng.random() < 0.8:
            words += self._some_words(rng)
            if in_feedback:
                words += [" ", rng.choice(VERDICTS)]
                if rng.random() < 0.4:
                    break
            else:
                number += 1
            header = f"\n\n### {'Revision' if in_feedback else 'Feedback'} {number}:\n"
            words.append(header)
            in_feedback = not in_feedback
        return words

    def _speak(self, prompt: str, request: Request | ChatRequest, words: list[str]) -> Iterator[Chunk]:
        tokens = split_tokens("".join(words))
        allowed = len(tokens) if request.max_tokens is None else request.max_tokens
        for token in tokens[:allowed]:
            yield Chunk(token)
        end = FinishReason.END if len(tokens) <= allowed else FinishReason.LENGTH
        yield Chunk(
            "", end, Usage(len(split_tokens(prompt)), 0, min(allowed, len(tokens)), 0.0, 0.0, request.params.seed)
        )


def bare(chain: Chain) -> Chain:
    """Without what differs from run to run: times, and what of the policy stands in settings."""
    timeless = [
        replace(
            step,
            answer_cost=step.answer_cost and Cost(step.answer_cost.tokens, seeds=step.answer_cost.seeds),
            feedback_cost=step.feedback_cost and Cost(step.feedback_cost.tokens, seeds=step.feedback_cost.seeds),
        )
        for step in chain.steps
    ]
    return replace(chain, steps=tuple(timeless))


policies = st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()).map(
    lambda drawn: RevisionPolicy(min(drawn[:2]), max(drawn[:2]), drawn[2])
)


@pytest.mark.parametrize("mode", ["single-pass", "guided", "turns"])
@given(character=st.integers(0, 10**6), policy=policies, feedback=st.integers(2, 20))
def test_what_is_read_off_a_longer_chain_is_what_the_engine_would_have_made(
    mode: Mode, character: int, policy: RevisionPolicy, feedback: int
) -> None:
    engine, params, budgets = Improviser(character), SamplingParams(seed=character), Budgets(30, feedback, 30)
    enforced = RevisionPolicy(3, 3, policy.stop_repeats)
    longer = run_chain(engine, "Why?", enforced, params, mode=mode, budgets=budgets, prompts=prompts_of(mode))
    made = run_chain(engine, "Why?", policy, params, mode=mode, budgets=budgets, prompts=prompts_of(mode))
    read = shorten(longer, policy)
    assert [step.answer for step in bare(read).steps] == [step.answer for step in made.steps]
    assert read.final == made.final
    assert (read.end, read.cut) == (made.end, made.cut)
    assert bare(read).steps == bare(made).steps
    assert read.settings == made.settings
    assert read.seed == made.seed


def prompts_of(mode: Mode) -> str | None:
    return "standard" if mode == "turns" else None


def test_the_policy_of_the_chain_itself_changes_nothing() -> None:
    chain = enforced_to(2)
    assert shorten(chain, RevisionPolicy(2, 2)) == chain


def test_a_policy_that_goes_on_longer_is_refused() -> None:
    with pytest.raises(UsageError, match="ended after 2 revisions"):
        shorten(enforced_to(2), RevisionPolicy(3, 3))


def test_overruled_feedback_is_the_models_own_again_where_the_chain_ends_with_it() -> None:
    read = shorten(enforced_to(2), RevisionPolicy(0, 2))
    assert read.end is ChainEnd.ACCEPTED
    assert read.steps[-1].feedback == "Good. Revision is not needed."
    assert read.steps[-1].overruled is None
    assert read.final == "One."


def enforced_to(revisions: int) -> Chain:
    replies = [
        "One.",
        "Good. Revision is not needed.",
        "Two.",
        "Bad. Revision is needed.",
        "Three.",
        "Revision is needed.",
    ]
    with ScriptedEngine(replies) as engine:
        return run_chain(engine, "Why?", RevisionPolicy(revisions, revisions), SamplingParams(seed=1), mode="turns")
