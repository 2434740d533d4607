"""Completions with a field ``selfee``: the whole chain is the text that follows a prompt in SelFee's words."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import Completion
from tests.serve.harness import CONTENT, FIRST, QUESTION, SECOND, TARGET, Running, ok, refused, scripted, serving
from tests.serve.schema import valid

from selfee.chain.format import render_prompt
from selfee.chain.types import Instruction
from selfee.engines.scripted import Reply

PATH = "/v1/completions"
PROMPT = render_prompt(Instruction(QUESTION["content"]))


def text_of(server: Running, **fields: Any) -> str:
    """The text of one completion, whole; streamed it must be the same."""
    row = ok(server.post(PATH, {"prompt": PROMPT} | fields))
    valid(Completion, row)
    text = str(row["choices"][0]["text"])
    chunks = server.chunks(PATH, prompt=PROMPT, **fields)
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == text
    assert chunks[-1]["choices"][0]["finish_reason"] == row["choices"][0]["finish_reason"] == "stop"
    return text


def test_the_text_is_the_whole_chain_as_the_model_wrote_it(server: Running) -> None:
    assert text_of(server, selfee={}) == TARGET
    assert text_of(server, selfee={}, echo=True) == PROMPT + TARGET


def test_other_views_show_the_final_answer(server: Running) -> None:
    assert text_of(server, selfee={"view": "final"}) == SECOND
    inline = text_of(server, selfee={"view": "inline"})
    assert inline.startswith("**Answer**")
    assert inline.endswith(f"---\n\n{SECOND}")


def test_revisions_are_enforced_by_field_or_by_the_model_s_name() -> None:
    for asked in ({"selfee": {"min_revisions": 1}}, {"model": "script:rev1"}):
        written = Reply(f"{FIRST}\n\n### Feedback 1:\n{CONTENT}")
        with serving(scripted(written, Reply(SECOND))) as server:
            row = ok(server.post(PATH, {"prompt": PROMPT} | asked))
        choice = row["choices"][0]
        assert choice["text"] == f"{FIRST}\n\n### Feedback 1:\n{choice['selfee']['chain'][1]['text']}" + (
            f"\n\n### Revision 1:\n{SECOND}"
        )
        assert choice["selfee"]["chain"][1]["text"].endswith("Revision is needed.")
        assert (choice["selfee"]["enforced"], choice["selfee"]["final"]) == (1, 1)
        assert row["usage"]["selfee"] == {"enforced": 1, "revisions": 1}


def test_off_is_the_text_continued_as_it_stands(server: Running) -> None:
    told = [
        ok(server.post(PATH, {"prompt": "any words", "max_tokens": 1000, "selfee": {"mode": "off"}})),
        ok(server.post(PATH, {"prompt": "any words", "max_tokens": 1000})),
    ]
    assert [row["choices"][0]["text"] for row in told] == [TARGET] * 2
    assert server.engine.requests[-2].prompt == server.engine.requests[-1].prompt == "any words"


def test_several_choices_are_several_chains(server: Running) -> None:
    row = ok(server.post(PATH, {"prompt": PROMPT, "n": 2, "selfee": {}}))
    assert [choice["index"] for choice in row["choices"]] == [0, 1]
    assert len({choice["selfee"]["seed"] for choice in row["choices"]}) == 2
    texts = ["", ""]
    for chunk in server.chunks(PATH, prompt=PROMPT, n=2, selfee={}, stream_options={"include_usage": True}):
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [TARGET] * 2
    assert chunk["choices"] == []
    assert chunk["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "Why is the sky blue?"}, "prompt"),
        ({"prompt": PROMPT + FIRST}, "prompt"),
        ({"prompt": [PROMPT, PROMPT]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"logprobs": 1}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"max_tokens": 0, "echo": True}, "max_tokens"),
        ({"selfee": {"min_revisions": 3, "max_revisions": 2}}, "min_revisions"),
        ({"n": 100}, "n"),
    ],
)
def test_what_no_chain_can_be_made_of_is_refused(server: Running, fields: dict[str, Any], param: str) -> None:
    refused(server.post(PATH, {"prompt": PROMPT, "selfee": {}} | fields), 400, param)


def test_a_failure_in_the_middle_is_told_and_no_end_follows() -> None:
    broken = Reply(TARGET, error="it broke", error_after=20)
    with serving(scripted(broken)) as server:
        body = {"prompt": PROMPT, "selfee": {}, "stream": True}
        with server.client.stream("POST", PATH, json=body) as response:
            said = response.read().decode()
    assert "it broke" in said
    assert "[DONE]" not in said
