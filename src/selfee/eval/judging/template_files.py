"""Judge prompts from files: the original's prompt and reviewer files, and MT-bench's judge prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfee.errors import BadFileError, UsageError
from selfee.eval.judging.templates import REMINDERS, Template, TemplateSet
from selfee.eval.questions import Question
from selfee.eval.rows import read_rows
from selfee.eval.scoring.judgment import Form

GENERAL = "general"

TUPLE_REMINDER = (
    "output a Python tuple with the two scores, in the order in which the answers were shown, for example (6, 7.5)"
)
FIRST_LINE_REMINDER = (
    "output a single line with only the two scores, in the order in which the answers were shown, separated by a space"
)


def read_templates(prompts: str | Path, reviewers: str | Path | None, form: Form | None) -> TemplateSet:
    """The templates of a file, whichever of both kinds it is. ``form`` None = as the file has it.

    Raises BadFileError for a file of another kind, UsageError for a form that the file does not have.
    """
    rows = [(where, row) for where, _, row in read_rows(prompts)]
    if not rows:
        raise BadFileError(f"{prompts}: no prompts; expected at least one line")
    if all("prompt_id" in row for _, row in rows):
        if form not in (None, Form.PAIR_SCORES):
            raise UsageError(f"{prompts}: asks for two scores; expected the form pair-scores")
        return _original(rows, Path(prompts), reviewers)
    if all("prompt_template" in row and "type" in row for _, row in rows):
        if reviewers is not None:
            raise UsageError(f"{reviewers}: MT-bench's prompts have no reviewers; leave them out")
        return _mt_bench(rows, form or Form.PAIR_LABEL, Path(prompts))
    raise BadFileError(
        f"{prompts}: neither the original's prompts nor MT-bench's; expected prompt_id, or name and type"
    )


@dataclass(frozen=True)
class OriginalTemplates:
    """The reviewer of the question's category, else the general one, each with its prompt."""

    by_category: Mapping[str, Template]
    form: Form = Form.PAIR_SCORES

    def choose(self, question: Question, turn: int, *, with_reference: bool) -> Template:
        """The template for a question. Raises UsageError for a second turn, of which these know nothing."""
        if turn:
            raise UsageError(
                f"question {question.id}: has a second turn, and these prompts show one; expected others, or ours"
            )
        return self.by_category.get(question.category, self.by_category[GENERAL])


def _original(rows: Sequence[tuple[str, Mapping[str, Any]]], path: Path, reviewers: str | Path | None) -> TemplateSet:
    prompts = {_field(row, "prompt_id", int, where): (where, row) for where, row in rows}
    by_category: dict[str, Template] = {}
    told = _reviewers(reviewers) if reviewers is not None else _without_reviewers(rows)
    for number, (where, reviewer) in enumerate(told, start=1):
        prompt_id = _field(reviewer, "prompt_id", int, where)
        if prompt_id not in prompts:
            raise BadFileError(f"{where}: prompt_id {prompt_id} is not in {path}; expected one of {sorted(prompts)}")
        category = _field(reviewer, "category", str, where)
        if category in by_category:  # the first counts, as in the original
            continue
        at, prompt = prompts[prompt_id]
        metadata = reviewer.get("metadata") if isinstance(reviewer.get("metadata"), dict) else {}
        by_category[category] = _original_template(prompt, at, reviewer, number, metadata or {})
    if GENERAL not in by_category:
        raise BadFileError(
            f"{reviewers or path}: no reviewer of category {GENERAL!r}; expected one for all other questions"
        )
    return OriginalTemplates(by_category)


def _original_template(
    prompt: Mapping[str, Any], where: str, reviewer: Mapping[str, Any], number: int, metadata: Mapping[str, Any]
) -> Template:
    defaults = _field(prompt, "defaults", dict, where)
    text = "\n".join(str(value) for value in defaults.values())
    temperature, max_tokens = metadata.get("temperature"), metadata.get("max_tokens")
    return Template(
        str(reviewer.get("reviewer_id") or f"prompt-{prompt['prompt_id']}"),
        Form.PAIR_SCORES,
        _field(prompt, "system_prompt", str, where),
        _field(prompt, "prompt_template", str, where),
        TUPLE_REMINDER if "tuple" in text else FIRST_LINE_REMINDER,
        temperature=float(temperature) if isinstance(temperature, int | float) else None,
        max_tokens=max_tokens if isinstance(max_tokens, int) else None,
        reviewer=number,
        defaults={str(name): str(value) for name, value in defaults.items()},
    )


def _reviewers(path: str | Path) -> list[tuple[str, Mapping[str, Any]]]:
    return [(where, row) for where, _, row in read_rows(path)]


def _without_reviewers(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(where, {"prompt_id": row["prompt_id"], "category": row.get("category", GENERAL)}) for where, row in rows]


_MT_FORMS = {Form.PAIR_LABEL: "pairwise", Form.SINGLE_SCORE: "single"}


@dataclass(frozen=True)
class MtBenchTemplates:
    """MT-bench's prompts: with or without a reference answer, for the first turn or for both."""

    form: Form
    templates: Mapping[tuple[bool, bool], Template]  # (with reference, both turns)

    def choose(self, question: Question, turn: int, *, with_reference: bool) -> Template:
        """The template for a turn of a question. Raises UsageError for a third turn, and a prompt the file lacks."""
        if turn > 1:
            raise UsageError(f"question {question.id}: has a third turn; MT-bench's prompts show two; expected ours")
        found = self.templates.get((with_reference, turn == 1))
        if found is None:
            kind = f"{'with' if with_reference else 'without'} a reference, for turn {turn + 1}"
            raise UsageError(f"judge prompts: none {kind}; expected one; use a whole file of MT-bench's prompts")
        return found


def _mt_bench(rows: Sequence[tuple[str, Mapping[str, Any]]], form: Form, path: Path) -> TemplateSet:
    kind = _MT_FORMS.get(form)
    templates: dict[tuple[bool, bool], Template] = {}
    for where, row in rows:
        if row["type"] != kind:
            continue
        text = _field(row, "prompt_template", str, where)
        needs_reference, turns = "{ref_answer_1}" in text, "{question_2}" in text
        template = Template(
            _field(row, "name", str, where),
            form,
            _field(row, "system_prompt", str, where),
            text,
            REMINDERS[form],
            needs_reference,
            turns,
        )
        templates.setdefault((needs_reference, turns), template)
    if not templates:
        raise UsageError(f"{path}: no prompts of form {form.value}; expected pair-label or single-score")
    return MtBenchTemplates(form, templates)


def _field(row: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    value = row.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadFileError(f"{where}: field '{name}' is {str(value)[:60]!r}; expected a {kind.__name__}")
    return value


def with_limits(template: Template, temperature: float | None, max_tokens: int | None) -> Template:
    """The template with the user's own limits in place of its file's."""
    return replace(
        template,
        temperature=template.temperature if temperature is None else temperature,
        max_tokens=template.max_tokens if max_tokens is None else max_tokens,
    )
