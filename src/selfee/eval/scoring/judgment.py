"""One judgment: what one judge replied to one order of two answers (or to one answer alone), and what was read in it.

A line of ``judgments.jsonl`` holds the fields of ``Judgment`` by their names. The two orders of a pair are two
judgments, with ``first`` and ``second`` exchanged. A reply that cannot be read is kept, with the reason; it has neither
scores nor label, and nothing that sums up may take it for a number.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from selfee.errors import BadFileError, UsageError

SCHEMA = 1
"""The version of the line's meaning; a reader refuses others."""

E = TypeVar("E", bound=enum.Enum)


class Form(enum.Enum):
    """What a judge is asked for."""

    PAIR_SCORES = "pair-scores"  # two answers, a number for each
    PAIR_LABEL = "pair-label"  # two answers, which is better: [[A]], [[B]], [[C]] for a tie
    SINGLE_SCORE = "single-score"  # one answer, a number

    @property
    def num_answers(self) -> int:
        """How many answers the judge sees."""
        return 1 if self is Form.SINGLE_SCORE else 2


class Label(enum.Enum):
    """Which of the two answers the judge finds better, in the order it saw them."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"


class Unreadable(enum.Enum):
    """Why a reply gave no scores and no label."""

    EMPTY = "empty"  # nothing, or only blanks
    NO_VERDICT = "no-verdict"  # words, but nothing that is a score or a label
    ONE_SCORE = "one-score"  # a score for one of two answers only
    OUT_OF_RANGE = "out-of-range"  # numbers that are not on the scale
    CONTRADICTION = "contradiction"  # different scores or labels in one reply
    FAILED = "failed"  # no reply: the judge's server failed


@dataclass(frozen=True)
class Shown:
    """An answer as the judge saw it."""

    name: str  # of the answers' set: a model with its settings
    sha256: str = ""  # of the text, so that equal texts are known; "" = the text is not at hand
    length: int | None = None  # characters of the text
    tokens: int | None = None  # delivered, where whoever wrote it told
    revision: int | None = None  # which answer of the chain: 0 = the first; None = what was delivered
    answer_id: str = ""

    @property
    def title(self) -> str:
        """The name, with the revision where one was chosen: what figures are grouped by."""
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    @classmethod
    def of(cls, name: str, text: str, **more: Any) -> Shown:
        """An answer whose text is at hand."""
        return cls(name, text_hash(text), len(text), **more)


@dataclass(frozen=True)
class JudgeUsage:
    """What all requests of one judgment took together, the repeated ones included."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0  # generated
    seconds: float = 0.0
    cost: float | None = None  # money, in the currency the prices were given in; None = not known


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """What one judge replied about one order of answers; see the module's first lines.

    Raises UsageError where scores, label, reason and number of answers do not fit the form.
    """

    schema: int = SCHEMA
    id: str = ""  # of everything that could change the reply: whoever asks the judge makes it
    form: Form
    question_id: str
    question_sha256: str = ""
    category: str = ""
    first: Shown
    second: Shown | None = None  # None if and only if the form shows one answer
    judge: str  # the model that judged
    template: str  # name of its prompt
    template_sha256: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)  # temperature, seed, max_tokens, …
    repeat: int = 0  # the same judgment asked for again: 0, 1, …
    scores: tuple[float, ...] | None = None  # one for each answer shown
    label: Label | None = None
    strong: bool = False  # the label says "much better", where the template knows it
    preference: float | None = None  # probability that the first is better, from the judge's own token probabilities
    unreadable: Unreadable | None = None
    notes: tuple[str, ...] = ()  # where it was read, what was repaired, what disagrees
    reply: str = ""  # raw
    earlier_replies: tuple[str, ...] = ()  # those that could not be read, after which the judge was asked again
    finish_reason: str = ""  # why the reply ended, as the engine says
    usage: JudgeUsage | None = None
    source: str = ""  # the file it was read from, where it was not asked for by us
    date: str = ""  # ISO 8601, UTC
    selfee: str = ""  # version

    def __post_init__(self) -> None:
        where = f"judgment of question {self.question_id}"
        if (self.second is None) is not (self.form.num_answers == 1):
            raise UsageError(f"{where}: form {self.form.value}; expected {self.form.num_answers} answers")
        has_result = self.scores is not None or self.label is not None or self.preference is not None
        if has_result is (self.unreadable is not None):
            raise UsageError(f"{where}: expected scores or a label, or the reason why there are none, not both")
        if self.scores is not None and len(self.scores) != self.form.num_answers:
            raise UsageError(f"{where}: {len(self.scores)} scores; expected {self.form.num_answers}")
        numbers = [*(self.scores or ()), *(() if self.preference is None else (self.preference,))]
        if not all(math.isfinite(number) for number in numbers):
            raise UsageError(f"{where}: a score is not finite; expected numbers")
        if self.preference is not None and not 0.0 <= self.preference <= 1.0:
            raise UsageError(f"{where}: preference {self.preference}; expected 0 to 1")

    @property
    def is_readable(self) -> bool:
        """Whether it says anything."""
        return self.unreadable is None

    @property
    def winner(self) -> Label | None:
        """Which answer is better: by the label, else the scores, else the preference; None if unreadable or single."""
        if self.form is Form.SINGLE_SCORE or self.unreadable is not None:
            return None
        if self.label is not None:
            return self.label
        difference = self.scores[0] - self.scores[1] if self.scores is not None else (self.preference or 0.0) - 0.5
        return Label.TIE if difference == 0 else Label.FIRST if difference > 0 else Label.SECOND

    @property
    def has_identical_texts(self) -> bool:
        """Whether both answers are the same text, letter by letter: a preference is then the judge's noise or bias."""
        return self.second is not None and self.first.sha256 != "" and self.first.sha256 == self.second.sha256

    def as_row(self) -> dict[str, Any]:
        """One line of ``judgments.jsonl``; fields at their default are left out, to be read with the eye."""
        row: dict[str, Any] = {"schema": self.schema}  # like every field with a default, else left out
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and value != each.default and value != {}:
                row[each.name] = _plain(value)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any], where: str) -> Judgment:
        """The judgment in a line; ``where`` begins error messages. Raises BadFileError naming the field."""
        if row.get("schema") != SCHEMA:
            raise BadFileError(f"{where}: schema {row.get('schema')!r}; expected {SCHEMA}, as selfee judge writes")
        if unknown := sorted(set(row) - {each.name for each in fields(cls)}):
            raise BadFileError(f"{where}: unknown field {unknown[0]!r}; expected the fields of a judgment")
        values = dict(row)
        try:
            _read_fields(values)
            return cls(**values)
        except (UsageError, TypeError, ValueError, KeyError) as error:
            raise BadFileError(f"{where}: {error}; expected a judgment as selfee judge writes it") from error


