"""The process in which ``selfee bench`` times one model file once: ``python -m selfee.eval.bench_child REQUEST``.

A process of its own, so that what it says of its memory is true, and several files never lie in memory together.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from selfee.errors import SelfeeError
from selfee.eval.child import error_as_json, say
from selfee.eval.memory import memory_used
from selfee.eval.models import MeasuredModel, open_measured
from selfee.eval.speed import decode_speed
from selfee.llama.company import Company
from selfee.llama.drafting import CopyDrafter
from selfee.llama.generate import generate
from selfee.llama.sampling import Sampler, SamplerConfig

PROMPT, GENERATE, PASS, REVISION = "prompt", "generate", "pass", "revision"

_DEPTH = 16  # tokens before a generated text or a pass
_PASSES = 5  # of which the median counts
_SPREAD = 97  # different tokens in a prompt

QUESTION = "Why is the sky blue in the daytime, and red in the evening?\n"
ANSWER = (
    "The sky is blue because of the way in which sunlight meets the air. Sunlight looks white, but it is "
    "a mixture of all the colours of the rainbow. When it enters the atmosphere it meets molecules of "
    "nitrogen and oxygen, which are much smaller than the length of its waves. They reflect the light in "
    "all directions, and they reflect short waves far more strongly than long ones. Blue light has short "
    "waves, so it reaches our eyes from every part of the sky, while red light passes nearly straight "
    "through. In the evening the sun stands low, and its light has to pass through much more air. Most of "
    "the blue is lost on the way, and what is left is red."
)
REVISED = (
    ANSWER.replace("They reflect the light in all directions, and they reflect", "They scatter the light, and scatter")
    .replace(
        "Blue light has short waves", "Violet and blue light have the shortest waves, but our eyes see blue better"
    )
    .replace("and what is left is red", "so that mostly red and orange are left")
)
"""A revision as models write them: most of it repeats the answer."""


@dataclass(frozen=True)
class Case:
    """What is timed once; ``tokens`` is 0 for a revision, whose text is given."""

    kind: str
    tokens: int = 0
    drafting: bool = False

    @property
    def context(self) -> int:
        """Tokens a session must hold for it; for a revision, at most one for each byte."""
        return len(QUESTION + ANSWER + REVISED) + _DEPTH if self.kind == REVISION else _DEPTH + self.tokens + 1


@dataclass(frozen=True)
class Timed:
    """What came of it: seconds for ``tokens`` tokens."""

    seconds: float
    tokens: int


class _Dictated:
    """A sampler that draws as any other, and then takes the next token of a given text: every model writes it."""

    def __init__(self, text: Sequence[int]) -> None:
        self._sampler = Sampler(SamplerConfig(temperature=0))
        self._text = iter(text)

    def begin(self, tokens: Sequence[int]) -> None:
        self._sampler.begin(tokens)

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        self._sampler.sample(logits)
        return next(self._text)


class _Revising(CopyDrafter):
    """Hears which text is revised as soon as there is one to continue."""

    def __init__(self, original: Sequence[int]) -> None:
        super().__init__()
        self._original = original

    def begin(self, tokens: Sequence[int]) -> None:
        super().begin(tokens)
        self.revise(self._original)


class Stopwatch:
    """Times cases on one model. Its ``company`` learns, as an engine does, what a pass over several tokens costs."""

    def __init__(self, measured: MeasuredModel) -> None:
        self._model, self._tokenizer = measured.model, measured.tokenizer
        self._session = self._model.new_session()
        self._company = Company(self._model)
        self._session.forward(self._some(_DEPTH), "none")  # what comes first pays for pages and caches

    def time(self, case: Case) -> Timed:
        """Seconds, and of how many tokens."""
        if case.kind == GENERATE:
            rate = decode_speed(self._model, runs=1, new_tokens=case.tokens + 1)
            return Timed(case.tokens / rate, case.tokens)
        if case.kind == REVISION:
            return self._revision(case.drafting)
        if case.kind == PASS:
            passes = [self._pass(case.tokens, _DEPTH, all_logits=True) for _ in range(_PASSES)]
            return Timed(statistics.median(passes), case.tokens)
        return Timed(self._pass(case.tokens, 0, all_logits=False), case.tokens)

    def _pass(self, tokens: int, depth: int, *, all_logits: bool) -> float:
        self._session.truncate(0)
        if depth:
            self._session.forward(self._some(depth), "none")
        text = self._some(tokens)
        started = time.perf_counter()
        self._session.forward(text, "all" if all_logits else "last")
        return time.perf_counter() - started

    def _revision(self, drafting: bool) -> Timed:
        encode = self._tokenizer.encode
        prompt, original, revised = (
            encode(QUESTION + ANSWER + "\n"),
            encode(ANSWER, add_bos=False),
            encode(REVISED, add_bos=False),
        )
        drafter = _Revising(original) if drafting else None
        self._session.truncate(0)
        self._session.forward(prompt[:-1] or prompt, "none")  # the prompt's time is not the revision's
        with self._company.join(self._session) as member:
            started = time.perf_counter()
            made = sum(1 for _ in generate(self._session, prompt, _Dictated(revised), drafter, len(revised), member))
            return Timed(time.perf_counter() - started, made)

    def _some(self, count: int) -> list[int]:
        """Tokens as spread over the vocabulary as a text's."""
        return [(7 * (index % _SPREAD) + 3) % self._model.config.vocabulary for index in range(count)]


def main(arguments: list[str]) -> int:
    """Time what the request (a JSON object) names; says each case's result, then the process's memory."""
    request = json.loads(arguments[0])
    cases = [Case(**case) for case in request["cases"]]
    path, context = Path(request["path"]), max(case.context for case in cases)
    try:
        started = time.perf_counter()
        with open_measured(path, context, request["threads"]) as measured:
            watch = Stopwatch(measured)
            loaded = time.perf_counter() - started
            results = []
            for case in cases:
                results.append(asdict(watch.time(case)))
                say({"done": len(results)})
            say({"results": results, "load": loaded, "peak": memory_used(path, context).peak})
    except SelfeeError as error:
        say(error_as_json(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
