"""A question within a conversation: every way of driving a model tells it what was said before."""

from __future__ import annotations

import pytest

from selfee.chain.format import render_prompt
from selfee.chain.policy import RevisionPolicy
from selfee.chain.prompts import PROMPT_SETS
from selfee.chain.record import to_answer, to_dataset
from selfee.chain.run import Mode, run_chain
from selfee.chain.types import Chain, Exchange, Instruction
from selfee.engines.base import ChatRequest, Request
from selfee.engines.scripted import ScriptedEngine
from selfee.errors import UsageError

TOLD = (Exchange("Name a llama.", "Pablo."), Exchange("And a cat?", "Tom."))
ASK = Instruction("Who is older?", history=TOLD)
CONTENT = "Score: 9/10. Revision is not needed."
WANTS = "Score: 5/10. Revision is needed."


class Chatter(ScriptedEngine):
    """A chat model that neither scores nor completes text."""


def run(engine: ScriptedEngine, ask: Instruction, mode: Mode, **options: object) -> Chain:
    return run_chain(engine, ask, RevisionPolicy(0, 1), mode=mode, **options)  # type: ignore[arg-type]


def test_the_text_format_repeats_instruction_and_answer_as_the_original_did() -> None:
    opening = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    )
    assert render_prompt(ASK) == (
        f"{opening}\n\n### Instruction:\nName a llama.\n\n### Answer:\nPablo.\n\n### Instruction:\nAnd a cat?\n\n"
        "### Answer:\nTom.\n\n### Instruction:\nWho is older?\n\n### Answer:\n"
    )
    assert render_prompt(Instruction("Hi", system="Be brief.")) == (
        "Be brief.\n\n### Instruction:\nHi\n\n### Answer:\n"
    )


def test_the_answerer_sees_the_conversation_as_turns_and_the_critic_as_text() -> None:
    with ScriptedEngine(["Tom", WANTS, "Pablo", CONTENT]) as engine:
        chain = run(engine, ASK, "turns")
    sent = [request.messages for request in engine.requests if isinstance(request, ChatRequest)]
    asked = [(message.role, message.content) for message in sent[0]]
    assert asked == [
        ("user", "Name a llama."),
        ("assistant", "Pablo."),
        ("user", "And a cat?"),
        ("assistant", "Tom."),
        ("user", "Who is older?"),
    ]
    assert "User: And a cat?\n\nAssistant: Tom.\n\nUser: Who is older?" in sent[1][1].content
    assert [(message.role, message.content) for message in sent[2][:5]] == asked
    assert "Name a llama." not in sent[2][-1].content, "the reviser has followed the conversation"
    assert chain.instruction == ASK


@pytest.mark.parametrize("prompts", sorted(PROMPT_SETS))
def test_a_system_text_takes_the_place_of_the_answerers_own(prompts: str) -> None:
    ask = Instruction("Who is older?", history=TOLD, system="Speak like a pirate.")
    with ScriptedEngine(["Tom", CONTENT]) as engine:
        run(engine, ask, "turns", prompts=prompts)
    first, second = (request.messages for request in engine.requests[:2] if isinstance(request, ChatRequest))
    assert [message.content for message in first if message.role == "system"] == ["Speak like a pirate."]
    assert all(message.content != "Speak like a pirate." for message in second), "the critic keeps its own"
    assert any("Tom." in message.content for message in second)


@pytest.mark.parametrize("mode", ["guided", "single-pass"])
def test_a_completion_model_reads_the_conversation_in_the_text_format(mode: Mode) -> None:
    with ScriptedEngine(["Tom", CONTENT] if mode == "guided" else [f"Tom\n\n### Feedback 1:\n{CONTENT}"]) as engine:
        run(engine, ASK, mode)
    request = engine.requests[0]
    assert isinstance(request, Request)
    assert request.prompt.endswith(render_prompt(ASK))


def test_the_original_formats_refuse_what_they_cannot_hold() -> None:
    with ScriptedEngine(["Tom", CONTENT]) as engine:
        chain = run(engine, ASK, "turns")
    with pytest.raises(UsageError, match="conversation"):
        to_dataset(chain)
    with pytest.raises(UsageError, match="conversation"):
        to_answer(chain, 1, "a", "m")
