"""How far work on chunks is: a line on a terminal, nothing elsewhere."""

from __future__ import annotations

import io

from selfee.cli.chunk_progress import ChunkDisplay
from selfee.cli.output import Screen


def display_on(is_terminal: bool, total: int, seconds: list[float]) -> tuple[ChunkDisplay, io.StringIO]:
    stream = io.StringIO()
    times = iter(seconds)
    return ChunkDisplay(Screen(stream, is_terminal, False, 100), total, lambda: next(times)), stream


def last_line(stream: io.StringIO) -> str:
    return stream.getvalue().rpartition("\x1b[K")[2]


def test_a_terminal_sees_file_bar_chunks_figure_and_time_left() -> None:
    display, stream = display_on(True, 4, [0.0, 30.0])
    display.begin("model.gguf")
    display.chunk(1, "PPL 7.500")
    line = last_line(stream)
    assert line.startswith("model.gguf  ━")
    assert line.endswith("1 of 4 chunks  PPL 7.500  1:30 left")
    display.clear()
    assert last_line(stream) == ""


def test_chunks_of_all_files_count_and_those_measured_before_do_not() -> None:
    display, stream = display_on(True, 9, [0.0, 1.0, 2.0, 3.0, 4.0])
    display.skip(3)
    display.begin("a")
    display.chunk(2)
    display.begin("b")
    display.chunk(1)
    assert "3 of 6 chunks" in last_line(stream)
    display.chunk(4)
    assert last_line(stream).endswith("6 of 6 chunks")


def test_a_log_sees_notes_only() -> None:
    display, stream = display_on(False, 4, [0.0])
    display.begin("model.gguf")
    display.chunk(1, "PPL 7.500")
    display.note("said \x1b[31monce")
    display.clear()
    assert stream.getvalue() == "said [31monce\n"
