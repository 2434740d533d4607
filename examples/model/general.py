"""Ordinary questions: short answers that are accepted at once, and the same answers damaged, criticised and restored.

What feedback says about them is only what a program has looked at: whether the answer ends, repeats itself, or has a
word in common with the question. Whether it is true, nobody checks.
"""

from __future__ import annotations

import random
import re

Draw = random.Random

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[A-Za-z]{4,}")
_COMMON = frozenset(
    [
        "about",
        "after",
        "also",
        "answer",
        "before",
        "being",
        "between",
        "could",
        "describe",
        "does",
        "each",
        "explain",
        "following",
        "from",
        "give",
        "given",
        "have",
        "here",
        "into",
        "just",
        "like",
        "make",
        "many",
        "more",
        "most",
        "much",
        "name",
        "only",
        "other",
        "some",
        "such",
        "than",
        "that",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "three",
        "very",
        "what",
        "when",
        "where",
        "which",
        "while",
        "will",
        "with",
        "would",
        "write",
        "your",
        "list",
        "tell",
        "short",
        "simple",
        "sentence",
    ]
)

FORMS: dict[str, tuple[str, ...]] = {
    "Explain in a few sentences {}.": (
        "how rain forms",
        "why the sea is salty",
        "how a bicycle stays upright",
        "what a black hole is",
        "why leaves change colour in autumn",
        "how vaccines work",
        "what inflation means",
        "how bees make honey",
        "why we need sleep",
        "how a refrigerator cools",
    ),
    "Give me three tips for {}.": (
        "learning a new language",
        "saving money",
        "a job interview",
        "sleeping better",
        "growing tomatoes",
        "staying focused at work",
        "travelling with little luggage",
        "making new friends",
    ),
    "What is the difference between {}?": (
        "a virus and a bacterium",
        "weather and climate",
        "a lake and a pond",
        "a loan and a gift",
        "tea and coffee",
        "a novel and a short story",
        "speed and velocity",
        "butter and margarine",
    ),
    "Write a short poem about {}.": ("the sea", "an old clock", "snow in the city", "a lost key", "friendship"),
    "Write a short email {}.": (
        "to thank a colleague for help",
        "to ask a landlord to repair a window",
        "to invite friends to a picnic",
        "to say that you will be late for a meeting",
        "to cancel a hotel booking",
        "to apply for a summer job",
    ),
    "Imagine you are {}. What would you say to a visitor?": (
        "a lighthouse keeper",
        "a talking tree",
        "a museum guard",
        "the captain of an airship",
        "a retired detective",
    ),
    "What would happen if {}?": (
        "the moon were twice as close",
        "nobody had to work",
        "all clocks stopped",
        "people could read minds",
        "the internet had never been invented",
        "cats could speak",
    ),
    "How can somebody {}?": (
        "tell whether an egg is fresh",
        "find north without a compass",
        "remember names better",
        "reduce food waste",
        "prepare for a long hike",
        "notice that a website is a fraud",
        "calm down before an exam",
    ),
    "Who was {}, and why is this person remembered?": (
        "Marie Curie",
        "Galileo Galilei",
        "Florence Nightingale",
        "Johannes Gutenberg",
        "Ada Lovelace",
        "Mozart",
    ),
    "Write a short story that begins with: {}": (
        "The door had never been locked before.",
        "It was the last train of the night.",
        "Nobody remembered planting the tree.",
        "The letter arrived thirty years late.",
    ),
    "Estimate {}, and say how you came to it.": (
        "how many piano teachers live in a large city",
        "how much water a family uses in a year",
        "how many books a person can read in a lifetime",
        "how many steps people walk in ten years",
    ),
    "Write a Python function that {}.": (
        "returns the largest number of a list",
        "counts the vowels in a text",
        "says whether a year is a leap year",
        "turns a list around",
        "adds the digits of a number",
    ),
}
"""Questions that were written for this training set; their answers come from the base model itself."""


def questions() -> list[str]:
    """All of them, in a fixed order."""
    return [form.format(topic) for form, topics in FORMS.items() for topic in topics]


def is_whole(text: str) -> bool:
    """Whether a text ends like one that was finished."""
    return bool(text.strip()) and text.rstrip()[-1] in ".!?)\"'`”’:;]}0123456789*"


def whole_part(text: str, most: int) -> str:
    """The first paragraphs and sentences of a text, in at most ``most`` characters; "" if not one fits."""
    if len(text) <= most and is_whole(text) and text.count("```") % 2 == 0:
        return text.strip()
    cut = text[:most]
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)|\n```(?=\n|$)", cut)]
    return cut[: ends[-1]].strip() if ends and cut.count("```") % 2 == 0 else ""


def shared_word(question: str, answer: str) -> str | None:
    """The longest word of the question that the answer has too, leaving common ones aside."""
    answered = {word.lower() for word in _WORD.findall(answer)}
    found = [word for word in _WORD.findall(question) if word.lower() in answered and word.lower() not in _COMMON]
    return max(found, key=len, default=None)


def repeats_itself(text: str) -> bool:
    """Whether a sentence, or five words in a row, stand in a text twice."""
    words = text.lower().split()
    runs = [tuple(words[place : place + 5]) for place in range(len(words) - 4)]
    return len(set(runs)) < len(runs)


def accept(question: str, answer: str, draw: Draw) -> str:
    """Feedback that accepts; it says what was looked at."""
    sentences = len(_SENTENCE.split(answer))
    size = "one sentence" if sentences == 1 else f"{sentences} sentences"
    word = shared_word(question, answer)
    about = f'It speaks of "{word}", as asked' if word else "It keeps to the question"
    praise = [
        f"{about}, and it does not break off.",
        f"The answer is whole: {size}, the last one finished. {about}.",
    ]
    if not repeats_itself(answer):
        praise.append(f"{about}. Nothing is said twice, and the end is there.")
    said = draw.choice(praise)
    return f"{said} Revision is not needed."


def damage(question: str, answer: str, other: str, draw: Draw) -> tuple[str, str] | None:
    """A worse answer and the feedback that says what is wrong with it; None if this answer cannot be damaged."""
    kind = draw.choice(("cut", "cut", "repeat", "other"))
    words = answer.split(" ")
    if kind == "cut" and len(words) > 14:
        worse = " ".join(words[: draw.randint(len(words) // 3, len(words) * 3 // 4)]).rstrip(".!?,;: \n")
        last = " ".join(worse.split()[-4:]).replace('"', "")
        return worse, f'The answer breaks off after "{last}". It must be finished. Revision is needed.'
    sentences = _SENTENCE.split(answer)
    if kind == "repeat" and len(sentences) > 1 and "```" not in answer:
        place = draw.randrange(min(3, len(sentences)))
        worse = " ".join([*sentences[: place + 1], sentences[place], sentences[place]])
        first = " ".join(sentences[place].split()[:6]).replace('"', "")
        return (
            worse,
            f'The sentence that begins "{first}" stands there three times. Say it once and go on. Revision is needed.',
        )
    word = shared_word(question, answer)
    if word and word.lower() not in other.lower():
        return other, f'The answer is about something else: it does not even mention "{word}". Revision is needed.'
    return None
