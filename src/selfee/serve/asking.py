"""From what a client sent to a job: its conversation as an instruction, its settings over the server's own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, Protocol

from selfee.chain.policy import RevisionPolicy
from selfee.chain.types import Exchange, Instruction
from selfee.engines.base import SamplingParams
from selfee.errors import UsageError
from selfee.serve.protocol.errors import ApiError, from_selfee
from selfee.serve.protocol.fields import SamplingFields

View = Literal["final", "raw", "inline"]
_VIEWS: dict[str, View] = {"final": "final", "raw": "raw", "inline": "inline"}

_SEEDS = 1 << 32

_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "frequency_penalty", "presence_penalty",
    "seed",
)  # fmt: skip


class Turn(Protocol):
    """A message of a conversation."""

    @property
    def role(self) -> str: ...

    @property
    def text(self) -> str: ...


def instruction_of(messages: Sequence[Turn], text_input: str = "") -> Instruction:
    """The last question, with what was said before. Raises ApiError (400) for what is no conversation.

    Messages of the same speaker in a row are one; system messages are one text, wherever they stand.
    """
    system = "\n\n".join(turn.text for turn in messages if turn.role in ("system", "developer") and turn.text)
    turns: list[tuple[str, list[str]]] = []
    for number, turn in enumerate(messages):
        if turn.role in ("system", "developer"):
            continue
        if turns and turns[-1][0] == turn.role:
            if turn.role == "assistant":
                _refuse(f"messages[{number}]", "is the second answer in a row; expected a question between two answers")
            turns[-1][1].append(turn.text)
        else:
            turns.append((turn.role, [turn.text]))
    if not turns or turns[-1][0] != "user":
        found = "ends with an answer" if turns else "holds no question"
        _refuse("messages", f"{found}; expected a message of the role user at the end")
    if turns[0][0] == "assistant":
        turns.insert(0, ("user", [""]))
    told = ["\n\n".join(texts) for _, texts in turns]
    if not told[-1].strip():
        _refuse("messages", "end with an empty question; expected some text")
    history = tuple(Exchange(told[number], told[number + 1]) for number in range(0, len(told) - 1, 2))
    return Instruction(told[-1], text_input, history, system)


def params_of(fields: SamplingFields, defaults: SamplingParams) -> SamplingParams:
    """Sampling as asked for. Raises ApiError (400)."""
    given = {name: value for name in _SAMPLING if (value := getattr(fields, name)) is not None}
    if fields.seed is not None:
        given["seed"] = fields.seed % _SEEDS
    try:
        return replace(defaults, **given)
    except UsageError as error:
        raise from_selfee(error) from None


def fresh_seed(params: SamplingParams) -> SamplingParams:
    """The same with a seed, drawn where none is given: so that it can be told."""
    return params if params.seed is not None else replace(params, seed=random.getrandbits(32))


def policy_of(least: int | None, most: int | None, defaults: RevisionPolicy) -> RevisionPolicy:
    """How many revisions to make. Raises ApiError (400) where the minimum is more than the maximum."""
    low = defaults.min_revisions if least is None else least
    high = defaults.max_revisions if most is None else most
    if least is not None and most is None and high is not None:
        high = max(high, low)
    if most is not None and least is None:
        low = min(low, most)
    if high is not None and low > high:
        _refuse("min_revisions", f"is {low}, more than max_revisions, {high}; expected at most as many")
    return RevisionPolicy(low, high)


@dataclass(frozen=True)
class Suffix:
    """What a model's name asks for beside the model: ``name:rev3``, ``name:raw``, ``name:off``."""

    revisions: int | None = None
    view: View | None = None


def read_suffix(asked: str, served: str) -> Suffix | None:
    """What follows a model's name; None if it is another name, or followed by something else."""
    rest = asked.removeprefix(served)
    if asked != served and (rest == asked or not rest.startswith(":")):
        return None
    revisions: int | None = None
    view: View | None = None
    for word in rest[1:].split(":") if rest else ():
        if word == "off":
            revisions = 0
        elif word in _VIEWS:
            view = _VIEWS[word]
        elif word.startswith("rev") and word[3:].isascii() and word[3:].isdigit() and len(word) <= 5:
            revisions = int(word[3:])
        else:
            return None
    return Suffix(revisions, view)


def unknown_model(asked: str, served: Sequence[str]) -> ApiError:
    """The error for a model that is not here."""
    return ApiError(
        404,
        f"model: {asked[:80]!r} is not served here; expected {' or '.join(served)}, which may be followed by :rev0 to "
        ":rev99, :off, :raw, :inline",
        param="model",
        code="model_not_found",
    )


def _refuse(param: str, found: str) -> NoReturn:
    raise ApiError(400, f"{param}: {found}", param=param, code="invalid_value")


def only(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are given."""
    return {name: value for name, value in values.items() if value is not None}