def text_hash(text: str) -> str:
    """What two texts are compared by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_TEXTS = ("id", "question_sha256", "category", "template_sha256", "reply", "finish_reason", "source", "date", "selfee")


def _read_fields(values: dict[str, Any]) -> None:
    """Turn plain JSON values into those of ``Judgment``, in place. Raises TypeError or ValueError naming the field."""
    for name in ("question_id", "judge", "template"):
        values[name] = _of_kind(values.get(name), name, str)
    for name in _TEXTS:
        if name in values:
            values[name] = _of_kind(values[name], name, str)
    values["form"] = _member(values.get("form"), "form", Form)
    values["first"] = _record(values.get("first"), "first", Shown)
    if values.get("second") is not None:
        values["second"] = _record(values["second"], "second", Shown)
    if values.get("usage") is not None:
        values["usage"] = _record(values["usage"], "usage", JudgeUsage)
    if values.get("scores") is not None:
        values["scores"] = tuple(_number(score, "scores") for score in _of_kind(values["scores"], "scores", list))
    if values.get("preference") is not None:
        values["preference"] = _number(values["preference"], "preference")
    for name, kind in (("label", Label), ("unreadable", Unreadable)):
        if values.get(name) is not None:
            values[name] = _member(values[name], name, kind)
    for name in ("notes", "earlier_replies"):
        texts = _of_kind(values.get(name, []), name, list)
        values[name] = tuple(_of_kind(text, name, str) for text in texts)
    values["parameters"] = _of_kind(values.get("parameters", {}), "parameters", dict)
    values["repeat"] = _of_kind(values.get("repeat", 0), "repeat", int)
    values["strong"] = _of_kind(values.get("strong", False), "strong", bool)


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Shown | JudgeUsage):
        return {name: item for name, item in vars(value).items() if item not in (None, "")}
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _of_kind(value: Any, name: str, kind: type) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} holds a {type(value).__name__}, not a number")
    return float(value)


def _member(value: Any, name: str, kind: type[E]) -> E:
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(str(member.value) for member in kind)
        raise ValueError(f"{name} is {value!r}, not one of {allowed}") from None


_FIELD_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "sha256", "answer_id"), (str,)),
    **dict.fromkeys(("length", "tokens", "revision", "requests", "prompt_tokens", "cached_tokens"), (int,)),
    **dict.fromkeys(("seconds", "cost"), (int, float)),
}
_R = TypeVar("_R", Shown, JudgeUsage)


def _record(value: Any, name: str, kind: type[_R]) -> _R:
    """One of the two small records inside a judgment."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is a {type(value).__name__}, not an object")
    known = {each.name for each in fields(kind)}
    for key, item in value.items():
        if key not in known:
            raise ValueError(f"{name} has an unknown field {key!r}")
        if item is not None and (isinstance(item, bool) or not isinstance(item, _FIELD_KINDS[key])):
            raise TypeError(f"{name}.{key} is a {type(item).__name__}")
    return kind(**value)
