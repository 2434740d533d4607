"""The page with a real small model, and with two models side by side."""

from __future__ import annotations

from typing import Any

import pytest
from tests.serve.web.site import CRITIC, FIRST, SECOND, Site, story
from tests.serve.web.test_page import ask, finished, titles

from selfee.engines.base import Request
from selfee.engines.open import open_engine
from selfee.engines.scripted import Reply, Rule, ScriptedEngine
from selfee.errors import UsageError

pytestmark = pytest.mark.slow


def test_a_real_model_answers_criticises_and_revises(open_page: Any) -> None:
    try:
        engine = open_engine("smollm2-135m", context_length=2048)
    except UsageError as error:
        pytest.skip(f"{error}")
    with Site(engine, mode="guided") as site:
        page = open_page(site.url)
        page.set_default_timeout(180_000)
        page.click("#settings-open")
        for name, value in {"min-revisions": 1, "max-revisions": 1, "max-tokens": 64, "feedback-tokens": 48}.items():
            page.locator(f"#{name}").fill(str(value))
        page.fill("#seed", "3")
        page.press("#seed", "Tab")
        page.click("#settings [data-close].primary")
        ask(page, "Say one sentence about the sea.")
        assert titles(page)[:2] == ["Answer", "Feedback 1"]
        assert page.locator(".segment.final .body").text_content().strip()
        assert "token" in page.locator(".chain-head .total").text_content()
    engine.close()


def test_two_models_answer_side_by_side_and_the_reader_prefers_one(open_page: Any) -> None:
    other = ScriptedEngine(
        rules=[Rule(Reply("It just is.", delay=0.01), ends_with="### Answer:\n"), Rule("Revision is not needed.")],
        name="terse",
        strict=False,
    )
    with Site(story(), other) as site:
        page = open_page(site.url)
        page.click("#compare")
        assert page.input_value("#model-1") == "storyteller"
        assert page.input_value("#model-2") == "terse"
        ask(page, wait=False)
        page.wait_for_selector(".preference button")
        assert page.locator(".columns-2 .chain").count() == 2
        assert page.locator(".columns-2 .model").all_text_contents() == ["storyteller", "terse"]
        finals = page.locator(".segment.final .body").all_text_contents()
        assert finals[0].startswith("The sky is blue because air scatters")
        assert finals[1] == "It just is."
        page.click(".preference button:has-text('Left is better')")
        page.reload()
        page.wait_for_selector(".preference [aria-pressed=true]:has-text('Left is better')")
        # Each model goes on with its own answers.
        if page.get_attribute("#compare", "aria-pressed") != "true":
            page.click("#compare")
        ask(page, "And at sunset?", wait=False)
        page.wait_for_selector(".turn:nth-child(2) .preference button")
        last = other.requests[-1]
        assert isinstance(last, Request)
        assert SECOND in site.engine.requests[-1].prompt
        assert "It just is." in last.prompt
        assert "It just is." not in site.engine.requests[-1].prompt
        assert FIRST not in site.engine.requests[-1].prompt
        assert CRITIC not in last.prompt


def test_a_server_that_wants_a_key_is_given_one_for_this_tab_alone(open_page: Any, browser: Any) -> None:
    from selfee.serve.config import Access, ServerConfig

    config = ServerConfig(access=Access(("right-key-of-tests",)))
    with Site(story(), config=config) as site:
        context = browser.new_context(http_credentials={"username": "me", "password": "right-key-of-tests"})
        page = context.new_page()
        page.goto(site.url)
        page.wait_for_selector("#model-1 option", state="attached")
        ask(page)
        finished(page)
        assert page.evaluate("() => Object.keys(localStorage).filter(key => /key/i.test(key)).length") == 0
        context.close()


def test_a_key_is_asked_for_where_only_the_api_wants_one(open_page: Any) -> None:
    """As behind a proxy that serves the page to all: the page asks, and keeps the key for this tab."""
    with Site(story()) as site:
        page = open_page(site.url)

        def demand(route: Any) -> None:
            key = route.request.headers.get("authorization")
            if key == "Bearer right-key-of-tests":
                route.continue_()
            else:
                error = {"message": "key: is missing", "type": "authentication_error", "param": None, "code": None}
                route.fulfill(status=401, json={"error": error})

        page.route("**/v1/**", demand)
        page.reload()
        page.wait_for_selector("#key[open]")
        page.fill("#key-text", "wrong")
        page.press("#key-text", "Enter")
        page.wait_for_selector("#key[open] #key-wrong:not([hidden])")
        page.fill("#key-text", "right-key-of-tests")
        page.click("#key button[value=use]")
        page.wait_for_selector("#model-1 option", state="attached")
        ask(page)
        stored = page.evaluate("() => JSON.stringify(localStorage)")
        assert "right-key-of-tests" not in stored
        assert page.evaluate("() => sessionStorage.getItem('selfee.key')") == "right-key-of-tests"
