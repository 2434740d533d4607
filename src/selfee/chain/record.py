"""Chains as JSON: our own lines, which keep everything, and the two historical schemas of SelFee's release."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from selfee.chain.format import read_prompt, render_prompt, render_target, split_prompt
from selfee.chain.parser import read_chain
from selfee.chain.samples import Samples, SamplesEnd
from selfee.chain.types import (
    Chain,
    ChainEnd,
    Check,
    Cost,
    CutReason,
    Exchange,
    Instruction,
    Step,
    Verdict,
    VerdictSource,
)
from selfee.chain.verdict import find_verdict
from selfee.chain.votes import Vote
from selfee.errors import BadFileError, UsageError

E = TypeVar("E", bound=enum.Enum)


def to_json(chain: Chain) -> dict[str, Any]:
    """A chain as plain JSON values: one line of our own format. ``final`` is written for readers and not read back."""
    return {
        **_instruction_to_json(chain.instruction),
        "final": chain.final,
        "end": chain.end.value,
        "cut": chain.cut.value if chain.cut else None,
        "status": chain.status,
        "num_revisions": chain.num_revisions,
        "selected": chain.selected,
        "seed": chain.seed,
        "mode": chain.mode,
        "engine": chain.engine,
        "settings": dict(chain.settings),
        "steps": [_step_to_json(step) for step in chain.steps],
    }


def from_json(row: Mapping[str, Any], where: str = "chain") -> Chain:
    """The chain in a line of our own format. Raises BadFileError naming ``where`` and the field."""
    reader = _Reader(row, where)
    chain = Chain(
        _instruction_from_json(reader, where),
        tuple(_step_from_json(step, f"{where}: steps[{n}]") for n, step in enumerate(reader.get("steps", list))),
        reader.enum("end", ChainEnd),
        reader.get("status", str, ""),
        reader.enum("cut", CutReason) if row.get("cut") is not None else None,
        reader.optional("selected", int),
        reader.optional("seed", int),
        reader.get("mode", str, ""),
        reader.get("engine", str, ""),
        reader.get("settings", dict, {}),
    )
    if (chain.cut is not None) != (chain.end is ChainEnd.CUT_OFF):
        raise BadFileError(f"{where}: end is {chain.end.value!r} but cut is {row.get('cut')!r}; expected them to agree")
    if chain.selected is not None and not 0 <= chain.selected < len(chain.steps):
        raise BadFileError(f"{where}: selected is {chain.selected}; expected one of {len(chain.steps)} steps")
    return chain


def samples_to_json(samples: Samples) -> dict[str, Any]:
    """Attempts as plain JSON values; ``final``, ``delivered`` and ``tokens`` are for readers and not read back."""
    return {
        **_instruction_to_json(samples.instruction),
        "final": samples.final,
        "end": samples.end.value,
        "status": samples.status,
        "chosen": samples.chosen,
        "delivered": samples.delivered,
        "votes": [{"answer": vote.answer, "attempts": list(vote.attempts)} for vote in samples.votes],
        "tokens": samples.cost.tokens,
        "seed": samples.seed,
        "settings": dict(samples.settings),
        "attempts": [to_json(attempt) for attempt in samples.attempts],
    }


def samples_from_json(row: Mapping[str, Any], where: str = "samples") -> Samples:
    """The attempts in a line of our own format. Raises BadFileError naming ``where`` and the field."""
    reader = _Reader(row, where)
    attempts = [from_json(chain, f"{where}: attempts[{n}]") for n, chain in enumerate(reader.get("attempts", list))]
    count = len(attempts)
    chosen = reader.optional("chosen", int)
    if chosen is not None and not 0 <= chosen < count:
        raise BadFileError(f"{where}: chosen is {chosen}; expected one of {count} attempts")
    votes = [
        _vote_from_json(vote, count, f"{where}: votes[{n}]") for n, vote in enumerate(reader.get("votes", list, []))
    ]
    return Samples(
        _instruction_from_json(reader, where),
        tuple(attempts),
        reader.enum("end", SamplesEnd),
        reader.get("status", str, ""),
        chosen,
        tuple(votes),
        reader.optional("seed", int),
        reader.get("settings", dict, {}),
    )


def _vote_from_json(row: Any, count: int, where: str) -> Vote:
    reader = _Reader(row, where)
    voters = reader.get("attempts", list)
    if not all(isinstance(voter, int) and not isinstance(voter, bool) and 0 <= voter < count for voter in voters):
        raise BadFileError(f"{where}: field 'attempts' is {voters!r}; expected numbers of {count} attempts")
    return Vote(reader.get("answer", str), tuple(voters))


def to_dataset(chain: Chain) -> dict[str, Any]:
    """A chain in the schema of SelFee's augmented data; settings, costs and checks have no place there.

    Raises UsageError for a conversation, which has no place there either. ``iteration_truncated`` is false only where
    the critic itself was content: a chain that an outside check ended was not accepted by it.
    """
    _require_single(chain)
    return {
        "iteration_truncated": chain.end is not ChainEnd.ACCEPTED,
        "instruction": chain.instruction.text,
        "input": chain.instruction.input,
        "iteration": len(chain.steps),
        "outputs": [{"output": step.answer, "feedback": step.feedback or ""} for step in chain.steps],
    }


def from_dataset(row: Mapping[str, Any], where: str = "record") -> Chain:
    """The chain in a record of SelFee's augmented data. Raises BadFileError naming ``where`` and the field.

    The teacher's loop stopped by substrings (D7), so the verdicts are read anew from the feedback.
    """
    reader = _Reader(row, where)
    steps = []
    for number, output in enumerate(reader.get("outputs", list)):
        inner = _Reader(output, f"{where}: outputs[{number}]")
        feedback = inner.get("feedback", str)
        steps.append(Step(inner.get("output", str), feedback, find_verdict(feedback)))
    if not steps:
        raise BadFileError(f"{where}: field 'outputs' is empty; expected at least one answer")
    end = ChainEnd.CAPPED if reader.get("iteration_truncated", bool, False) else ChainEnd.ACCEPTED
    instruction = Instruction(reader.get("instruction", str), reader.get("input", str, ""))
    return Chain(instruction, tuple(steps), end, "read from a training record")


def to_answer(chain: Chain, question_id: int | str, answer_id: str, model_id: str) -> dict[str, Any]:
    """A chain in the schema of SelFee's answer files. Raises UsageError if it cannot be written as one text,
    and for a conversation.

    ``metadata`` names the checker if there was one: an answer that it chose is not the model's own choice.
    """
    _require_single(chain)
    checker = {"checker": chain.settings["checker"]} if chain.settings.get("checker") else {}
    return {
        "question_id": question_id,
        "text": chain.final,
        "whole_generation": render_prompt(chain.instruction) + render_target(chain),
        "answer_id": answer_id,
        "model_id": model_id,
        "metadata": {"end": chain.end.value, "status": chain.status, "seed": chain.seed} | checker,
    }


def from_answer(row: Mapping[str, Any], where: str = "answer") -> Chain:
    """The chain in a row of SelFee's answer files: a text that ends within an answer counts as cut off there."""
    whole = _Reader(row, where).get("whole_generation", str)
    try:
        prompt, target = split_prompt(whole)
        return read_chain(target, read_prompt(prompt))
    except UsageError as error:
        raise BadFileError(f"{where}: whole_generation: {error}") from error


