"""Texts and chains for laws: ordinary words mixed with everything that looks like structure."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from selfee.chain.format import is_header
from selfee.chain.types import Chain, ChainEnd, Event, Instruction, Section, SectionEnd, Step, TextDelta
from selfee.chain.verdict import find_verdict

FRAGMENTS = (
    *("\n", "\n\n", " ", "\t", "\r\n", "#", "##", "###", "### ", "a", "Blåbär 🫐", "\0"),
    *("### Feedback 1:", "### Feedback 2:", "### Revision 1:", "### Revision1:", "### Revision 2 :", "###Feedback 1:"),
    *(
        "### Answer:",
        "### Step 1",
        "## Heading",
        "\n### Feedback 1:\n",
        "\n\n### Revision 1:\n",
        "### Feedback 1: text",
    ),
    *("Revision is not needed.", "No revision is needed", "Revision is needed.", "Novision is needed.", "if ", "?"),
    *("```", "`", '"', "'", "The answer is good", ". ", "8/10", "no ", "don't think ", "classify it as "),
)


def texts(max_size: int = 8) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(FRAGMENTS), max_size=max_size).map("".join)


def _without(section: Section, number: int) -> st.SearchStrategy[str]:
    """Texts that hold no line which would be read as the header of this section."""
    return texts().filter(lambda text: not any(is_header(line, section, number) for line in text.split("\n")))


@st.composite
def chains(draw: st.DrawFn, max_revisions: int = 3) -> Chain:
    """Chains as a parser gives them: verdicts are those of the feedback; the last section is finished."""
    count = draw(st.integers(1, max_revisions + 1))
    steps = []
    for index in range(count):
        answer = draw(_without(Section.FEEDBACK, index + 1))
        has_feedback = index + 1 < count or draw(st.booleans())
        feedback = draw(_without(Section.REVISION, index + 1)) if has_feedback else None
        steps.append(Step(answer, feedback, find_verdict(feedback) if feedback is not None else None))
    return Chain(Instruction("Why?"), tuple(steps), ChainEnd.ACCEPTED)


@st.composite
def cuts(draw: st.DrawFn, text: str) -> list[str]:
    """A text cut into pieces anywhere, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def merge_deltas(events: Iterable[Event]) -> list[Event]:
    """The events with neighbouring deltas joined: what must not depend on how a text was cut."""
    merged: list[Event] = []
    for event in events:
        if isinstance(event, TextDelta) and merged and isinstance(merged[-1], TextDelta):
            merged[-1] = TextDelta(merged[-1].text + event.text)
        else:
            merged.append(event)
    return merged


def section_texts(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, SectionEnd)]
