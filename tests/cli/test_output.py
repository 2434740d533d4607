"""What reaches a screen: wrapped as it comes, without anything that could steer it; bars, tables, differences."""

from __future__ import annotations

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from selfee.chain.changes import compare
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.progress import DownloadDisplay, clock_text
from selfee.cli.table import Column, render_table
from selfee.cli.wrapping import WrappingText

TEXTS = st.text(alphabet=st.sampled_from("ab é日\n\t ,.-👍\u0301"), max_size=120)


def wrap(pieces: list[str], width: int, indent: int) -> str:
    wrapping = WrappingText(width, indent)
    return "".join([*(wrapping.feed(piece) for piece in pieces), wrapping.finish()])


def chunks(text: str, sizes: list[int]) -> list[str]:
    pieces, start = [], 0
    for size in sizes:
        pieces.append(text[start : start + size])
        start += size
    return [*pieces, text[start:]]


@given(TEXTS, st.lists(st.integers(1, 7), max_size=40), st.integers(12, 40), st.integers(0, 4))
def test_however_a_text_arrives_it_is_wrapped_the_same(text: str, sizes: list[int], width: int, indent: int) -> None:
    text = text.replace("\t", " ")  # a tab's width depends on where it stands
    assert wrap(chunks(text, sizes), width, indent) == wrap([text], width, indent)


@given(TEXTS, st.integers(12, 40), st.integers(0, 4))
@example("\t\t\ta", 12, 0)
@example("\t\t\t空", 12, 4)
def test_no_line_is_wider_than_the_screen_and_no_letter_is_lost(text: str, width: int, indent: int) -> None:
    wrapped = wrap([text], width, indent)
    assert "".join(wrapped.split()) == "".join(text.split())
    assert all(cell_len(line) <= width for line in wrapped.split("\n"))
    assert all(line.startswith(" " * indent) for line in wrapped.split("\n") if line)


def test_words_go_whole_to_the_next_line_and_paragraphs_stay() -> None:
    assert wrap(["one two th", "ree\n\n  - four"], 12, 2) == "  one two\n  three\n\n    - four"


@given(st.text())
def test_what_is_shown_can_neither_steer_nor_reorder(text: str) -> None:
    shown = for_terminal(text)
    assert not any(ord(character) < 32 and character not in "\n\t" for character in shown)
    assert not any(0x7F <= ord(character) < 0xA0 for character in shown)
    assert not set("\u202e\u2066\u200f") & set(shown)
    shown.encode("utf-8")


@given(
    st.lists(st.sampled_from(["a", "b", "c", "sky", "blue."]), max_size=30),
    st.lists(st.sampled_from(["a", "b", "sky"]), max_size=30),
)
def test_added_and_removed_words_add_up(old: list[str], new: list[str]) -> None:
    changes = compare(" ".join(old), " ".join(new))
    assert (changes.kept + changes.removed, changes.kept + changes.added) == (len(old), len(new))
    assert 0.0 <= changes.kept_share <= 1.0


def test_a_difference_is_said_in_numbers_and_shown_with_a_little_context() -> None:
    changes = compare("a b c d e f g h i j old z", "a b c d e f g h i j new z")
    assert changes.summary == "+1 −1 words, 92% kept"
    assert [(piece.kind, piece.text) for piece in changes.pieces] == [
        ("gap", "…"),
        ("kept", "h i j"),
        ("removed", "old"),
        ("added", "new"),
        ("kept", "z"),
    ]
    assert compare("same words", "same  words").summary == "no word changed"


def test_very_long_texts_are_compared_without_taking_long() -> None:
    old, new = "word " * 60_000, "word " * 59_000 + "other " * 1000
    assert compare(old, new).summary == "+1000 −1000 words, 98% kept"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("color", "environ", "is_terminal", "has_color"),
    [
        (Color.AUTO, {}, True, True),
        (Color.AUTO, {}, False, False),
        (Color.AUTO, {"NO_COLOR": "1"}, True, False),
        (Color.AUTO, {"NO_COLOR": ""}, True, True),
        (Color.AUTO, {"TERM": "dumb"}, True, False),
        (Color.ALWAYS, {"NO_COLOR": "1"}, False, True),
        (Color.NEVER, {}, True, False),
    ],
)
def test_colour_follows_the_wish_then_the_screen(
    color: Color, environ: dict[str, str], is_terminal: bool, has_color: bool
) -> None:
    screen = screen_of(Terminal() if is_terminal else io.StringIO(), color, environ)
    assert screen.has_color is has_color
    assert (screen.style("x", "red") != "x") is has_color


