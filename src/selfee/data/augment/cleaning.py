"""Take apologies and announcements off an answer, so that it reads like a first try; every edit can be undone.

The original looked for "i apologize" before the first full stop, which breaks at "3.5", and dropped true sentences that
contain "revision " (specification of the original, D10 and D11).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from selfee.data.augment.sentences import sentence_spans

_SORRY = r"i(?:['’]m| am) (?:very |so )?sorry"
_REVISED = r"revised (?:answer|response|version|code|solution)"
_APOLOGY = re.compile(
    r"\b(?:i (?:sincerely |do )?apologi[sz]e|(?:my|our|sincere) apologies|apologies for"
    rf"|{_SORRY}(?: for| about| that|[,.!])"
    r"|sorry (?:for|about) (?:the|my|any|that)|please (?:accept my apologies|forgive))",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"\A(?:thank you|thanks) (?:very much |so much )?for (?:the|your|pointing|this)\b"
    r"|\Ayou(?:['’]re| are) (?:absolutely |quite )?right\b",
    re.IGNORECASE,
)
_ANNOUNCED = re.compile(
    r"\A(?:(?:sure|certainly|of course|okay)[,!.] )?(?:here(?:['’]s| is)|below is|this is) (?:the|my|a|an) "
    r"(?:\w+ )?(?:revised|corrected|updated|improved|new) [^.\n:]{0,60}[:.]\Z"
    rf"|\A\**(?:revision|{_REVISED})(?: \d+)?\**:\**\Z"
    rf"|\A(?:the|my) {_REVISED} is(?: as follows)?:\Z"
    r"|\A(?:(?:sure|certainly|of course)[,!.] )?i(?:['’]d| would) be (?:happy|glad) to revise\b[^\n:]{0,60}[.!:]\Z",
    re.IGNORECASE,
)
_EAGER = re.compile(r"\A(?:sure|certainly|of course|absolutely|okay)[!.]\Z", re.IGNORECASE)
_LABEL = re.compile(rf"\A\**(?:revision|{_REVISED})(?: \d+)?\**:\**[ \t]*", re.IGNORECASE)
_AFTERWORD = re.compile(
    rf"\A(?:i hope )?(?:this|the|my) (?:revision|{_REVISED}) (?:should |now |also )*"
    r"(?:address|correct|fix|improve|incorporate|clarif|include|provide|is better|meets|helps|satisf)",
    re.IGNORECASE,
)
_UNABLE = r"i (?:can ?not|can['’]t|am unable to|am not able to|won['’]t)"
_REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial)[\w ]*(?:model|assistant)\b[^.!?]{0,80}\b(?:can ?not|can['’]t|unable|do not|don['’]t)"
    rf"|\A(?:{_SORRY}[,.]? (?:but )?)?(?:unfortunately, )?{_UNABLE} "
    r"(?:help|assist|provide|fulfil|comply|answer|create|generate|access|do that|complete)"
    rf"|\A{_SORRY}[,.]? (?:but )?(?:i (?:can|do|am|don|could)|there is not enough|this|the (?:question|instruction))",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"\W*n/a\W*\Z|\W*not applicable\W*\Z", re.IGNORECASE)
_LONGEST_REFUSAL = 700  # characters; a long text with such a sentence has more to say


@dataclass(frozen=True)
class Edit:
    """A piece that was taken out of a text, and where it stood in what is left."""

    kind: str  # "apology", "announcement", "afterword"
    at: int
    removed: str


def clean(text: str) -> tuple[str, tuple[Edit, ...]]:
    """The text without apologies, thanks and announcements at its start and a remark on itself at its end.

    A text that is nothing else stays as it is.
    """
    edits: list[Edit] = []
    left = text
    while (found := _opening(left)) is not None:
        kind, end = found
        edits.append(Edit(kind, 0, left[:end]))
        left = left[end:]
    if (start := _closing(left)) is not None:
        edits.append(Edit("afterword", start, left[start:]))
        left = left[:start]
    return (left, tuple(edits)) if left.strip() else (text, ())


def restore(text: str, edits: Sequence[Edit]) -> str:
    """The text as it was before ``clean``."""
    for edit in reversed(edits):
        text = text[: edit.at] + edit.removed + text[edit.at :]
    return text


def is_refusal(text: str) -> bool:
    """Whether an answer says that it gives none: "N/A", or a short text that begins with a refusal."""
    stripped = text.strip()
    if _NOTHING.match(stripped):
        return True
    if len(stripped) > _LONGEST_REFUSAL or "```" in stripped:
        return False
    return any(_REFUSAL.search(stripped[start:end]) for start, end in sentence_spans(stripped)[:2])


def _opening(text: str) -> tuple[str, int] | None:
    """What is to go at the start, and where what stays begins."""
    spans = sentence_spans(text)
    if not spans:
        return None
    start, end = spans[0]
    sentence = text[start:end]
    following = spans[1][0] if len(spans) > 1 else len(text)
    if _REFUSAL.search(sentence):
        return None
    if _APOLOGY.search(sentence) and len(sentence) < 300 and "```" not in sentence:
        return "apology", following
    if _THANKS.search(sentence):
        return "apology", following
    if _ANNOUNCED.search(sentence):
        return "announcement", following
    if _EAGER.search(sentence) and len(spans) > 1 and _ANNOUNCED.search(text[slice(*spans[1])]):
        return "announcement", following
    label = _LABEL.match(sentence)
    return ("announcement", start + label.end()) if label else None


def _closing(text: str) -> int | None:
    spans = sentence_spans(text)
    if len(spans) < 2:
        return None
    start, end = spans[-1]
    return spans[-2][1] if _AFTERWORD.search(text[start:end]) else None
