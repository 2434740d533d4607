"""A chain in a notebook: everything is there, nothing in it becomes markup, and the difference is the whole text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfee.chain.changes import edits
from selfee.chain.html import chain_html
from selfee.chain.types import Chain, ChainEnd, Check, Cost, CutReason, Instruction, Step, Verdict, VerdictSource

WORDS = st.text(alphabet=st.sampled_from("ab<>&\"' é日\n\u202e\x00\x1b/"), max_size=60)
ALLOWED = {"div", "style", "details", "summary", "b", "span", "ins", "del"}


class Outline(HTMLParser):
    """What a reader of the page finds: tags in balance, and the texts of each kind of tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: dict[str, str] = {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.append(tag)
        assert {name for name, _ in attrs} <= {"class", "dir"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data


def chain_of(*answers: str, feedback: str = "Too short. Revision is needed.") -> Chain:
    steps = [Step(answer, feedback, Verdict(needed=True)) for answer in answers[:-1]]
    return Chain(Instruction("Why?"), (*steps, Step(answers[-1])), ChainEnd.CAPPED, seed=1)


@given(WORDS, WORDS)
@example("a  b\n\nc", "a b\nc ")
def test_kept_and_added_pieces_are_the_new_text_and_kept_and_removed_the_old_words(old: str, new: str) -> None:
    pieces = edits(old, new)
    assert pieces is not None
    assert "".join(piece.text for piece in pieces if piece.kind != "removed") == new
    assert "".join(piece.text for piece in pieces if piece.kind != "added").split() == old.split()


@given(WORDS, WORDS, WORDS, WORDS)
def test_no_text_becomes_markup(question: str, first: str, second: str, feedback: str) -> None:
    steps = (Step(first, feedback, Verdict(needed=True), check=Check(None, reason=feedback)), Step(second))
    chain = Chain(Instruction(question, second), steps, ChainEnd.CAPPED, feedback, engine=question)
    outline = Outline(chain_html(chain))
    assert outline.open == []
    assert set(outline.tags) <= ALLOWED
    assert "\x00" not in chain_html(chain)
    chain_html(chain).encode("utf-8")


def test_what_was_said_is_folded_and_the_answer_in_sight() -> None:
    outline = Outline(chain_of("The sky reflects.", "The sky scatters.")._repr_html_())
    assert outline.tags.count("details") == 3
    assert "open" not in outline.tags
    assert outline.texts["ins"] == "scatters."
    assert outline.texts["del"] == "reflects."
    assert outline.texts["b"] == "answerfeedback 1revision 1final answer"
    assert "revision needed" in outline.texts["span"]


def test_an_answer_alone_has_nothing_to_fold() -> None:
    assert Outline(chain_of("Because.")._repr_html_()).tags.count("details") == 0


@pytest.mark.parametrize(
    ("step", "chip"),
    [
        (Step("a", "b", Verdict(False)), "revision not needed"),
        (Step("a", "b", Verdict(False, forced=True), overruled="c"), "forced"),
        (Step("a", "b", Verdict(True, VerdictSource.USER)), "yours"),
        (Step("a", "b", Verdict(False, VerdictSource.SILENCE)), "asks for no revision"),
        (Step("a", "b", None), "no verdict"),
        (Step("a", "b", check=Check(True, 3.5)), "passed 3.5"),
        (Step("a", "b", check=Check(False)), "not passed"),
        (Step("a", "b", check=Check(None, failed=True)), "the check failed itself"),
        (Step("a", "b", check=Check(None)), "cannot be checked"),
        (Step("a", "b", answer_cost=Cost(7, 1.25)), "7 tokens, 1.2 s"),
    ],
)
def test_every_finding_is_shown(step: Step, chip: str) -> None:
    chain = Chain(Instruction("Why?"), (step,), ChainEnd.ACCEPTED)
    assert chip in Outline(chain_html(chain)).texts["span"]


def test_an_overruled_feedback_is_shown_as_the_model_wrote_it() -> None:
    step = Step(
        "a", "Fine. Revision is needed.", Verdict(False, forced=True), overruled="Fine. Revision is not needed."
    )
    page = chain_html(Chain(Instruction("Why?"), (step, Step("b")), ChainEnd.CAPPED))
    assert "Fine. Revision is not needed." in page
    assert "Fine. Revision is needed." not in page


def test_another_answer_than_the_last_is_named_and_an_unfinished_one_is_not_called_final() -> None:
    page = chain_html(
        Chain(Instruction("Why?"), (Step("a", "b", Verdict(True)), Step("c")), ChainEnd.CAPPED, selected=0)
    )
    assert "the first answer" in page
    cut = Chain(Instruction("Why?"), (Step("Beg", answer_finished=False),), ChainEnd.CUT_OFF, cut=CutReason.CANCELLED)
    assert "unfinished answer" in chain_html(cut)
    assert "final answer" not in chain_html(cut)


def test_texts_too_long_to_compare_are_shown_whole() -> None:
    old, new = "a " * 3000, "b " * 3000
    page = chain_html(chain_of(old, new))
    assert "<ins>" not in page
    assert page.count("b b b") > 1
