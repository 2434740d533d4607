"""The Flan collection: some questions of each of its many tasks."""

from __future__ import annotations

from pathlib import PurePath

from selfee.data.files import Row
from selfee.data.sources.base import Question, RefusedError, Source, SourceSettings, clean, text_field

OVERLAPS = (
    "dmcc_python",
    "dr_repair_error_comments",
    "dr_repair_line_numbers",
    "dr_repair_no_errors",
    "dr_repair_plain_code",
)
"""Tasks made of data sets that are sources of their own: left out (SelFee's blog)."""

_TASK = ("task", "task_name", "_task_name")


def _parse(row: Row, settings: SourceSettings) -> Question:
    if "rationale" in row.fields and "inputs" not in row.fields:
        task, question, reference = _from_table(row)
    else:
        task = next((name for name in map(row.fields.get, _TASK) if isinstance(name, str) and name), "")
        if not task:
            raise RefusedError("field missing", f"no field '{_TASK[0]}'; expected the task's name")
        question, reference = text_field(row, "inputs"), text_field(row, "targets")
    if task in OVERLAPS:
        raise RefusedError("task is a source of its own", f"task {task}")
    return Question(question, reference=reference, extra={"task": task})


def _from_table(row: Row) -> tuple[str, str, str]:
    """A row of Flan's chain-of-thought tables, which hold one task each and name it only in the file's name."""
    question, answer, rationale = (text_field(row, name) for name in ("question", "answer", "rationale"))
    task = PurePath(row.where.rpartition(":")[0]).name.removesuffix(".gz").rpartition(".")[0]
    return task, _unescape(question), f"{_unescape(rationale)}\nThe answer is {_unescape(answer)}."


def _unescape(text: str) -> str:
    return clean(text.replace("\\n", "\n"))


FLAN = Source(
    "flan",
    "Flan collection: lines or Parquet of {inputs, targets, task}, or its TSV of question, answer, rationale",
    _parse,
    columns=("question", "answer", "rationale"),
    has_tasks=True,
)
