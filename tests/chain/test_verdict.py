"""Verdicts: read where they are meant, not where they are mentioned; overruled by whole sentences."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from tests.chain.strategies import texts

from selfee.chain.types import VerdictSource
from selfee.chain.verdict import NEEDED, NOT_NEEDED, add_sentence, find_score, find_verdict, overrule, without_verdict

SIX = (
    "Revision is not needed",
    "revision is not needed",
    "No revision is needed",
    "no revision is needed",
    "No revisions needed",
    "no revisions needed",
)


@pytest.mark.parametrize("phrase", SIX)
@pytest.mark.parametrize("frame", ["{}", "{}.", "Clear and correct. {}.", "Score: 9\n\n{}", "Perfect, so {}."])
def test_each_of_the_six_spellings_says_that_none_is_needed(phrase: str, frame: str) -> None:
    verdict = find_verdict(frame.format(phrase))
    assert verdict is not None
    assert not verdict.needed
    assert verdict.source is VerdictSource.PHRASE


@pytest.mark.parametrize("phrase", SIX)
@pytest.mark.parametrize("frame", ["{}", "{}.", "It explains a lot. Well done. {}.", "Score: 9\n\n{}"])
def test_overruling_replaces_each_of_the_six_by_a_sentence_and_never_writes_novision(phrase: str, frame: str) -> None:
    before = frame.partition("{")[0]
    assert overrule(frame.format(phrase)) == before + "Revision is needed."


@pytest.mark.parametrize(
    "feedback",
    [
        "No revisions are needed.",
        "no revision needed",
        "Revision is not necessary.",
        "No further revision is needed.",
        "Revision not needed.",
        "The revision is not really needed, but a minor improvement can be made.",
        "There is no need for revision.",
        "There is no need for any further revision.",
        "It does not need any revision.",
        "Overall, this answer does not require revision.",
        "I don't think any further revision is needed.",
        "I do not see any reason for a revision. Great job!",
        "There's no revision needed.",
        "Revision isn't needed.",
        "Revision is unnecessary.",
        "Revision is not needed, but some tweaks could make it even stronger.",
        "**Revision is not needed.**",
        "(Revision is not needed)",
        'Verdict: "Revision is not needed".',
        'I would classify it as "Revision is not needed".',
        'Therefore, "Revision is not needed."',
        'I would rate it 10 out of 10 and "Revision is not needed". Well done!',
        'Overall, I would give it a score of 9 and say "Revision is not needed".',
        'I would give it a score of 10 and classify it as "Revision is not needed". Great job!',
        'I would give your code a score of 8.5. Finally, "Revision is not needed".',
        "Revision is needed in general; here, however, no revision is needed.",
    ],
)
def test_other_wordings_found_in_training_data_say_that_none_is_needed(feedback: str) -> None:
    verdict = find_verdict(feedback)
    assert verdict is not None
    assert not verdict.needed


@pytest.mark.parametrize(
    "feedback",
    [
        "Revision is needed.",
        "Therefore, a revision is needed.",
        "REVISION IS NEEDED",
        "Revision is still needed.",
        "A minor revision is needed to change `x`.",
        "Therefore, the answer needs revision.",
        "The code needs to be revised.",
        "It should be revised to address the problem.",
        "Revision is recommended.",
        "Some revision is necessary.",
        "No need to change the tone. Revision is needed.",
        "Revision is not needed for the first part. For the second, revision is needed.",
        "The library is not needed here. Revision is needed.",
        "Verdict: 'Revision is needed'",
        'I rate it 4 of 10 and "Revision is needed". Good work so far!',
        "I do not think the facts are right, so a revision is needed.",
    ],
)
def test_wordings_that_ask_for_a_revision(feedback: str) -> None:
    verdict = find_verdict(feedback)
    assert verdict is not None
    assert verdict.needed


def test_the_originals_broken_replacement_asks_for_a_revision_as_it_did_in_the_released_chains() -> None:
    verdict = find_verdict("The answer is a solid 8/10. Novision is needed.")
    assert verdict is not None
    assert verdict.needed


@pytest.mark.parametrize(
    "feedback",
    [
        "",
        "The answer is correct.",
        "There is no need to import the library; it is not needed.",
        'Do not end your answers with "Revision is not needed".',
        'Please rate your answer from 1 to 10, and then respond with "Revision is not needed".',
        'The feedback on it was "Revision is not needed". Well done!',
        'I would rate it 9, and "Revision is not needed" is what your text says at the end.',
        'Overall, "Revision is not needed". Delete these words!',
        "The text says `Revision is not needed` where it should not.",
        "Use this:\n```python\nprint('Revision is not needed')\n```\nand test it.",
        "Is revision needed?",
        "Please tell me if revision is needed.",
        "Say whether a revision is needed or not.",
        "Respond with “Revision is needed” or “Revision is not needed”",
        "Revision is optional.",
        "I would praise the revision.",
    ],
)
def test_silence_and_mere_mentions_are_no_verdict(feedback: str) -> None:
    assert find_verdict(feedback) is None


def test_a_verdict_after_an_unclosed_fence_still_counts() -> None:
    verdict = find_verdict("```python\nx = 1\n\nRevision is needed.")
    assert verdict is not None
    assert verdict.needed


def test_what_the_model_wrote_after_its_verdict_is_taken_back_with_it() -> None:
    said = "Good 8.5/10 answer. Overall, no revision is needed. Great job!"
    assert overrule(said) == "Good 8.5/10 answer. Revision is needed."


def test_feedback_without_a_verdict_gets_a_sentence() -> None:
    assert overrule("The answer is good.") == "The answer is good. Revision is needed."
    assert overrule("The answer is goo") == "The answer is goo\n\nRevision is needed."
    assert overrule("") == "Revision is needed."
    assert add_sentence("Fine!\n", NOT_NEEDED) == "Fine! Revision is not needed."


def test_feedback_that_asks_for_a_revision_stays_as_it_is() -> None:
    assert overrule("Wrong. Revision is needed. Sorry.") == "Wrong. Revision is needed. Sorry."


@given(texts(max_size=12))
@example("if")
@example('He said "Fine. Revision is not needed."')
@example("`a. No revision is needed")
def test_overruled_feedback_always_asks_for_a_revision_and_overruling_again_changes_nothing(feedback: str) -> None:
    overruled = overrule(feedback)
    verdict = find_verdict(overruled)
    assert verdict is not None
    assert verdict.needed
    assert overrule(overruled) == overruled


@given(texts(max_size=12))
def test_an_added_sentence_is_the_verdict(feedback: str) -> None:
    for sentence, needed in ((NEEDED, True), (NOT_NEEDED, False)):
        verdict = find_verdict(add_sentence(feedback, sentence))
        assert verdict is not None
        assert verdict.needed is needed


@pytest.mark.parametrize(
    ("feedback", "score"),
    [
        ("Overall, a solid 8/10. Revision is needed.", 8.0),
        ("I would give this a score of 8.5.", 8.5),
        ("Score: 7\n\nRevision is needed.", 7.0),
        ("It was 3/10, now it is 9 out of 10.", 9.0),
        ("I rate it 95/100.", None),
        ("No number here.", None),
        ("Step 3 is wrong.", None),
        ("A score of less than 9 should not be revised.", None),
        ("Answers with a score below 9 need one. I give a score of 7, which is less than 9.", 7.0),
    ],
)
def test_scores_are_read_from_feedback(feedback: str, score: float | None) -> None:
    assert find_score(feedback) == score


@pytest.mark.parametrize(
    "unit", ["Revision is needed", "no further ", "```", '"', "`a", "a. ", "I don't think ", "Revision is not needed? "]
)
def test_the_time_to_read_a_long_feedback_grows_with_its_length_only(unit: str) -> None:
    def seconds(repeats: int) -> float:
        started = time.perf_counter()
        find_verdict(unit * repeats)
        return time.perf_counter() - started

    text_seconds = min(seconds(20_000) for _ in range(2))
    assert text_seconds < 20.0, "20,000 repetitions are some 300,000 characters; quadratic time would take minutes"


@given(texts())
def test_without_its_verdict_a_feedback_is_its_own_beginning(feedback: str) -> None:
    rest = without_verdict(feedback)
    assert feedback.startswith(rest)
    assert (rest == feedback) >= (find_verdict(feedback) is None)


def test_without_its_verdict_a_feedback_keeps_what_was_said_before() -> None:
    assert without_verdict("Wrong, 3/10. Therefore revision is needed. Sorry.") == "Wrong, 3/10."
    assert without_verdict("Revision is not needed.") == ""
    assert without_verdict("Fine.") == "Fine."