def show_download(is_terminal: bool, total: int | None) -> str:
    stream = io.StringIO()
    times = iter(number * 0.5 for number in range(1000))
    display = DownloadDisplay(Screen(stream, is_terminal, False, 79), now=lambda: next(times))
    display.begin("model.gguf", total, 0)
    for _ in range(20):
        display.advance(50_000)
    display.note("a note")
    display.begin("model.gguf", total, 1_000_000)
    display.end()
    return stream.getvalue()


def test_on_a_terminal_a_download_is_a_bar_with_speed_and_time_left() -> None:
    shown = show_download(True, 2_000_000)
    last = [line for line in shown.replace("\x1b[K", "").split("\r") if "kB/s" in line][-1]
    assert "━━━━━━━━─────────" in last
    assert " 50 %  1.0 MB of 2.0 MB" in last
    assert "left" in last
    assert all(len(line) < 80 for line in shown.replace("\x1b[K", "").replace("\r", "\n").split("\n"))
    assert shown.endswith("\n")


def test_elsewhere_a_download_is_a_line_every_ten_percent() -> None:
    lines = show_download(False, 2_000_000).splitlines()
    assert lines[0] == "downloading model.gguf (2.0 MB)"
    assert [line.split(" %")[0] for line in lines[1:-1]] == [
        f"model.gguf: {percent}" for percent in (10, 20, 30, 40, 50)
    ]
    assert lines[-1] == "a note"


def test_a_download_of_unknown_length_shows_what_has_come() -> None:
    assert "1.0 MB" in show_download(True, None)
    assert show_download(False, None).splitlines()[0] == "downloading model.gguf"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65, "1:05"), (3661, "1:01:01")])
def test_times_read_as_on_a_clock(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_a_table_is_aligned_and_shows_no_control_characters() -> None:
    screen = Screen(io.StringIO(), False, False, 79)
    rows = [("日本\x1b[31m", "5"), ("a\nb", "1,000")]
    table = render_table((Column("name"), Column("size", is_number=True)), rows, screen)
    assert table.splitlines() == ["name       size", "日本[31m      5", "a b       1,000"]


def narrow(width: int, *, is_terminal: bool = True) -> Screen:
    return Screen(io.StringIO(), is_terminal=is_terminal, has_color=False, width=width)


SIZES = (
    Column("model"),
    Column("values in all", is_number=True, is_spare=True),
    Column("size on disk", is_number=True),
    Column("where"),
)
SIZE_ROWS = [("tiny", "1,000,000", "4 MB", "here"), ("large", "9,000,000,000", "36 GB", "far away")]


def test_a_table_too_wide_breaks_its_headings_then_leaves_out_what_can_be_spared() -> None:
    assert render_table(SIZES, SIZE_ROWS, narrow(60)).splitlines()[0] == "model  values in all  size on disk  where"
    assert render_table(SIZES, SIZE_ROWS, narrow(37)).splitlines() == [
        "                       size",
        "                         on",
        "model  values in all   disk  where",
        "tiny       1,000,000   4 MB  here",
        "large  9,000,000,000  36 GB  far away",
    ]
    assert render_table(SIZES, SIZE_ROWS, narrow(30)).splitlines() == [
        "        size",
        "          on",
        "model   disk  where",
        "tiny    4 MB  here",
        "large  36 GB  far away",
    ]


def test_where_no_table_fits_each_row_is_a_block_and_a_path_stays_whole() -> None:
    path = "/" + "folder/" * 8 + "model.gguf"
    rows = [("tiny", "1,000,000", "4 MB", path), ("large", "9", "36 GB", "in a folder that is far away from here")]
    assert render_table(SIZES, rows, narrow(40)).splitlines() == [
        "model",
        "tiny",
        "  values in all  1,000,000",
        "  size on disk   4 MB",
        f"  where          {path}",
        "large",
        "  values in all  9",
        "  size on disk   36 GB",
        "  where          in a folder that is far",
        "                 away from here",
    ]
    two = render_table((Column("key"), Column("value")), [("general.name", "word " * 9)], narrow(40))
    assert two.splitlines() == ["key", "general.name", "    word word word word word word word", "    word word"]


def test_a_file_or_program_gets_the_whole_table_however_wide() -> None:
    shown = render_table(SIZES, SIZE_ROWS, narrow(30, is_terminal=False))
    assert shown == render_table(SIZES, SIZE_ROWS, narrow(100))


@given(
    st.lists(st.tuples(*[st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)] * 3)),
    st.integers(40, 110),
    st.booleans(),
)
def test_a_narrow_table_loses_no_cell_that_is_not_spare(
    rows: list[tuple[str, ...]], width: int, is_terminal: bool
) -> None:
    columns = (Column("one"), Column("two words", is_number=True), Column("three"))
    shown = "".join(render_table(columns, rows, narrow(width, is_terminal=is_terminal)).split())
    for row in rows:
        for cell in row:
            assert "".join(for_terminal(cell).split()) in shown
