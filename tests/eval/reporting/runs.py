"""A run's folder made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfee.chain.record import to_json
from selfee.chain.types import Chain, ChainEnd, Instruction, Step, Verdict
from selfee.eval.scoring.judgment import Form, Judgment, Shown
from selfee.jsonl import write_jsonl

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> <!-- & \u2028"
"""A text that must stay a text, wherever it comes from."""

_ISLAND = '<script type="application/json" id="data">'


def make_run(folder: Path, questions: int = 6, text: str = "", baseline: str = "base") -> Path:
    """A run of two numbers of revisions against a baseline; ``text`` stands in every text of it."""
    for name in ("answers", "chains", "judgments"):
        (folder / name).mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = {"questions": [], "answers/m": [], "answers/base": [], "chains/m": []}
    judgments = []
    for number in range(questions):
        identity, category = f"q{number}", "even" if number % 2 == 0 else "odd"
        rows["questions"].append({"id": identity, "category": category, "turns": [f"Why {number}? {text}"]})
        drafts = f"Because of {number}. {text}", f"Because of {number}, and that is all there is to say. {text}"
        rows["chains/m"].append(_chain(number, drafts, text))
        base = f"It is so. {text}"
        rows["answers/base"].append({"question_id": identity, "text": base, "answer_id": f"b{number}", "model_id": "b"})
        for revision, said in enumerate(drafts):
            turn = {"text": said, "delivered": revision, "chain": f"c{number}", "spent": 100 * (1 + revision)}
            row = {"question_id": identity, "system": "m", "revision": revision, "turns": [turn]}
            rows["answers/m"].append(row | {"answer_id": f"m{revision}-{number}"})
            mine = Shown.of("m", said, revision=revision, answer_id=f"m{revision}-{number}")
            other = Shown.of(baseline, base, answer_id=f"b{number}")
            points = (7.0 + revision, 7.0 + number % 3)
            judgments.append(_judgment(identity, mine, other, points, text))
            judgments.append(_judgment(identity, other, mine, points[::-1], text))
    for name, some in rows.items():
        write_jsonl(folder / f"{name}.jsonl", some)
    write_jsonl(folder / "judgments" / "judge.jsonl", [each.as_row() for each in judgments])
    return folder


def _chain(number: int, drafts: tuple[str, str], text: str) -> dict[str, Any]:
    steps = (
        Step(drafts[0], f"Say more. {text} Revision is needed.", Verdict(True)),
        Step(drafts[1], "Good. Revision is not needed.", Verdict(False)),
    )
    chain = Chain(Instruction(f"Why {number}?"), steps, ChainEnd.ACCEPTED)
    return {"id": f"c{number}", "question_id": f"q{number}", "turn": 0, "systems": [0, 1]} | to_json(chain)


def _judgment(identity: str, first: Shown, second: Shown, scores: tuple[float, float], text: str) -> Judgment:
    return Judgment(
        form=Form.PAIR_SCORES,
        question_id=identity,
        first=first,
        second=second,
        judge="judge",
        template="general",
        scores=scores,
        reply=f"{scores[0]:g} {scores[1]:g}\nBoth are fine. {text}",
    )


def island_of(page: str) -> dict[str, Any]:
    """The data in a page."""
    start = page.index(_ISLAND) + len(_ISLAND)
    found: dict[str, Any] = json.loads(page[start : page.index("</script>", start)])
    return found
