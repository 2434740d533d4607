"""The page in a real browser, against the real application: a revising conversation and everything a reader may do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.serve.web.site import CONTENT, CRITIC, FIRST, SECOND, THIRD, Relay, Site, says, story

from selfee.engines.base import Request

pytestmark = pytest.mark.slow

QUESTION = "Why is the sky blue?"
TITLES = ".segment h3"


def ask(page: Any, question: str = QUESTION, *, wait: bool = True) -> None:
    page.fill("#ask", question)
    page.press("#ask", "Enter")
    if wait:
        finished(page)


def finished(page: Any) -> None:
    page.wait_for_selector(".turn:last-child .chain[aria-busy='false'] .segment.final")


def titles(page: Any, within: str = "") -> list[str]:
    found: list[str] = page.locator(f"{within} {TITLES}").all_text_contents()
    return found


def plain(text: str) -> str:
    """A text without the marks of Markdown and line breaks, as a page shows it."""
    return re.sub(r"\s+", " ", re.sub(r"[*_]", "", re.sub(r"\n\d+\. ", " ", text))).strip()


def body(page: Any, title: str) -> str:
    item = page.locator(".segment", has=page.get_by_role("heading", name=title, exact=True)).last
    return re.sub(r"\s+", " ", item.locator(".body").text_content()).strip()


def test_a_question_is_answered_criticised_and_revised_before_the_readers_eyes(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    ask(page, wait=False)
    page.wait_for_selector(".segment.open .dot")
    page.wait_for_selector("[aria-busy='true'] .segment:nth-child(3)")
    finished(page)
    assert titles(page) == ["Answer", "Feedback 1", "Revision 1", "Feedback 2"]
    chips = page.locator(".segment .chip").all_text_contents()
    assert chips[0] == "Revision needed"
    assert re.fullmatch(r"\+\d+ −\d+ words", chips[1])
    assert chips[2:] == ["Final answer", "Content"]
    assert body(page, "Feedback 1") == plain(CRITIC)
    assert body(page, "Feedback 2") == plain(CONTENT)
    assert page.locator(".segment.final strong").first.text_content() == "air scatters short waves of light"
    assert re.search(r"\d+ tokens · \d+\.\d s", page.locator(".segment .meta").first.text_content())
    assert page.locator(".chain-foot .status").text_content() == "The model is content."
    assert page.locator(".ribbon li.final").text_content() == "Revision 1"


def test_the_next_question_is_asked_with_the_answers_delivered_and_nothing_else(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    ask(page)
    ask(page, "And at sunset?")
    engine = site.engine
    last = engine.requests[-1]
    assert isinstance(last, Request)
    assert SECOND in last.prompt
    assert FIRST not in last.prompt
    assert CRITIC not in last.prompt
    assert len(page.query_selector_all(".turn")) == 2


def test_stopping_keeps_the_last_finished_answer(open_page: Any) -> None:
    with Site(story(0.08)) as site:
        page = open_page(site.url)
        ask(page, wait=False)
        page.wait_for_selector(".segment.revision.open .body p")
        page.keyboard.press("Escape")
        finished(page)
        assert page.locator(".segment.final h3").text_content() == "Answer"
        assert page.locator(".segment.unfinished h3").text_content() == "Revision 1"
        assert page.locator(".chain-foot .status").text_content() == "Stopped by you."
        assert site.engine.cancelled == 1


def test_a_persons_own_feedback_leads_to_a_revision(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    ask(page)
    page.click("[data-act='feedback']")
    page.fill(".own-feedback textarea", "Shorter, please. <b>One</b> paragraph.")
    page.press(".own-feedback textarea", "Control+Enter")
    page.wait_for_selector("text=Revision 2")
    finished(page)
    assert (
        titles(page)
        == ["Answer", "Feedback 1", "Revision 1", "Your feedback 2", "Revision 2", "Feedback 3"][: len(titles(page))]
    )
    assert titles(page)[3] == "Your feedback 2"
    assert "Shorter, please. <b>One</b> paragraph." in body(page, "Your feedback 2")
    assert page.locator(".segment.final h3").text_content() == "Revision 2"
    assert body(page, "Revision 2") == plain(THIRD)
    assert "Shorter, please. <b>One</b> paragraph." in site.engine.requests[-1].prompt


def test_feedback_may_also_be_given_while_the_model_writes(open_page: Any) -> None:
    with Site(story(0.08)) as site:
        page = open_page(site.url)
        ask(page, wait=False)
        page.wait_for_selector(".segment.feedback.open .body p")
        page.click("[data-act='feedback']")
        page.fill(".own-feedback textarea", "Say it in one sentence.")
        page.click(".own-feedback .primary")
        page.wait_for_selector("text=Your feedback 1")
        finished(page)
        assert titles(page)[:3] == ["Answer", "Your feedback 1", "Revision 1"]


def test_one_more_revises_a_content_answer_and_an_earlier_one_may_be_taken(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    ask(page)
    page.click("[data-act='more']")
    page.wait_for_selector("text=Revision 2")
    finished(page)
    assert "Content – revised on your rule" in page.locator(".segment .chip").all_text_contents()
    assert body(page, "Revision 2") == plain(THIRD)
    page.click("[aria-label='Take Answer as the final answer']")
    page.wait_for_selector(".segment.final h3:text-is('Answer')")
    assert page.locator(".chain-foot .status").text_content() == "Accepted by you."


def test_accepting_ends_a_chain_while_it_is_written(open_page: Any) -> None:
    with Site(story(0.08)) as site:
        page = open_page(site.url)
        ask(page, wait=False)
        page.wait_for_selector(".segment.feedback.open .body p")
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("a")
        finished(page)
        assert page.locator(".segment.final h3").text_content() == "Answer"
        assert page.locator(".chain-foot .status").text_content() == "Accepted by you."


def test_what_changed_is_shown_for_a_revision_and_for_any_two_versions(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    ask(page)
    page.click("[aria-label='Changes of Revision 1']")
    assert "reflects the ocean" in page.locator(".segment.final del").all_text_contents().__str__()
    shown = page.locator(".segment.final .changes").evaluate(
        "node => [...node.children].filter(c => c.tagName !== 'DEL').map(c => c.textContent).join('')"
    )
    assert shown == SECOND
    page.click("[aria-label='Changes of Revision 1']")
    assert page.locator(".segment.final .changes").count() == 0
    assert page.locator(".segment.final ol li").count() == 3
    page.click("[data-act='more']")
    page.wait_for_selector("text=Revision 2")
    finished(page)
    page.click("[data-act='compare']")
    page.select_option("#compare-from", label="Answer")
    page.select_option("#compare-to", label="Revision 2")
    kept = page.locator("#compare-body .changes").evaluate(
        "node => [...node.children].filter(c => c.tagName !== 'INS').map(c => c.textContent).join('')"
    )
    assert kept == FIRST
    assert re.search(r"\d+ words? added, \d+ removed", page.locator("#compare-counts").text_content())


def test_the_raw_text_can_be_seen(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    ask(page)
    page.click("[data-act='raw']")
    assert page.locator(".segment.final pre").text_content() == SECOND


def test_a_lost_connection_is_said_and_the_chain_taken_up_where_it_was(open_page: Any) -> None:
    with Site(story(0.05)) as site, Relay(site.config.port) as relay:
        page = open_page(relay.url)
        ask(page, wait=False)
        page.wait_for_selector(".segment.feedback.open .body p")
        relay.cut()
        page.wait_for_selector("#banner:has-text('The connection is lost')")
        relay.mend()
        finished(page)
        assert page.locator("#banner").is_hidden()
        assert titles(page) == ["Answer", "Feedback 1", "Revision 1", "Feedback 2"]
        assert body(page, "Feedback 1") == plain(CRITIC)
        assert len(site.engine.requests) == 1


def test_a_restarted_server_goes_on_after_the_last_finished_section(open_page: Any) -> None:
    with Site(story(0.05)) as site:
        page = open_page(site.url)
        ask(page, wait=False)
        page.wait_for_selector(".segment.revision.open .body p")
        site.stop()
        page.wait_for_selector("#banner:has-text('The connection is lost')")
        site.start()
        page.wait_for_selector("#banner:has-text('The server was restarted')")
        finished(page)
        assert titles(page) == ["Answer", "Feedback 1", "Revision 1", "Feedback 2"]
        assert body(page, "Answer") == plain(FIRST)
        assert "air scatters short waves of light" in body(page, "Revision 1")


def test_a_page_that_is_loaded_again_listens_on_to_its_chain(open_page: Any) -> None:
    with Site(story(0.05)) as site:
        page = open_page(site.url)
        ask(page, wait=False)
        page.wait_for_selector(".segment.feedback.open .body p")
        page.reload()
        finished(page)
        assert titles(page) == ["Answer", "Feedback 1", "Revision 1", "Feedback 2"]
        assert body(page, "Feedback 1") == plain(CRITIC)
        assert len(site.engine.requests) == 1


def test_conversations_are_kept_in_the_browser_and_can_be_deleted(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    ask(page)
    page.click("#new")
    assert page.locator("#welcome").is_visible()
    page.reload()
    page.click("#history .open:has-text('Why is the sky blue?')")
    assert titles(page) == ["Answer", "Feedback 1", "Revision 1", "Feedback 2"]
    page.hover("#history li")
    page.click("#history .iconic")
    page.wait_for_selector("#no-history:not([hidden])")
    ask(page)
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#clear")
    page.wait_for_selector("#no-history:not([hidden])")
    page.reload()
    assert page.locator("#history li").count() == 0


def test_nothing_is_kept_where_the_reader_says_so(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    page.click("#settings-open")
    page.uncheck("#keep")
    page.click("#settings [data-close].primary")
    ask(page)
    page.reload()
    assert page.locator("#history li").count() == 0
    assert not page.is_checked("#keep")


def test_settings_are_sent_and_bounds_push_each_other(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    page.click("#settings-open")
    for name, value in {"min-revisions": 5, "temperature": 0.3, "top-p": 0.5, "max-tokens": 64}.items():
        page.locator(f"#{name}").fill(str(value))
    page.fill("#seed", "7")
    page.press("#seed", "Tab")
    page.fill("#system", "Speak plainly.")
    page.press("#system", "Tab")
    assert page.input_value("#max-revisions") == "5"
    page.click("#settings [data-close].primary")
    with page.expect_request("**/v1/selfee/chat") as sent:
        ask(page, wait=False)
    told = json.loads(sent.value.post_data)
    assert (told["min_revisions"], told["max_revisions"]) == (5, 5)
    assert (told["temperature"], told["top_p"], told["seed"]) == (0.3, 0.5, 7)
    assert (told["max_answer_tokens"], told["max_revision_tokens"]) == (64, 64)
    assert told["messages"][0] == {"role": "system", "content": "Speak plainly."}
    page.wait_for_selector(".chain[aria-busy='false']")


def test_a_conversation_is_exported_whole(site: Site, open_page: Any, tmp_path: Path) -> None:
    page = open_page(site.url)
    ask(page)
    page.click("[aria-label='Good answer']")
    for button, name in (("#export-json", "out.json"), ("#export-md", "out.md")):
        page.click("#export")
        with page.expect_download() as download:
            page.click(button)
        download.value.save_as(tmp_path / name)
    told = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    (chain,) = told["turns"][0]["chains"]
    assert chain["vote"] == "up"
    assert chain["final"] == SECOND
    assert [segment["text"] for segment in chain["segments"]] == [FIRST, CRITIC, SECOND, CONTENT]
    assert chain["chain"]["end"] == "accepted"
    text = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert "### Feedback 1 (revision needed)" in text
    assert "### Revision 1 (final answer)" in text


HOSTILE = (
    "<script>window.hit=1</script> <img src=x onerror=window.hit=1> <svg onload=window.hit=1> "
    "[a](javascript:window.hit=1) [b](data:text/html,x) <iframe srcdoc='<script>parent.hit=1</script>'></iframe>\n\n"
    "![i](https://tracker.example/pixel.png)\n\n```<script>\n</code></pre><script>window.hit=1</script>\n```\n\n"
    "| <b onmouseover=window.hit=1>x</b> | y |\n|---|---|\n| 1 | 2 |"
)


def test_hostile_texts_are_shown_and_do_nothing(open_page: Any) -> None:
    with Site(says(HOSTILE, HOSTILE + "\n\nRevision is needed.", HOSTILE + " more", "Revision is not needed.")) as site:
        page = open_page(site.url)
        ask(page, HOSTILE)
        page.click("[aria-label='Changes of Revision 1']")
        page.click("[data-act='raw']")
        page.click("[data-act='raw']")
        page.reload()
        page.wait_for_selector(".segment.final")
        assert page.evaluate("window.hit") is None
        assert page.locator("#conversation :is(script, img, iframe, b, svg:not(.icon))").count() == 0
        links = page.locator("#conversation a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
        assert set(links) <= {"https://tracker.example/pixel.png"}
        assert "<script>window.hit=1</script>" in page.locator(".question [dir=auto]").text_content()
        assert page.locator("#history .open").first.text_content().startswith("<script>")


WIDE = (
    "| " + " | ".join(f"column{n}" for n in range(14)) + " |\n" + "|---" * 14 + "|\n" + "| value " * 14 + "|\n\n"
    "```python\n" + "x = " + "1 + " * 80 + "1\n```\n\n" + "https://example.org/" + "a" * 300 + "\n\n" + "W" * 400
)


@pytest.mark.parametrize("wide", [320, 768, 1280])
def test_wide_tables_code_and_words_never_widen_the_page(open_page: Any, wide: int) -> None:
    with Site(says(WIDE, "Fine. Revision is not needed.")) as site:
        page = open_page(site.url, wide=wide, high=700)
        ask(page, "W" * 200)
        for what in ("document.documentElement", "document.querySelector('#conversation')"):
            assert page.evaluate(f"{what}.scrollWidth - {what}.clientWidth") <= 0
        assert page.evaluate(
            "(() => { const p = document.querySelector('.body pre'); return p.scrollWidth > p.clientWidth })()"
        )
        for button in page.locator("button:visible").all():
            box = button.bounding_box()
            assert box is None or (box["x"] >= 0 and box["x"] + box["width"] <= wide + 1)


def test_text_from_right_to_left_runs_so_and_the_page_does_not(open_page: Any) -> None:
    with Site(
        says("السماء زرقاء لأن الهواء يبعثر الضوء الأزرق.\n\n- نقطة\n\nEnglish again.", "Revision is not needed.")
    ) as site:
        page = open_page(site.url)
        ask(page, "لماذا السماء زرقاء؟")
        direction = "node => getComputedStyle(node).direction"
        assert page.locator(".question [dir=auto]").evaluate(direction) == "rtl"
        assert [p.evaluate(direction) for p in page.locator(".segment.final .body > p").all()] == ["rtl", "ltr"]
        assert page.locator(".chain-foot").evaluate(direction) == "ltr"


def test_the_page_can_be_used_with_keys_alone(open_page: Any) -> None:
    with Site(story()) as site:
        page = open_page(site.url)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "ask"
        page.keyboard.type(QUESTION)
        page.keyboard.press("Enter")
        finished(page)
        page.evaluate("document.activeElement.blur()")
        for key, opened in (("?", "help"), ("s", "settings"), ("d", "comparison")):
            page.keyboard.press(key)
            assert page.locator(f"#{opened}").evaluate("dialog => dialog.open")
            page.keyboard.press("Escape")
            assert not page.locator(f"#{opened}").evaluate("dialog => dialog.open")
        page.keyboard.press("f")
        assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
        page.keyboard.type("m a ? shorter")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("text=Revision 2")
        finished(page)
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "ask"


def test_single_keys_can_be_turned_off(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    page.click("#settings-open")
    page.uncheck("#shortcuts")
    page.click("#settings [data-close].primary")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    assert not page.locator("#help").evaluate("dialog => dialog.open")


def test_whoever_listens_is_told_sections_and_not_words(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    page.evaluate(
        """() => {
          window.told = [];
          const note = (all) => {
            for (const one of all) window.told.push(...[...one.addedNodes].map((node) => node.textContent));
          };
          new MutationObserver(note).observe(document.querySelector('#live'), { childList: true });
        }"""
    )
    ask(page)
    told = page.evaluate("window.told")
    assert told[:4] == [
        "Answer is being written.",
        "Feedback 1 is being written.",
        "Feedback 1: a revision is needed.",
        "Revision 1 is being written.",
    ]
    assert told[-1].startswith("Final answer: The sky is blue because")
    assert len(told) < 12


def test_the_page_paints_soon_and_is_small(site: Site, open_page: Any) -> None:
    page = open_page(site.url)
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    size = page.evaluate("performance.getEntriesByType('resource').reduce((sum, one) => sum + one.encodedBodySize, 0)")
    print(f"first contentful paint {paint:.0f} ms, {size} bytes beside the document")
    assert paint < 5_000  # measured: see docs/guides/web.md; a busy machine may be slower
    assert size < 200_000
