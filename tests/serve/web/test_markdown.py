"""The page's Markdown: known constructs become data, everything else stays text, and no address but a person's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serve.web.javascript import call, needs_node

pytestmark = needs_node

PIECES = st.sampled_from(
    [
        "*", "**", "_", "`", "```", "~~", "[", "](", ")", "<", ">", "#", "# ", "- ", "1. ", "> ", "|", "---", "\n",
        "\n\n", "\\", " ", "    ", "javascript:", "data:text/html,", "http://a.b/", "https://", "mailto:", "word",
        "<script>", "é", "!",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=40).map("".join)


def parse(*texts: str) -> list[list[dict[str, Any]]]:
    return call("markdown.js", "return it.parseBlocks(a)", texts)


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every block and span, however deep."""
    if isinstance(node, list):
        for child in node:
            yield from walk(child)
    elif isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)


def plain(block: Any) -> str:
    return "".join(node["text"] for node in walk(block) if node.get("type") in ("text", "code") and "text" in node)


@settings(max_examples=25)
@given(st.lists(TEXTS, min_size=1, max_size=60))
def test_no_text_whatever_makes_a_link_to_anything_but_web_and_mail(texts: list[str]) -> None:
    for blocks in parse(*texts):
        for node in walk(blocks):
            if node.get("type") == "link":
                assert node["href"].lower().startswith(("http://", "https://", "mailto:"))


@settings(max_examples=25)
@given(st.lists(TEXTS, min_size=1, max_size=60))
def test_every_word_of_a_text_is_still_there(texts: list[str]) -> None:
    for text, blocks in zip(texts, parse(*texts), strict=True):
        told = "".join(
            str(node.get("text", "")) + str(node.get("href", "")) + str(node.get("language", ""))
            for node in walk(blocks)
        )
        assert told.count("word") >= text.count("word")
        assert told.count("é") >= text.count("é")


@settings(max_examples=25)
@given(st.lists(TEXTS, min_size=1, max_size=60))
def test_a_text_that_grows_changes_only_its_last_blocks(texts: list[str]) -> None:
    """What the page draws once it need not draw again: blocks before an empty line stay as they are."""
    grown = [text + "\n\nand more" for text in texts if "`" not in text and "-" not in text and "." not in text]
    fixed = [text for text in texts if "`" not in text and "-" not in text and "." not in text]
    for before, after in zip(parse(*fixed), parse(*grown), strict=True) if fixed else ():
        assert [block["raw"] for block in after[: len(before) - 1]] == [block["raw"] for block in before[:-1]]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[click](javascript:alert(1))",
        "[click](JaVaScRiPt:alert(1))",
        "[click](data:text/html;base64,PHNjcmlwdD4=)",
        "[click](vbscript:x)",
        "[click](/v1/models)",
        "![pixel](javascript:alert(1))",
        "<javascript:alert(1)>",
    ],
)
def test_attempts_to_run_something_are_text(text: str) -> None:
    (blocks,) = parse(text)
    assert [block["type"] for block in blocks] == ["paragraph"]
    assert {span["type"] for span in blocks[0]["spans"]} == {"text"}


def test_the_constructs_that_models_write_are_known() -> None:
    (blocks,) = parse(
        "# Title\n\nSome **bold**, *slanted* and `code`.\nsecond line\n\n1. one\n   - inner\n2. two\n\n> quoted\n\n"
        "```python\nprint('**')\n```\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n---\n\n"
        "see [here](https://example.org/x_(y)) now"
    )
    assert [block["type"] for block in blocks] == [
        "heading", "paragraph", "list", "quote", "code", "table", "rule", "paragraph",
    ]  # fmt: skip
    assert [span["type"] for span in blocks[1]["spans"]] == [
        "text", "strong", "text", "emphasis", "text", "code", "text",
    ]  # fmt: skip
    assert blocks[2]["ordered"]
    assert [block["type"] for block in blocks[2]["items"][0]] == ["paragraph", "list"]
    assert blocks[4]["text"] == "print('**')"
    assert blocks[4]["language"] == "python"
    assert blocks[5]["align"] == ["start", "end"]
    assert blocks[7]["spans"][1]["href"] == "https://example.org/x_(y)"


def test_words_with_underscores_and_sums_are_left_alone() -> None:
    for text in ("snake_case_word", "2*3*4", "5 * 6 * 7", "__init__.py is a file", "C:\\new", "a | b"):
        (blocks,) = parse(text)
        if text.startswith("__"):
            continue  # Markdown itself makes this bold
        assert plain(blocks) == text


def test_an_unfinished_code_block_takes_the_rest_of_the_text() -> None:
    (blocks,) = parse("```\nline\n\n# no heading")
    assert blocks == [
        {
            "type": "code",
            "language": "",
            "text": "line\n\n# no heading",
            "closed": False,
            "raw": "```\nline\n\n# no heading",
        }
    ]


@pytest.mark.parametrize(
    "text",
    [
        "*a " * 20_000, "[" * 20_000, "`" * 4_001 + "x", "> " * 20_000 + "x", "- " * 20_000 + "x", "**_" * 10_000,
        "|" * 20_000 + "\n" + "-|" * 20_000, "# " + " " * 50_000 + "x", "http://a" * 10_000, " \n" * 50_000,
        "\\" * 50_000, "![](" * 20_000,
    ],
    ids=lambda text: repr(text[:6]),
)  # fmt: skip
def test_texts_made_to_take_for_ever_do_not(text: str) -> None:
    assert parse(text)  # a test is given five minutes; each takes well under one second