def _require_single(chain: Chain) -> None:
    if chain.instruction.history or chain.instruction.system:
        raise UsageError(
            "chain: belongs to a conversation; expected a single question, which is all that SelFee's formats hold; "
            "keep it in our own (to_json)"
        )


def _instruction_to_json(instruction: Instruction) -> dict[str, Any]:
    row: dict[str, Any] = {"instruction": instruction.text, "input": instruction.input}
    if instruction.history:
        row["history"] = [{"question": turn.question, "answer": turn.answer} for turn in instruction.history]
    if instruction.system:
        row["system"] = instruction.system
    return row


def _instruction_from_json(reader: _Reader, where: str) -> Instruction:
    told = [_Reader(turn, f"{where}: history[{n}]") for n, turn in enumerate(reader.get("history", list, []))]
    return Instruction(
        reader.get("instruction", str),
        reader.get("input", str, ""),
        tuple(Exchange(turn.get("question", str), turn.get("answer", str)) for turn in told),
        reader.get("system", str, ""),
    )


def _step_to_json(step: Step) -> dict[str, Any]:
    row = {field.name: getattr(step, field.name) for field in fields(step)}
    verdict: Verdict | None = step.verdict
    row["verdict"] = None if verdict is None else vars(verdict) | {"source": verdict.source.value}
    for name in ("answer_cost", "feedback_cost"):
        row[name] = _cost_to_json(row[name])
    check: Check | None = step.check
    if check is None:
        del row["check"]  # most chains have none
    else:
        row["check"] = vars(check) | {"cost": _cost_to_json(check.cost)}
    return row


