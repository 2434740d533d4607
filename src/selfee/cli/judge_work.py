"""What ``selfee judge`` is to do, from the words typed: which pairs, in which form, by which templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfee.cli.question_options import Questioning
from selfee.errors import UsageError

if TYPE_CHECKING:
    from selfee.eval.answers import Answer
    from selfee.eval.folder import Folder
    from selfee.eval.judging.asking import AskRules
    from selfee.eval.judging.items import Item, Scope
    from selfee.eval.judging.run import Assignment
    from selfee.eval.judging.templates import TemplateSet
    from selfee.eval.questions import Question
    from selfee.eval.scoring.judgment import Form


@dataclass(frozen=True)
class Comparing:
    """What is compared with what."""

    against: str = "previous"  # with one file: compare each number of revisions with the previous, or the first
    swap: bool = True  # judge each pair in both orders
    repeats: int = 1  # ask for each judgment so often, with other seeds: shows the judge's noise
    controls: int = 0  # also judge the first so many answers against themselves: same, padded, instructed, empty
    allow_missing: bool = False  # leave out questions that a system has not answered
    name: str | None = None  # name of the judgments' file, instead of the judge's


@dataclass(frozen=True)
class Judging:
    """How a judge is asked."""

    temperature: float | None = None  # of the judge; by default as its prompt file says, else 0
    max_tokens: int | None = None  # of a reply; by default as the prompt file says, else 1024
    seed: int = 0  # of the judge, and of the fences around answers
    asks: int = 3  # requests at most until a reply can be read
    fence: bool = True  # put answers between lines with a random word, so that they cannot instruct the judge
    weigh: bool = False  # weigh verdicts with the judge's token probabilities, where the server tells them
    use_references: str = "auto"  # show good answers: auto (math, reasoning, coding), always or never

    @property
    def rules(self) -> AskRules:
        """As the room of judges has it."""
        from selfee.eval.judging.asking import AskRules

        return AskRules(self.seed, self.temperature, self.max_tokens, self.asks, self.fence, self.weigh)


def folder_questions(folder: Folder, path: Path | None, references: Path | None, which: Questioning) -> list[Question]:
    """The questions of a file, else of the folder. Raises UsageError where there are none."""
    from selfee.cli.question_options import chosen_questions

    if path is None and not folder.questions.exists():
        raise UsageError(f"{folder.path}: holds no questions; expected the file with them; give it with --questions")
    return chosen_questions(path or folder.questions, which, references)


def plan_work(
    specs: Sequence[str],
    questions: Sequence[Question],
    comparing: Comparing,
    judging: Judging,
    form: Form | None,
    prompts: Path | None,
    reviewers: Path | None,
) -> list[Assignment]:
    """Every judgment to ask for, with its template. Raises UsageError for what does not fit together."""
    from selfee.eval.judging.items import Scope
    from selfee.eval.judging.run import assign

    templates = _templates(form, prompts, reviewers)
    scope = Scope(comparing.swap, comparing.repeats, comparing.allow_missing)
    items = _items(specs, questions, templates.form, comparing, scope)
    return assign(items, templates, judging.use_references)


def _templates(form: Form | None, prompts: Path | None, reviewers: Path | None) -> TemplateSet:
    from selfee.eval.judging.template_files import read_templates
    from selfee.eval.judging.templates import OwnTemplates
    from selfee.eval.scoring.judgment import Form

    if prompts is not None:
        return read_templates(prompts, reviewers, form)
    if reviewers is not None:
        raise UsageError("--reviewers: belongs to the original's prompts; expected --prompts beside it")
    return OwnTemplates(form or Form.PAIR_SCORES)


def _items(
    specs: Sequence[str], questions: Sequence[Question], form: Form, comparing: Comparing, scope: Scope
) -> list[Item]:
    from selfee.eval.answers import choose_systems
    from selfee.eval.judging.controls import KINDS, plan_controls
    from selfee.eval.judging.items import pairs_between, pairs_of_rounds, plan_pairs, plan_singles

    asked = {question.turns[0]: question.id for question in questions}
    sides = [choose_systems(spec, asked) for spec in specs]
    systems = _together(specs, sides)
    if form.num_answers == 1:
        items = plan_singles(questions, systems, scope)
    else:
        if len(sides) == 1:
            pairs = pairs_of_rounds(systems, comparing.against)
        else:
            pairs = [pair for other in sides[1:] for pair in pairs_between(sides[0], other)]
        items = plan_pairs(questions, systems, pairs, scope)
    if comparing.controls:
        if form.num_answers == 1:
            raise UsageError("--controls: compares an answer with itself; expected a form with two answers")
        main = list(sides[0].values())[-1]
        items += plan_controls(questions, main, KINDS, comparing.controls, scope)
    return items


def _together(specs: Sequence[str], sides: Sequence[dict[str, list[Answer]]]) -> dict[str, list[Answer]]:
    """All systems by name. Raises UsageError for two of one name."""
    systems: dict[str, list[Answer]] = {}
    for spec, side in zip(specs, sides):
        for name, answers in side.items():
            if name in systems and systems[name] != answers:
                raise UsageError(
                    f"{spec}: its {name!r} is another one than before; expected one name each; rename a file"
                )
            systems[name] = answers
    return systems
