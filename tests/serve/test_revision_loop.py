"""Table R of the catalogue: the loop as a client sees it, whatever the model writes."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.serve.harness import (
    CONTENT,
    CRITICAL,
    FIRST,
    QUESTION,
    SECOND,
    TARGET,
    Running,
    refused,
    scripted,
    serving,
)

from selfee.chain.policy import RevisionPolicy
from selfee.engines.base import FinishReason
from selfee.engines.scripted import Reply


def chain_of(server: Running, **fields: Any) -> dict[str, Any]:
    """The message's ``selfee``, with its content."""
    message = server.chat(**fields)["choices"][0]["message"]
    told: dict[str, Any] = message["selfee"]
    return told | {"content": message["content"]}


def kinds(chain: dict[str, Any]) -> list[str]:
    return [segment["type"][0] for segment in chain["chain"]]


@pytest.mark.parametrize("size", [1, 2, 5, 13])
def test_r1_a_verdict_split_over_pieces_is_read(size: int) -> None:
    with serving(scripted(Reply(TARGET, chunks=size))) as server:
        chain = chain_of(server)
    assert kinds(chain) == ["a", "f", "r", "f"]
    assert chain["content"] == SECOND


@pytest.mark.parametrize("mention", ['He wrote "Revision is not needed."', "`Revision is not needed.`"])
def test_r2_a_verdict_in_quotes_or_code_is_only_mentioned(mention: str) -> None:
    target = TARGET.replace(CRITICAL, f"{mention} That is wrong. Revision is needed.")
    with serving(scripted(target)) as server:
        assert chain_of(server)["content"] == SECOND


@pytest.mark.parametrize(
    "verdict",
    [
        "Revision is not needed.",
        "revision is not needed.",
        "No revision is needed.",
        "REVISION IS NOT NEEDED.",
        "No further revision is needed.",
        "Revision isn't needed.",
    ],
)
def test_r3_every_spelling_of_content_ends_the_chain(verdict: str) -> None:
    with serving(scripted(f"{FIRST}\n\n### Feedback 1:\nGood. {verdict}")) as server:
        chain = chain_of(server)
    assert (chain["content"], chain["stop_cause"]) == (FIRST, "autonomous")


def test_r4_a_minimum_above_the_maximum_is_refused(server: Running) -> None:
    options = {"min_revisions": 3, "max_revisions": 2}
    refused(server.post("/v1/chat/completions", {"messages": [QUESTION], "selfee": options}), 400, "min_revisions")
    refused(server.post("/v1/selfee/chat", {"messages": [QUESTION]} | options), 400, "min_revisions")


def test_r5_enforced_revisions_are_made_or_it_is_said_why() -> None:
    rounds = [f"Answer {number}.\n\n### Feedback {number + 1}:\n{CONTENT}" for number in range(4)]
    with serving(scripted(*rounds)) as server:
        chain = chain_of(server, selfee={"min_revisions": 3})
    assert kinds(chain).count("r") == 3
    assert chain["enforced"] == 3
    short = f"{FIRST}\n\n### Feedback 1:\n{CONTENT}"
    with serving(scripted(short, Reply("Cut", finish_reason=FinishReason.CONTEXT))) as server:
        chain = chain_of(server, selfee={"min_revisions": 3})
    assert "3 revisions were enforced" in chain["status"]
    assert chain["content"] == FIRST


def test_r6_a_model_that_never_stops_is_capped() -> None:
    with serving(scripted(Reply("and so on " * 5000))) as server:
        choice = server.chat(max_tokens=50)["choices"][0]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["content"].split()) <= 50


def test_r7_a_chain_that_stalls_says_so() -> None:
    same = TARGET.replace(SECOND, FIRST)
    with serving(scripted(same)) as server:
        chain = chain_of(server)
    assert (chain["stop_cause"], chain["content"]) == ("stalled", FIRST)
    with serving(scripted(f"{FIRST}\n\n### Feedback 1:\n")) as server:
        assert chain_of(server)["content"] == FIRST


def test_r8_a_full_context_gives_the_last_whole_answer() -> None:
    cut = TARGET[: TARGET.index(SECOND) + 10]
    with serving(scripted(Reply(cut, finish_reason=FinishReason.CONTEXT))) as server:
        choice = server.chat()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == FIRST
    assert choice["message"]["selfee"]["truncated"] is True


def test_r9_a_text_that_ends_without_feedback_is_accepted() -> None:
    with serving(scripted(FIRST)) as server:
        chain = chain_of(server)
    assert (chain["content"], chain["stop_cause"], kinds(chain)) == (FIRST, "autonomous", ["a"])


@pytest.mark.parametrize("header", ["### Revision1:", "###Revision 1:", "### Revision 1 :"])
def test_r10_other_spellings_of_headers_are_read(header: str) -> None:
    with serving(scripted(TARGET.replace("### Revision 1:", header))) as server:
        assert kinds(chain_of(server)) == ["a", "f", "r", "f"]


def test_r11_the_same_seed_gives_the_same_chain_alone_and_in_company(tiny_server: Running) -> None:
    fields: dict[str, Any] = {
        "seed": 11,
        "temperature": 1.0,
        "max_tokens": 40,
        "selfee": {"drive": "guided", "min_revisions": 1},
    }

    def made(seed: int) -> str:
        message = tiny_server.chat(**(fields | {"seed": seed}))["choices"][0]["message"]
        return str([(segment["type"], segment["text"]) for segment in message["selfee"]["chain"]])

    alone = made(11)
    together: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: together.update({seed: made(seed)})) for seed in (9, 10, 11, 12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together[11] == alone
    assert len(set(together.values())) > 1


@pytest.mark.parametrize("kind", ["answer", "feedback", "revision"])
def test_r12_a_chain_is_cancelled_in_every_section(kind: str) -> None:
    with serving(scripted(delay=0.02)) as server:
        with server.client.stream("POST", "/v1/chat/completions", json={"messages": [QUESTION], "stream": True}) as got:
            for line in got.iter_lines():
                if f'"type":"{kind}"' in line and '"event":"delta"' in line:
                    break
        server.wait_idle(2.0)
        assert server.engine.cancelled == 1


def test_r13_a_stop_string_does_not_end_feedback() -> None:
    with serving(scripted(TARGET, f"{SECOND}\n\n### Feedback 2:\n{CONTENT}")) as server:
        chain = chain_of(server, stop=["cause"])
    assert chain["chain"][1]["text"] == CRITICAL
    assert chain["content"] == SECOND


def test_defaults_of_the_server_hold_where_a_request_is_silent() -> None:
    with serving(policy=RevisionPolicy(0, 0)) as server:
        assert chain_of(server)["content"] == FIRST
        assert chain_of(server, selfee={"max_revisions": 2})["content"] == SECOND
