"""Chains to token ids, by the text format and the tokenizer of inference: what is trained is what will be read.

The prompt is encoded alone, exactly as an engine encodes it; what the model is to write continues it. Every token
belongs to the part in which its first byte stands.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from selfee.chain.format import render_prompt
from selfee.errors import UsageError
from selfee.llama.tokenizer import Tokenizer
from selfee.train.lessons import Lesson, Objective, Part, Piece, RefusedError, lessons_of
from selfee.train.records import Sourced, read_chains

IGNORED = -100
"""The label of a token that is read and not learned, as in every training library."""


@dataclass(frozen=True)
class Weights:
    """How much each part counts in the loss; 0 = it is read and not learned."""

    answer: float = 1.0
    flawed: float = 1.0
    feedback: float = 1.0
    verdict: float = 1.0
    revision: float = 1.0
    end: float = 1.0

    def __post_init__(self) -> None:
        for one in fields(self):
            if not 0 <= (value := getattr(self, one.name)) < float("inf"):
                raise UsageError(f"weights: {one.name} is {value}; expected 0 or a positive number")

    def all(self) -> list[float]:
        """Every weight."""
        return [float(getattr(self, one.name)) for one in fields(self)]

    def of(self, part: Part) -> float:
        """The weight of a part; the prompt has none."""
        return 0.0 if part is Part.PROMPT else float(getattr(self, part.value))


def parse_weights(parts: Iterable[str]) -> Weights:
    """``["flawed=0", "verdict=2"]`` as weights. Raises UsageError naming the part that is wrong."""
    names = {one.name for one in fields(Weights)}
    values: dict[str, float] = {}
    for text in parts:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = None
        if name not in names or number is None:
            raise UsageError(
                f"weights: found {text!r}; expected PART=NUMBER with one of {', '.join(sorted(names))}, "
                "for example flawed=0"
            )
        values[name] = number
    return Weights(**values)


@dataclass(frozen=True)
class Span:
    """A run of tokens of one part: ``start`` up to, not including, ``end``."""

    part: Part
    number: int
    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Example:
    """A lesson in tokens. The spans cover ``ids`` without gap or overlap; the first is the prompt."""

    where: str
    ids: Sequence[int]
    spans: tuple[Span, ...]
    dropped_rounds: int = 0

    @property
    def labels(self) -> list[int]:
        """The ids, ``IGNORED`` where nothing is learned."""
        return [token if span.weight else IGNORED for span in self.spans for token in self.ids[span.start : span.end]]

    @property
    def weights(self) -> list[float]:
        """The weight of each token."""
        return [span.weight for span in self.spans for _ in range(span.start, span.end)]

    @property
    def learned(self) -> int:
        """How many tokens are learned."""
        return sum(span.end - span.start for span in self.spans if span.weight)


def encode_prompt(lesson: Lesson, tokenizer: Tokenizer) -> list[int]:
    """The ids of the prompt, as ``LocalEngine`` encodes it."""
    return tokenizer.encode(render_prompt(lesson.instruction))


def encode_lesson(lesson: Lesson, tokenizer: Tokenizer, weights: Weights, max_length: int) -> Example:
    """A lesson in at most ``max_length`` tokens: whole rounds are dropped until it fits.

    Raises RefusedError where not even its last round fits, or nothing of it would be learned.
    """
    prompt = encode_prompt(lesson, tokenizer)
    if len(prompt) >= max_length:
        raise RefusedError("prompt too long")
    shorter: Lesson | None = lesson
    dropped = 0
    while shorter is not None:
        example = _encode(shorter, prompt, tokenizer, weights, dropped)
        if len(example.ids) <= max_length:
            if not example.learned:
                raise RefusedError("nothing to learn: every token is masked")
            return example
        shorter, dropped = shorter.without_first_round(), dropped + 1
    raise RefusedError("too long, even without its earlier rounds")


def _encode(lesson: Lesson, prompt: list[int], tokenizer: Tokenizer, weights: Weights, dropped: int) -> Example:
    pieces = lesson.pieces
    target = tokenizer.encode("".join(piece.text for piece in pieces), add_bos=False, continues=True)
    spans = [Span(Part.PROMPT, 0, 0, len(prompt), 0.0)]
    for piece, count in zip(pieces, _counts(pieces, target, tokenizer), strict=True):
        start = spans[-1].end
        learns = lesson.learns_first or piece.number > 0
        spans.append(Span(piece.part, piece.number, start, start + count, weights.of(piece.part) if learns else 0.0))
    ids = array("i", prompt + target)
    if lesson.has_end:
        if tokenizer.eos is None:
            raise UsageError("tokenizer: has no end-of-text token; expected one, for a model must learn to stop")
        ids.append(tokenizer.eos)
        spans.append(Span(Part.END, 0, spans[-1].end, spans[-1].end + 1, weights.end))
    return Example(lesson.where, ids, tuple(span for span in spans if span.end > span.start), dropped)


def _counts(pieces: Sequence[Piece], target: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """How many tokens begin in each piece."""
    texts = [piece.text.encode() for piece in pieces]
    spelt = [tokenizer.token_bytes(token) for token in target]
    if b"".join(spelt) != b"".join(texts):
        raise RefusedError("the vocabulary cannot spell it")
    counts, place, left = [0] * len(pieces), 0, len(texts[0])
    for token in spelt:
        while left <= 0:
            place += 1
            left += len(texts[place])
        counts[place] += 1
        left -= len(token)
    return counts


@dataclass
class Counts:
    """What became of the chains."""

    chains: int = 0
    lessons: int = 0
    without_end: int = 0  # lessons that end without an end token, for their text does not say that it is over
    refused: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, object]:
        """As plain JSON values."""
        return {
            "chains": self.chains,
            "lessons": self.lessons,
            "without_end": self.without_end,
            "refused": dict(self.refused.most_common()),
        }


class Dataset:
    """The lessons of a training file; tokens are made when an example is asked for, and not kept.

    ``counts`` tells what was refused while reading. What only tokens can tell (too long, nothing to learn) is found by
    ``encode_all``, or, lazily, when the lesson's turn comes.
    """

    def __init__(
        self, chains: Iterable[Sourced], tokenizer: Tokenizer, objective: Objective, weights: Weights, max_length: int
    ) -> None:
        self.counts = Counts()
        self.lessons: list[Lesson] = []
        self._tokenizer, self._weights, self._max_length = tokenizer, weights, max_length
        for sourced in chains:
            self.counts.chains += 1
            try:
                self.lessons += lessons_of(sourced.chain, objective, sourced.where)
            except RefusedError as error:
                self.counts.refused[str(error)] += 1
        self.counts.lessons = len(self.lessons)
        self.counts.without_end = sum(not lesson.has_end for lesson in self.lessons)

    @classmethod
    def of_file(
        cls, path: Path, tokenizer: Tokenizer, objective: Objective, weights: Weights, max_length: int
    ) -> Dataset:
        """The lessons of a file. Raises BadFileError if it gives none."""
        bad: Counter[str] = Counter()
        dataset = cls(read_chains(path, bad), tokenizer, objective, weights, max_length)
        dataset.counts.refused.update(bad)
        dataset.counts.chains += bad.total()
        return dataset

    def __len__(self) -> int:
        return len(self.lessons)

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return self._tokenizer.vocab_size

    def example(self, index: int) -> Example:
        """One lesson in tokens. Raises RefusedError."""
        return encode_lesson(self.lessons[index], self._tokenizer, self._weights, self._max_length)

    def encode_all(self) -> Iterator[tuple[int, Example]]:
        """Number and tokens of every lesson that is not refused; the others are counted by reason."""
        for index in range(len(self.lessons)):
            try:
                yield index, self.example(index)
            except RefusedError as error:
                self.counts.refused[str(error)] += 1
