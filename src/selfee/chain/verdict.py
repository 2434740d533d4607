"""Does a feedback ask for a revision? Reads its words, and rewrites them where the policy decides otherwise.

SelFee looked for six phrases anywhere in prompt and text, missed the other wordings that its training data hold, and
turned "No revision is needed" into "Novision is needed" (specification of the original, D7, D32-D34). Here the last
verdict in the feedback counts, in any of its usual wordings; a phrase that is quoted, stands in code, in a question or
after "if" is mentioned, not meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from selfee.chain.types import Verdict, VerdictSource

NEEDED = "Revision is needed."
NOT_NEEDED = "Revision is not needed."
STEM = "Revision is"
"""What both sentences begin with."""

_NEED = r"(?:needed|necessary|required)"
_ADVICE = r"(?:needed|necessary|required|recommended|suggested|advised|encouraged|warranted)"
_BE = r"(?:is|are|was|were|would\ be|will\ be|seems|seem)"
_ANY = r"(?:(?:a|an|any|the|some|further|more|additional|other|major|minor|significant|little|critiques?\ or)\ ){0,4}"
_SAYS_NOT = r"(?:do\ not|don['’]t|does\ not|doesn['’]t|did\ not|didn['’]t|cannot|can\ not|can['’]t)"

_MENTION = rf"""
    \b(?:if|whether|unless|in\ case)\ {_ANY}revisions?\ (?:{_BE}\ )?(?:not\ )?{_NEED}
    | \brevisions?\ {_BE}\ (?:not\ )?{_NEED}\ or\b
