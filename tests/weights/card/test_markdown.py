"""Nothing that a file says can end a cell, a block or a quotation, or become HTML, a link or a command."""

from __future__ import annotations

import html
import json
import re
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfee.weights.card.markdown import block, code, link, plain, shell_word, table, yaml_text

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(texts)
@example("a|b`c`<b>&amp;*x*_y_[z](w)\n# h")
@example("https://host/x www.host.example")
@example("q4_K_M")
def test_a_plain_text_holds_no_markup_and_reads_as_itself(text: str) -> None:
    made = plain(text)
    assert "\n" not in made
    bare = re.sub(r"&#[0-9]+;", "", made)
    assert not set("<>|`*{}[]\\#~!$^&") & set(bare)
    assert "://" not in bare
    assert "www." not in bare
    assert not re.search(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", bare)
    if text.isascii() and text.isprintable():
        assert html.unescape(made) == text


@given(texts)
@example("a`|`b")
@example(" padded ")
def test_a_code_span_is_whole_or_there_is_none(text: str) -> None:
    made = code(text)
    if made.startswith("`"):
        assert made == f"`{text}`"
        assert not set("|`<>\n\\&") & set(text)
        assert text == text.strip()
    else:
        assert made == plain(text)


@pytest.mark.parametrize(
    ("text", "is_link"),
    [
        ("https://host.example/org/name", True),
        ("http://host:8080/a_b-c.d", True),
        ("javascript:alert(1)", False),
        ("https://host/<script>", False),
        ("https://host/a b", False),
        ("https://host/)[x](y", False),
        ("org/name", False),
    ],
)
def test_only_an_ordinary_address_becomes_a_link(text: str, is_link: bool) -> None:
    assert (link(text) == f"<{text}>") is is_link


@given(st.text("`~ab\n\t\r\x1b\u202e", max_size=50))
def test_nothing_in_a_block_ends_it(text: str) -> None:
    lines = block(text, "text").split("\n")
    fence = lines[0].removesuffix("text")
    assert set(fence) == {"`"}
    assert lines[-2:] == [fence, ""]
    assert not any(line.lstrip().startswith(fence) for line in lines[1:-2])
    assert all(character.isprintable() or character in "\n\t" for character in "\n".join(lines))


def test_a_long_block_is_cut_and_says_so() -> None:
    assert "… (83,616 more characters)" in block("x" * 100_000)


def test_a_table_has_a_line_for_each_row_and_numbers_at_the_right() -> None:
    assert table(["a", "b"], [["1", "2"]], numbers=(1,)) == "| a | b |\n| --- | ---: |\n| 1 | 2 |\n"


@given(st.text(max_size=60))
@example("no")
@example('"\\ \x85\u2028\ud800\U000e0001')
def test_a_yaml_scalar_is_one_printable_line_that_reads_as_the_text(text: str) -> None:
    made = yaml_text(text)
    assert made.isprintable()
    as_json = re.sub(r"\\U([0-9a-f]{8})", lambda found: json.dumps(chr(int(found[1], 16)))[1:-1], made)
    assert json.loads(as_json) == re.sub("[\ud800-\udfff]", "\ufffd", text)


@pytest.mark.parametrize(
    "name",
    [
        "a.gguf",
        "two words.gguf",
        "it's.gguf",
        "-m.gguf",
        "a\nb.gguf",
        "$(touch x)`y`.gguf",
        "ä.gguf",
        "\\x41\t.gguf",
        "*",
    ],
)
def test_a_shell_reads_a_file_name_as_that_name(name: str) -> None:
    words = f"printf %s {shell_word(name)}"
    said = subprocess.run(["bash", "-c", words], capture_output=True, check=True, timeout=20).stdout.decode()
    assert said.removeprefix("./") == name
    assert not said.startswith("-")