def _cost_to_json(cost: Cost | None) -> dict[str, Any] | None:
    if cost is None:
        return None
    row = vars(cost) | {"seeds": list(cost.seeds)}
    if cost.mean_logprob is None:
        del row["mean_logprob"]  # most engines were not asked
    return row


def _step_from_json(row: Any, where: str) -> Step:
    reader = _Reader(row, where)
    return Step(
        reader.get("answer", str),
        reader.optional("feedback", str),
        _verdict_from_json(row["verdict"], f"{where}: verdict") if row.get("verdict") is not None else None,
        reader.get("answer_finished", bool, True),
        reader.get("feedback_finished", bool, True),
        reader.optional("overruled", str),
        _cost_from_json(row.get("answer_cost"), f"{where}: answer_cost"),
        _cost_from_json(row.get("feedback_cost"), f"{where}: feedback_cost"),
        _check_from_json(row["check"], f"{where}: check") if row.get("check") is not None else None,
    )


def _check_from_json(row: Any, where: str) -> Check:
    reader = _Reader(row, where)
    try:
        return Check(
            reader.optional("passed", bool),
            reader.optional("score", float),
            reader.get("reason", str, ""),
            reader.get("failed", bool, False),
            _cost_from_json(row.get("cost"), f"{where}: cost"),
        )
    except UsageError as error:
        raise BadFileError(f"{where}: {error}") from error


def _verdict_from_json(row: Any, where: str) -> Verdict:
    reader = _Reader(row, where)
    return Verdict(
        reader.get("needed", bool),
        reader.enum("source", VerdictSource),
        reader.get("phrase", str, ""),
        reader.optional("probability", float),
        reader.get("forced", bool, False),
    )


def _cost_from_json(row: Any, where: str) -> Cost | None:
    if row is None:
        return None
    reader = _Reader(row, where)
    seeds = reader.get("seeds", list, [])
    if not all(isinstance(seed, int) for seed in seeds):
        raise BadFileError(f"{where}: field 'seeds' holds something else than numbers; expected numbers")
    return Cost(
        reader.get("tokens", int, 0),
        reader.get("seconds", float, 0.0),
        reader.get("prompt_tokens", int, 0),
        reader.get("cached_tokens", int, 0),
        tuple(seeds),
        reader.get("drafted_tokens", int, 0),
        reader.get("accepted_tokens", int, 0),
        reader.optional("mean_logprob", float),
    )


class _Reader:
    """Reads fields of a JSON object; every error names where, the field, what was found and what was expected."""

    def __init__(self, row: Any, where: str) -> None:
        if not isinstance(row, Mapping):
            raise BadFileError(f"{where}: found a {type(row).__name__}; expected an object")
        self._row = row
        self._where = where

    def get(self, name: str, kind: type, default: Any = ...) -> Any:
        """The field's value, which must be of this kind; ``default`` where it is missing."""
        if name not in self._row:
            if default is ...:
                raise BadFileError(f"{self._where}: no field '{name}'; expected a {kind.__name__}")
            return default
        value = self._row[name]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) < 1 << 1023 else math.inf
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            found = type(value).__name__
            raise BadFileError(f"{self._where}: field '{name}' is a {found}; expected a {kind.__name__}")
        return value

    def optional(self, name: str, kind: type) -> Any:
        """As ``get``, but null or missing is None."""
        return None if self._row.get(name) is None else self.get(name, kind)

    def enum(self, name: str, kind: type[E]) -> E:
        """The member of an enum with this value."""
        value = self.get(name, str)
        try:
            return kind(value)
        except ValueError:
            allowed = ", ".join(str(member.value) for member in kind)
            raise BadFileError(f"{self._where}: {name} is {value!r}; expected one of {allowed}") from None
