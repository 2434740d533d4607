"""What a chain delivers."""

from __future__ import annotations

from selfee.chain.types import Chain, ChainEnd, Cost, CutReason, Instruction, Section, Step

WHY = Instruction("Why?")


def test_a_revision_cut_off_in_midsentence_is_not_the_final_answer() -> None:
    chain = Chain(WHY, (Step("A.", "F"), Step("B bu", answer_finished=False)), ChainEnd.CUT_OFF, cut=CutReason.LENGTH)
    assert chain.final == "A."
    assert chain.delivered == 0
    assert chain.num_revisions == 1
    assert not chain.is_complete


def test_if_nothing_was_finished_the_beginning_is_delivered_and_marked() -> None:
    chain = Chain(WHY, (Step("The sky", answer_finished=False),), ChainEnd.CUT_OFF, cut=CutReason.ERROR)
    assert chain.final == "The sky"
    assert chain.delivered is None
    assert Chain(WHY, (), ChainEnd.CUT_OFF).final == ""
    assert Chain(WHY, (), ChainEnd.CUT_OFF).num_revisions == 0


def test_an_empty_revision_never_replaces_an_answer() -> None:
    chain = Chain(WHY, (Step("A.", "F"), Step(" \n", "F")), ChainEnd.ACCEPTED)
    assert (chain.delivered, chain.final) == (0, "A.")
    assert Chain(WHY, (Step(""),), ChainEnd.ACCEPTED).delivered is None


def test_a_selected_answer_is_delivered() -> None:
    assert Chain(WHY, (Step("A", "F"), Step("B")), ChainEnd.ACCEPTED, selected=0).final == "A"


def test_costs_add_up_over_sections() -> None:
    steps = (
        Step("A", "F", answer_cost=Cost(1, 0.5, 10, 4, (1,)), feedback_cost=Cost(2, 0.25, 5, 5, (2, 3))),
        Step("B"),
    )
    assert Chain(WHY, steps, ChainEnd.ACCEPTED).cost == Cost(3, 0.75, 15, 9, (1, 2, 3))


def test_a_question_is_instruction_and_input() -> None:
    assert Instruction("Add.", "1 2").question == "Add.\n\n1 2"
    assert WHY.question == "Why?"
    assert [section.is_answer for section in Section] == [True, False, True]