"""
_NO = rf"""
    \bno\ {_ANY}revisions?\ (?:{_BE}\ )?{_ADVICE}\b
    | \b(?:the\ |a\ |any\ |further\ )?revisions?\ (?:(?:{_BE}\ )?not|(?:is|are)n['’]t)
      \ (?:\w+ly\ |be\ |at\ all\ )?{_NEED}\b
    | \brevisions?\ {_BE}\ (?:\w+ly\ )?unnecessary\b
    | \b(?:no|not\ in|without\ any)\ need\ (?:for|of)\ {_ANY}revisions?\b
    | \bno\ need\ (?:to\ revise|to\ be\ revised)\b
    | \b{_SAYS_NOT}\ (?:need|require)\ (?:to\ be\ revised|to\ revise|{_ANY}revisions?)\b
    | \b{_SAYS_NOT}\ (?:think|believe|see|feel|find)\b[^.!?;:,\n"`()]{{0,60}}\brevisions?\b(?:\ {_BE}\ {_ADVICE}\b)?
    | \bno\ (?:further\ )?revisions?(?=[.!]?\s*\Z)
"""
_YES = rf"""
    \b(?:a\ |some\ |the\ |another\ )?revisions?\ {_BE}\ (?:still\ |also\ |\w+ly\ )?{_ADVICE}\b
    | \bnovision\ is\ needed\b
    | \b(?:needs?|requires?)\ (?:to\ be\ revised\b|{_ANY}revisions?\b)
    | \b(?:should|must|has\ to)\ be\ revised\b
    | \bplease\ revise\b
    | \brevisions?\ needed\b
"""
_VERDICTS = re.compile(
    rf"(?P<mention>{_MENTION})|(?P<no>{_NO})|(?P<yes>{_YES})".replace(r"\ ", r"[ \t]"), re.IGNORECASE | re.VERBOSE
)

# What is not the critic's own words, blanked before the search (same length, so that positions stay).
_FENCE = "```"
_INLINE_CODE = re.compile(r"`[^`\n]*`")
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|(?<!\w)'[^'\n]*'(?!\w)|(?<!\w)‘[^’\n]*’(?!\w)")
_SENTENCE_START = re.compile(r"[.!?][\"'”’)*_]*\s+|\n\s*")
_STATES = re.compile(
    r"(?:\A|:|\b(?:therefore|thus|hence|so|overall|finally),?(?:[ \t]+an?)?"
    r"|\b(?:classif|deem|mark|label)\w*\b[^\"“‘\n]{0,40}"
    r"|\b(?:rat(?:e|ed|ing)|scores?)\b[^\"“‘\n]{0,40}\band(?:[ \t]+say)?)"
    r"[ \t*_(]*\Z",
    re.IGNORECASE,
)
_PRAISE = re.compile(
    r"(?<=[.!\"”'’])[ \t\n]+(?:well[ \t]+done|(?:great|good|nice|excellent)[ \t]+(?:job|work)|keep[ \t]+it[ \t]+up)"
    r"[^.!?\n\"“‘]{0,20}[.!]+\s*\Z",
    re.IGNORECASE,
)
"""What teachers add behind a verdict; it takes nothing back."""
_REST_OF_SENTENCE = re.compile(r"[^.!?\n]*")
_ENDS_SENTENCE = re.compile(r"[.!?]\Z")
_STOPS_2023 = ("no critique", "no revision", "no need", "not needed")
_BOUND = r"(?:than|least|most|over|under|above|below|between|from|[<>≤≥])\s*"
"""What stands before a number that scores are compared with: "a score of less than 9" gives none."""

_SCORE = re.compile(
    r"\b(?P<out_of>\d{1,2}(?:\.\d{1,2})?)\s*(?:/|out\s+of)\s*10\b"
    rf"|\b(?:scores?|rat(?:e|ed|ing))\b(?![^.\d\n]{{0,40}}?{_BOUND}\d)[^.\d\n]{{0,40}}?"
    r"(?P<score>\d{1,2}(?:\.\d{1,2})?)(?![\d/%])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Found:
    start: int
    end: int
    needed: bool


def find_verdict(feedback: str) -> Verdict | None:
    """The last verdict that the feedback states, or None if it states none."""
    found = _find(feedback)
    return Verdict(found.needed, VerdictSource.PHRASE, feedback[found.start : found.end]) if found else None


def stopped_in_2023(feedback: str) -> bool:
    """Whether the teacher's loop that made SelFee's training data ended after this feedback (appendix A.3).

    For comparing only: "no need to sort" stopped it, too (D7), and silence did not (D8).
    """
    lowered = feedback.lower()
    return any(words in lowered for words in _STOPS_2023)


def overrule(feedback: str) -> str:
    """The feedback rewritten to ask for a revision: ``find_verdict`` of the result says that one is needed.

    The whole sentence with the verdict is replaced and what followed it is dropped, as if the model had written the
    other sentence at that place; without a verdict the sentence is added.
    """
    found = _find(feedback)
    if found is None:
        return add_sentence(feedback, NEEDED)
    return feedback if found.needed else feedback[: _sentence_start(feedback, found.start)] + NEEDED


def without_verdict(feedback: str) -> str:
    """The feedback up to the sentence that states its verdict; all of it if none does."""
    found = _find(feedback)
    return feedback if found is None else feedback[: _sentence_start(feedback, found.start)].rstrip()


def add_sentence(feedback: str, sentence: str) -> str:
    """The feedback with a sentence added: in the same line after a full stop, else in a paragraph of its own."""
    return feedback.rstrip() + joint(feedback) + sentence


def joint(feedback: str) -> str:
    """What must stand between a feedback (its trailing white space removed) and a sentence added to it."""
    kept = feedback.rstrip()
    if not kept:
        return ""
    return " " if _ENDS_SENTENCE.search(kept) else "\n\n"


def find_score(feedback: str) -> float | None:
    """The last score from 0 to 10 that the feedback gives ("8/10", "a score of 8.5"), or None."""
    scores = [float(match["out_of"] or match["score"]) for match in _SCORE.finditer(feedback)]
    return next((score for score in reversed(scores) if score <= 10.0), None)


def _find(feedback: str) -> _Found | None:
    prose = _blank(_INLINE_CODE, _blank_fences(feedback))
    found, quoted = _last(_blank(_QUOTED, prose)), _last_quoted(prose)
    if quoted is not None and (found is None or quoted.start > found.start):
        return quoted
    return found


def _last(text: str) -> _Found | None:
    for match in reversed(list(_VERDICTS.finditer(text))):
        if match.lastgroup != "mention" and not _is_question(text, match.end()):
            return _Found(match.start(), match.end(), match.lastgroup == "yes")
    return None


def _last_quoted(text: str) -> _Found | None:
    """A verdict in quotes counts only as the last words, and only where they state it.

    That is: alone, after a colon, or after words such as "therefore", "I classify it as" and "I rate it 9 and", as
    teachers write it; praise may follow.
    """
    closing = _PRAISE.sub("", text).rstrip(" \t\n.\"'”’*_)")
    sentence = _sentence_start(text, len(closing))
    opening = max(closing.rfind(quote, sentence) for quote in "\"“‘'")
    if opening < 0 or not _STATES.search(text[sentence:opening]):
        return None
    match = _VERDICTS.match(text, opening + 1)
    if match is None or match.lastgroup == "mention" or match.end() != len(closing):
        return None
    return _Found(match.start(), match.end(), match.lastgroup == "yes")


def _is_question(text: str, end: int) -> bool:
    rest = _REST_OF_SENTENCE.match(text, end)
    return rest is not None and text[rest.end() : rest.end() + 1] == "?"


def _sentence_start(text: str, position: int) -> int:
    start = 0
    for match in _SENTENCE_START.finditer(text, 0, position):
        start = match.end()
    return start


def _blank(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda match: "\0" * len(match[0]), text)


def _blank_fences(text: str) -> str:
    """Blanks what stands between pairs of fences; a fence that is never closed opens nothing."""
    parts = text.split(_FENCE)
    closed = len(parts) - 1 if len(parts) % 2 == 0 else len(parts)
    for number in range(1, closed, 2):
        parts[number] = re.sub(r"[^\n]", "\0", parts[number])
    return _FENCE.join(parts)
