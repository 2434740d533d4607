"""HTML of shared conversations becomes Markdown in which code keeps its lines, its language and every character."""

from __future__ import annotations

from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfee.data.markup import is_markup, to_markdown

CODE = (
    "def f(x: list[int]) -> int:\n    if x[0] < 3 and __name__:\n        return 2 ** 3\n\n\n    # a_b * c & 'd' \\n\n"
)


def exported(code: str, language: str = "python", named: bool = True) -> str:
    """Code as the page shows it: a head with the language and a button, spans of colour in the code."""
    name = f' class="!whitespace-pre hljs language-{language}"' if named else ' class="hljs"'
    return (
        '<pre><div class="bg-black mb-4 rounded-md"><div class="flex items-center text-xs">'
        f'<span class="">{language}</span><button class="flex ml-auto gap-2"><svg stroke="currentColor">'
        '<path d="M16 4h2"></path></svg>Copy code</button></div><div class="p-4 overflow-y-auto">'
        f'<code{name}><span class="hljs-keyword">{escape(code[:3])}</span>{escape(code[3:])}</code></div></div></pre>'
    )


def page(inner: str) -> str:
    return f'<div class="markdown prose w-full break-words dark:prose-invert light">{inner}</div>'


@pytest.mark.parametrize("named", [True, False])
def test_code_keeps_its_lines_its_language_and_every_character(named: bool) -> None:
    found = to_markdown(page(f"<p>Try:</p>{exported(CODE, named=named)}<p>Done.</p>"))
    assert found == f"Try:\n\n```python\n{CODE}```\n\nDone."


@given(st.text(st.sampled_from("ab \n<>&\\_*`#\"'$()[]{}|1."), min_size=1, max_size=60))
def test_no_character_of_code_is_lost_or_added(text: str) -> None:
    code = f"x{text}x"
    found = to_markdown(page(exported(code)))
    assert code in found


def test_prose_lists_tables_and_formulas_stay_readable() -> None:
    found = to_markdown(
        page(
            "<h3>Plan</h3><p>Use <strong>this</strong>, <code>a_b</code> and \\(\\frac{x_1}{2}\\).</p>"
            "<ol><li><p>One</p></li><li><p>Two</p><ul><li>inner</li></ul></li></ol>"
            "<table><thead><tr><th>A</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"
            "<p>1 &lt; 2 &amp;&amp; b</p>"
        )
    )
    assert found.startswith("### Plan\n\nUse **this**, `a_b` and \\(\\frac{x_1}{2}\\).\n\n1. One")
    assert "- inner" in found
    assert "| A |" in found
    assert found.endswith("1 < 2 && b")


@pytest.mark.parametrize(
    "text",
    [
        "Why does <div>hello</div> not centre?",
        "if a < b and c > d: pass",
        "vector<int> v; what is it?",
        "```html\n<p>x</p>\n```",
        "Plain words.",
    ],
)
def test_a_text_that_shows_tags_is_no_markup(text: str) -> None:
    assert not is_markup(text)
    assert to_markdown(text) == text


@pytest.mark.parametrize(
    "left", ["```\npythonCopy code\nx = 1\n```", "```python\nCopy code\nx = 1\n```", "```pythonCopy code\nx = 1\n```"]
)
def test_the_buttons_words_are_taken_out_of_what_others_converted(left: str) -> None:
    assert to_markdown(left) == "```python\nx = 1\n```"


def test_markup_that_is_broken_or_nested_deeply_ends_in_text_or_a_reason() -> None:
    assert "a" in to_markdown(page("<p>a<b>c</p></i>" * 50))
    to_markdown(page("<div>" * 3000 + "deep" + "</div>" * 3000))


def test_a_long_word_behind_a_fence_takes_no_longer_than_other_text() -> None:
    text = "```" + "a" * 200_000
    assert to_markdown(text) == text
