"""The policy against a table written out by other rules."""

from __future__ import annotations

import itertools

import pytest

from selfee.chain.policy import Action, RevisionPolicy
from selfee.errors import UsageError


def simulate(policy: RevisionPolicy, wishes: tuple[bool, ...]) -> int:
    """Revisions made if the model wishes thus after each answer (and is content once its wishes run out)."""
    made = 0
    while True:
        wants = made < len(wishes) and wishes[made]
        action = policy.decide(made, wants)
        if action is Action.STOP or (action is Action.FOLLOW and not wants):
            return made
        made += 1


def test_every_decision_agrees_with_the_number_of_revisions_counted_by_hand() -> None:
    for low, high, wishes in itertools.product(range(4), [*range(5), None], itertools.product([False, True], repeat=5)):
        if high is not None and low > high:
            continue
        content_after = next((made for made in range(low, 6) if made >= len(wishes) or not wishes[made]), 6)
        expected = content_after if high is None else min(high, content_after)
        assert simulate(RevisionPolicy(low, high), wishes) == expected, (low, high, wishes)


@pytest.mark.parametrize("wishes", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("count", range(5))
def test_with_minimum_equal_to_maximum_the_number_is_exact(count: int, wishes: tuple[bool, ...]) -> None:
    assert simulate(RevisionPolicy(count, count), wishes) == count


@pytest.mark.parametrize(
    ("made", "wants", "action"),
    [
        (0, True, Action.FOLLOW),
        (0, False, Action.OVERRULE),
        (1, True, Action.FOLLOW),
        (1, False, Action.FOLLOW),
        (2, True, Action.STOP),
        (2, False, Action.FOLLOW),
    ],
)
def test_the_table_for_at_least_one_and_at_most_two_revisions(made: int, wants: bool, action: Action) -> None:
    assert RevisionPolicy(1, 2).decide(made, wants) is action


@pytest.mark.parametrize(("low", "high", "word"), [(2, 1, "more than"), (-1, 3, "negative"), (0, -1, "negative")])
def test_impossible_policies_are_refused(low: int, high: int, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        RevisionPolicy(low, high)


def test_without_a_maximum_the_model_is_always_followed() -> None:
    assert RevisionPolicy(0, None).decide(10_000, True) is Action.FOLLOW
