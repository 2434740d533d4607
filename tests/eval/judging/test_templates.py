"""Prompts for judges: the original's to the byte, MT-bench's by their rules, ours in every form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfee.errors import BadFileError, UsageError
from selfee.eval.answers import Answer, Turn
from selfee.eval.judging.items import Item
from selfee.eval.judging.prompts import build_prompt, check_fits
from selfee.eval.judging.template_files import read_templates
from selfee.eval.judging.templates import OwnTemplates, Template, uses_reference
from selfee.eval.questions import Question, read_questions, with_references
from selfee.eval.scoring.judgment import Form

ORIGINAL = (
    "[Question]\n{question}\n\n[The Start of Assistant 1's Answer]\n{answer_1}\n\n[The End of Assistant 1's Answer]\n\n"
    "[The Start of Assistant 2's Answer]\n{answer_2}\n\n[The End of Assistant 2's Answer]\n\n[System]\n{prompt}\n\n"
)


def pair(question: Question, turn: int = 0) -> Item:
    turns = range(len(question.turns))
    one, other = (Answer(question.id, name, tuple(Turn(f"{name}{n} {{x}}") for n in turns)) for name in "AB")
    return Item(question, turn, one, other)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("category", "reviewer", "words"),
    [
        ("generic", "gpt-4-0328-default", "first output a single line containing only two values"),
        ("coding", "gpt-4-0328-coding", "evaluate the coding abilities"),
        ("math", "gpt-4-0328-math", "output a Python tuple"),
    ],
)
def test_the_originals_prompt_is_rendered_to_the_byte(corpus: Path, category: str, reviewer: str, words: str) -> None:
    folder = corpus / "selfee" / "template"
    templates = read_templates(folder / "prompt.jsonl", folder / "reviewer.jsonl", None)
    question = Question("1", ("Why {?}",), category)
    template = templates.choose(question, 0, with_reference=False)
    prompt = build_prompt(pair(question), template, fences=False)
    asked = template.defaults["prompt"]
    expected = ORIGINAL.format(question="Why {?}", answer_1="A0 {x}", answer_2="B0 {x}", prompt=asked)
    assert [(each.role, each.content) for each in prompt.messages] == [
        ("system", "You are a helpful and precise assistant for checking the quality of the answer."),
        ("user", expected),
    ]
    assert words in asked
    assert (template.name, template.temperature, template.max_tokens) == (reviewer, 0.2, 1024)
    assert template.reviewer == {"generic": 1, "coding": 2, "math": 3}[category]


@pytest.mark.corpus
def test_mt_bench_prompts_are_chosen_as_mt_bench_does(corpus: Path) -> None:
    public = corpus / "public"
    questions = read_questions(public / "mt_bench_question.jsonl")
    questions = with_references(questions, public / "mt_bench_reference_gpt4.jsonl")
    for form, kind in ((Form.PAIR_LABEL, "pair"), (Form.SINGLE_SCORE, "single")):
        templates = read_templates(public / "mt_bench_judge_prompts.jsonl", None, form)
        names: dict[str, int] = {}
        for question in questions:
            for turn in (0, 1):
                known = uses_reference(question, turn)
                template = templates.choose(question, turn, with_reference=known)
                names[template.name] = names.get(template.name, 0) + 1
                item = pair(question, turn)
                item = item if form is Form.PAIR_LABEL else Item(question, turn, item.first)
                text = build_prompt(item, template).messages[1].content
                assert "A1 {x}" in text or turn == 0
                assert not known or question.reference(turn) in text
        middle = "-v2" if kind == "pair" else "-v1"
        assert names == {
            f"{kind}{middle}": 50,
            f"{kind}{middle}-multi-turn": 50,
            f"{kind}-math-v1": 30,
            f"{kind}-math-v1-multi-turn": 30,
        }


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("with_reference", [True, False])
@pytest.mark.parametrize("turn", [0, 1])
def test_ours_show_everything_once_and_ask_for_reasons_first(form: Form, with_reference: bool, turn: int) -> None:
    question = Question("1", ("First?", "Then?"), "math", ("REF0", "REF1"))
    item = pair(question, turn)
    item = item if form.num_answers == 2 else Item(question, turn, item.first)
    template = OwnTemplates(form).choose(question, turn, with_reference=with_reference)
    text = build_prompt(item, template).messages[1].content
    assert [text.count(word) for word in ("First?", "A0", "REF0")] == [1, 1, int(with_reference)]
    assert [text.count(word) for word in ("Then?", "A1", "REF1")] == [turn, turn, int(with_reference and turn)]
    assert ("B0" in text) == (form.num_answers == 2)
    assert text.index("First say") < text.rindex("last line")
    check_fits(item, template)
    assert template.sha256 != OwnTemplates(form).choose(question, 1 - turn, with_reference=with_reference).sha256


def test_a_template_that_names_what_nobody_knows_is_refused() -> None:
    template = Template("odd", Form.PAIR_SCORES, "", "{question} {weather}", "")
    with pytest.raises(UsageError, match=r"names \{weather\}"):
        build_prompt(pair(Question("1", ("Why?",))), template)


def test_a_template_for_one_answer_is_not_shown_two() -> None:
    template = OwnTemplates(Form.SINGLE_SCORE).choose(Question("1", ("Why?",)), 0, with_reference=False)
    with pytest.raises(UsageError, match="shows 1 answers"):
        check_fits(pair(Question("1", ("Why?",))), template)


def test_good_answers_are_shown_where_answers_are_right_or_wrong() -> None:
    math, other = Question("1", ("a",), "math", ("4",)), Question("2", ("a",), "writing", ("4",))
    assert [uses_reference(math, 0), uses_reference(other, 0), uses_reference(math, 1)] == [True, False, False]
    assert [uses_reference(other, 0, "always"), uses_reference(math, 0, "never")] == [True, False]
    with pytest.raises(UsageError, match="expected auto"):
        uses_reference(math, 0, "perhaps")


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


PROMPT = {"prompt_id": 1, "system_prompt": "s", "prompt_template": "{question}{prompt}", "defaults": {"prompt": "p"}}
REVIEWER = {"reviewer_id": "r", "prompt_id": 1, "metadata": {}, "category": "general"}


def test_the_first_reviewer_of_a_category_counts_and_the_general_one_for_all_others(tmp_path: Path) -> None:
    prompts = written(tmp_path / "p.jsonl", PROMPT)
    reviewers = [REVIEWER, REVIEWER | {"reviewer_id": "m", "category": "math"}, REVIEWER | {"reviewer_id": "late"}]
    templates = read_templates(prompts, written(tmp_path / "r.jsonl", *reviewers), None)
    names = [
        templates.choose(Question("1", ("a",), kind), 0, with_reference=False).name for kind in ("math", "roleplay")
    ]
    assert names == ["m", "r"]
    with pytest.raises(UsageError, match="second turn"):
        templates.choose(Question("1", ("a", "b")), 1, with_reference=False)


@pytest.mark.parametrize(
    ("prompts", "reviewers", "match"),
    [
        ([{"foo": 1}], None, "neither the original's"),
        ([PROMPT], [REVIEWER | {"prompt_id": 9}], "prompt_id 9 is not in"),
        ([PROMPT], [REVIEWER | {"category": "math"}], "no reviewer of category 'general'"),
        ([PROMPT | {"defaults": "x"}], [REVIEWER], "field 'defaults'"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    prompts: list[dict[str, Any]], reviewers: list[dict[str, Any]] | None, match: str, tmp_path: Path
) -> None:
    told = None if reviewers is None else written(tmp_path / "r.jsonl", *reviewers)
    with pytest.raises(BadFileError, match=match):
        read_templates(written(tmp_path / "p.jsonl", *prompts), told, None)
