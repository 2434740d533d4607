"""Chains to tokens: the same text and ids as at work, every token in one part, whole rounds or nothing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chain.strategies import chains
from tests.tiny import make_tiny
from tests.train.chains import CONTENT, WANTS, chain_of, some_chains, tiny_tokenizer, write_chains

from selfee.chain.format import render_prompt, render_steps, render_target
from selfee.chain.parser import read_chain
from selfee.chain.record import to_dataset, to_json
from selfee.chain.types import Chain, Exchange, Instruction
from selfee.chain.verdict import find_verdict
from selfee.engines.local import LocalEngine
from selfee.engines.open import open_engine
from selfee.errors import BadFileError, UsageError
from selfee.llama.tokenizer import load_tokenizer
from selfee.train.dataset import IGNORED, Dataset, Example, Weights, encode_lesson, encode_prompt, parse_weights
from selfee.train.lessons import Objective, Part, RefusedError, lessons_of
from selfee.train.records import Sourced, data_files, read_chains
from selfee.weights.open import open_checkpoint

KINDS: list[Literal["bpe", "spm"]] = ["bpe", "spm"]
LONG = 1 << 20
TWICE = chain_of(("Blue.", WANTS), ("Air scatters.", WANTS), ("Air scatters blue light.", CONTENT))


def encode(chain: Chain, objective: Objective = Objective.FULL, **options: Any) -> list[Example]:
    tokenizer = tiny_tokenizer(options.pop("kind", "bpe"))
    weights, length = options.pop("weights", Weights()), options.pop("max_length", LONG)
    return [encode_lesson(lesson, tokenizer, weights, length) for lesson in lessons_of(chain, objective)]


def text_of(example: Example, *parts: Part, kind: Literal["bpe", "spm"] = "bpe") -> str:
    """The text of all tokens of these parts."""
    tokenizer = tiny_tokenizer(kind)
    spans = [span for span in example.spans if span.part in parts]
    return b"".join(tokenizer.token_bytes(t) for span in spans for t in example.ids[span.start : span.end]).decode()


@pytest.mark.parametrize("kind", KINDS)
@given(chain=chains(), objective=st.sampled_from(Objective))
def test_every_token_belongs_to_exactly_one_section(
    kind: Literal["bpe", "spm"], chain: Chain, objective: Objective
) -> None:
    try:
        examples = encode(chain, objective, kind=kind)
    except RefusedError:
        return
    for example in examples:
        assert [span.start for span in example.spans] == [0, *(span.end for span in example.spans[:-1])]
        assert example.spans[-1].end == len(example.ids) == len(example.labels) == len(example.weights)
        assert example.spans[0].part is Part.PROMPT
        assert all(label in (IGNORED, token) for label, token in zip(example.labels, example.ids, strict=True))
        assert [label != IGNORED for label in example.labels] == [weight > 0 for weight in example.weights]


@given(chain=chains())
def test_the_learned_text_is_what_the_text_format_writes(chain: Chain) -> None:
    try:
        (lesson,) = lessons_of(chain, Objective.FULL)
    except RefusedError:
        return
    text = render_steps(lesson.steps)
    assert "".join(piece.text for piece in lesson.pieces) == text
    assert render_target(chain).startswith(text)
    example = encode_lesson(lesson, tiny_tokenizer("bpe"), Weights(), LONG)
    assert text_of(example, *(set(Part) - {Part.PROMPT, Part.END})) == text
    assert [step.answer for step in read_chain(text, chain.instruction).steps] == [s.answer for s in lesson.steps]


@given(chain=chains())
def test_the_end_token_stands_only_behind_words_that_no_revision_is_needed(chain: Chain) -> None:
    try:
        (example,) = encode(chain)
    except RefusedError:
        return
    (lesson,) = lessons_of(chain, Objective.FULL)
    verdict = find_verdict(lesson.steps[-1].feedback or "")
    is_over = verdict is not None and not verdict.needed
    assert (example.spans[-1].part is Part.END) == is_over
    assert (example.ids[-1] == tiny_tokenizer("bpe").eos) == is_over


@pytest.mark.parametrize("vocabulary", ["bpe", "spm"])
@pytest.mark.parametrize(
    "instruction",
    [
        Instruction("Why is the sky blue?"),
        Instruction("Add.", "1 + 1"),
        Instruction("  Why?\n", "", (Exchange("Hi", "Hello."),), "Be brief."),
    ],
)
def test_the_training_prompt_is_the_inference_prompt(
    tmp_path: Path, vocabulary: Literal["bpe", "spm"], instruction: Instruction
) -> None:
    model = make_tiny(tmp_path / "tiny.gguf", vocab=vocabulary)
    tokenizer = load_tokenizer(open_checkpoint(model).vocab)
    chain = replace(chain_of(("Blue.", CONTENT)), instruction=instruction)
    (lesson,) = lessons_of(chain, Objective.FULL)
    engine = open_engine(str(model))
    assert isinstance(engine, LocalEngine)
    at_work = engine.encode_text(render_prompt(instruction))
    assert encode_prompt(lesson, tokenizer) == at_work
    example = encode_lesson(lesson, tokenizer, Weights(), LONG)
    assert list(example.ids[: len(at_work)]) == at_work
    assert example.spans[0].end == len(at_work)


def test_sections_hold_what_their_names_say() -> None:
    (example,) = encode(TWICE)
    assert text_of(example, Part.FLAWED) == "Blue."
    assert text_of(example, Part.FEEDBACK).startswith("\n\n### Feedback 1:\nToo short.")
    assert text_of(example, Part.VERDICT) == " Revision is needed." * 2 + " Revision is not needed."
    assert text_of(example, Part.REVISION).endswith("\n\n### Revision 2:\nAir scatters blue light.")
    assert text_of(example, Part.ANSWER) == ""


def test_a_first_answer_that_stands_is_not_flawed() -> None:
    (example,) = encode(chain_of(("Blue.", CONTENT)))
    assert text_of(example, Part.ANSWER) == "Blue."
    assert not [span for span in example.spans if span.part is Part.FLAWED]


def test_answer_only_and_final_only_are_one_answer_with_its_end() -> None:
    (first,), (last,) = encode(TWICE, Objective.ANSWER_ONLY), encode(TWICE, Objective.FINAL_ONLY)
    assert (text_of(first, Part.ANSWER), text_of(last, Part.ANSWER)) == ("Blue.", "Air scatters blue light.")
    assert first.ids[-1] == last.ids[-1] == tiny_tokenizer("bpe").eos
    assert [span.part for span in last.spans] == [Part.PROMPT, Part.ANSWER, Part.END]


def test_split_makes_a_lesson_of_each_round_and_learns_no_answer_twice() -> None:
    examples = encode(TWICE, Objective.SPLIT)
    learned = [[(span.part.value, span.number) for span in example.spans if span.weight] for example in examples]
    assert learned == [
        [("flawed", 0), ("feedback", 1), ("verdict", 1), ("revision", 1)],
        [("feedback", 1), ("verdict", 1), ("revision", 1)],
        [("feedback", 1), ("verdict", 1), ("end", 0)],
    ]


def test_a_weight_of_zero_masks_a_section_and_leaves_the_others() -> None:
    (example,) = encode(TWICE, weights=Weights(flawed=0, verdict=2.5))
    by_part = {span.part: span.weight for span in example.spans}
    assert by_part[Part.FLAWED] == by_part[Part.PROMPT] == 0
    assert by_part[Part.VERDICT] == 2.5
    assert by_part[Part.REVISION] == by_part[Part.FEEDBACK] == by_part[Part.END] == 1


@given(chain=chains(), cut=st.integers(1, 400))
def test_an_overlong_chain_loses_whole_rounds_and_never_its_end(chain: Chain, cut: int) -> None:
    try:
        (whole,) = encode(chain)
        (example,) = encode(chain, max_length=max(1, len(whole.ids) - cut))
    except RefusedError:
        return
    (lesson,) = lessons_of(chain, Objective.FULL)
    assert len(example.ids) <= max(1, len(whole.ids) - cut)
    assert example.dropped_rounds > 0
    kept = render_steps(lesson.steps[example.dropped_rounds :])
    assert text_of(example, *(set(Part) - {Part.PROMPT, Part.END})) == kept
    assert (example.spans[-1].part is Part.END) == (whole.spans[-1].part is Part.END)


def test_a_chain_one_token_too_long_begins_with_its_first_revision() -> None:
    (whole,) = encode(TWICE)
    (example,) = encode(TWICE, max_length=len(whole.ids) - 1)
    assert example.dropped_rounds == 1
    assert text_of(example, Part.FLAWED) == "Air scatters."
    assert "### Revision 2" not in text_of(example, Part.REVISION)
    assert example.ids[-1] == tiny_tokenizer("bpe").eos


@pytest.mark.parametrize(
    ("chain", "options", "reason"),
    [
        (TWICE, {"max_length": 20}, "prompt too long"),
        (chain_of(("Blue. " * 300, CONTENT)), {"max_length": 400}, "too long, even without its earlier rounds"),
        (TWICE, {"weights": Weights(0, 0, 0, 0, 0, 0)}, "nothing to learn: every token is masked"),
        (chain_of(("", None)), {}, "no finished answer"),
        (chain_of(("Blue.\n### Feedback 1:\nx", CONTENT)), {}, "cannot be written as one text"),
        (chain_of(("Blue.", CONTENT), question=" "), {}, "empty instruction"),
        (chain_of(("\ud800", CONTENT)), {}, "not valid Unicode"),
    ],
)
def test_what_gives_no_lesson_is_refused_with_its_reason(chain: Chain, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        encode(chain, **options)


def test_a_section_that_was_cut_off_is_not_learned() -> None:
    last = replace(TWICE.steps[1], answer="Air scat", answer_finished=False)
    (example,) = encode(replace(TWICE, steps=(TWICE.steps[0], last)))
    assert text_of(example, *(set(Part) - {Part.PROMPT})) == f"Blue.\n\n### Feedback 1:\n{WANTS}"


def test_refused_rows_are_counted_and_the_rest_is_read_lazily(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows = [to_json(chain) for chain in some_chains(3)] + [to_json(chain_of(("", None))), {"no": "chain"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    dataset = Dataset.of_file(path, tiny_tokenizer("bpe"), Objective.FULL, Weights(), LONG)
    assert (dataset.counts.chains, len(dataset)) == (5, 3)
    assert dataset.counts.refused == {"no finished answer": 1, "not a chain": 1}
    assert dataset.example(1).ids == next(example for index, example in dataset.encode_all() if index == 1).ids
    short = Dataset.of_file(path, tiny_tokenizer("bpe"), Objective.FULL, Weights(), 30)
    assert list(short.encode_all()) == []
    assert short.counts.refused["prompt too long"] == 3


def test_both_schemas_and_both_forms_of_file_give_the_same_lessons(tmp_path: Path) -> None:
    all_of = some_chains(4)
    lines = write_chains(tmp_path / "ours.jsonl", all_of)
    array = tmp_path / "records.json"
    array.write_text(json.dumps([to_dataset(chain) for chain in all_of], indent=1), encoding="utf-8")
    texts = [[render_target(sourced.chain) for sourced in read_chains(path, Counter())] for path in (lines, array)]
    assert texts[0] == texts[1] == [render_target(chain) for chain in all_of]


def test_a_folder_is_its_train_and_validation_file(tmp_path: Path) -> None:
    train = write_chains(tmp_path / "train.jsonl", some_chains(2))
    assert data_files(tmp_path) == (train, None)
    validation = write_chains(tmp_path / "validation.jsonl", some_chains(1))
    assert data_files(tmp_path) == (train, validation)
    with pytest.raises(BadFileError, match=r"holds no train\.jsonl"):
        data_files(_empty(tmp_path))


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_weights_are_read_as_typed_and_errors_name_the_part() -> None:
    assert parse_weights(["flawed=0", "verdict=2"]) == Weights(flawed=0, verdict=2)
    for wrong in ("flaw=0", "flawed", "verdict=two"):
        with pytest.raises(UsageError, match=wrong):
            parse_weights([wrong])
    with pytest.raises(UsageError, match="flawed is -1"):
        parse_weights(["flawed=-1"])


def test_an_array_that_is_no_json_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text("[{", encoding="utf-8")
    with pytest.raises(BadFileError, match=r"broken\.json"):
        list(read_chains(path, Counter()))


def test_a_dataset_of_nothing_is_empty() -> None:
    assert len(Dataset([], tiny_tokenizer("bpe"), Objective.FULL, Weights(), 10)) == 0
    assert len(Dataset([Sourced("", TWICE)], tiny_tokenizer("bpe"), Objective.SPLIT, Weights(), LONG)) == 3
