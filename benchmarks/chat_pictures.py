"""The pictures of docs/guides/chat.md: ``selfee chat`` in a real terminal, on the built-in model.

    python benchmarks/chat_pictures.py -o docs/guides        # needs tmux, and: selfee models pull smollm2-135m

Each scene is typed into a terminal (tmux) and taken as it stands on the screen, colours included. Texts are greedy, so
that they come out the same on every machine; times differ.
"""

from __future__ import annotations

import argparse
import html
import io
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.cells import cell_len
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from tests.cli.tmux import Terminal, terminal

CELL = 12.2  # width of a cell in rich's drawings
QUESTION = "Why is the sky blue?"
BRIEF = "--max-answer-tokens 300 --max-feedback-tokens 60 --max-revision-tokens 300"
THEME = TerminalTheme(
    (22, 27, 34),
    (230, 237, 243),
    [
        (22, 27, 34),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (121, 192, 255),
        (210, 168, 255),
        (86, 212, 221),
        (201, 209, 217),
    ],
)
# As rich's own, but without fonts from elsewhere: a picture of ours asks nobody for anything.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def scenes(window: Terminal, command: str) -> Iterator[tuple[str, str]]:
    """(name, screen with its colours), one after another."""
    window.enter(f"clear; {command} --revisions 1 {BRIEF}")
    window.wait_until_ready()
    window.enter(QUESTION)
    window.wait_for("tokens/s")
    window.wait_until_ready()
    yield "chain", window.screen(colors=True)
    window.clear()
    window.enter("/feedback Say it in one short sentence.")
    window.wait_for("revision 2[\\s\\S]*tokens/s")
    window.wait_until_ready()
    window.enter("/diff 0 2")
    window.wait_for("answer 0 → 2")
    window.wait_until_ready()
    yield "feedback", window.screen(colors=True)
    window.clear()
    window.type("/")
    window.wait_for("/feedback")
    yield "commands", window.screen(colors=True)
    window.press("C-c")
    window.wait_for("once more")
    window.clear()
    window.enter("/rev 3")
    window.enter("Why is grass green?")
    window.wait_for("feedback 1 +\\w+ \\w+")
    window.press("C-c")
    window.wait_until_ready()
    yield "stopped", window.screen(colors=True)
    window.enter("/clear")
    window.enter("/rev off")
    window.clear()
    window.type("空はなぜ青いですか？ למה השמיים כחולים?")
    window.press("M-Enter")
    window.type("لماذا السماء زرقاء؟ 👍 é")
    window.press("Enter")
    window.wait_for("tokens/s")
    window.wait_until_ready()
    yield "scripts", window.screen(colors=True)
    window.resize(44, 34)
    window.clear()
    window.wait_until_ready()
    window.enter("/rev auto")
    window.wait_for("decides")
    window.enter("/stats")
    window.wait_for("last chain")
    window.enter("What is a llama?")
    window.wait_for("seed \\d+\\s+›")
    window.wait_until_ready()
    yield "narrow", window.screen(colors=True)


def draw(screen: str, name: str) -> str:
    """A screen as SVG."""
    text = Text.from_ansi(screen)
    width = max(44, max(line.cell_len for line in text.split("\n")) + 1)
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(text, no_wrap=True, crop=False)
    drawn = console.export_svg(title="selfee chat", theme=THEME, code_format=SVG, unique_id=f"chat-{name}")
    return _TEXT.sub(_as_wide_as_it_is, drawn)


_TEXT = re.compile(r'<text class="([^"]+-r\d+)" x="([0-9.]+)" y="([0-9.]+)" textLength="[0-9.]+"([^>]*)>([^<]+)</text>')


def _as_wide_as_it_is(found: re.Match[str]) -> str:
    """Letters of one and of two cells each in a text of their own: rich squeezes them into one, whose fonts differ."""
    kind, x, y, rest, escaped = found.groups()
    drawn, at = "", float(x)
    for _, letters in itertools.groupby(html.unescape(escaped), lambda letter: cell_len(letter) == 2):
        run = "".join(letters)
        width = CELL * cell_len(run)
        text = html.escape(run).replace("\xa0", "&#160;")
        if run.strip("\xa0 "):
            drawn += f'<text class="{kind}" x="{at:g}" y="{y}" textLength="{width:g}"{rest}>{text}</text>'
        at += width
    return drawn


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/guides"), help="folder for the pictures")
    parser.add_argument("--text", action="store_true", help="print the screens instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "SELFEE_MODELS")}
        environ = kept | {"SELFEE_CHATS": f"{folder}/chats", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        with terminal(Path(folder), environ, 86, 46) as window:
            for name, screen in scenes(window, f"{sys.executable} -m selfee.cli chat"):
                if arguments.text:
                    print(f"--- {name}\n{screen}")
                    continue
                path = arguments.output / f"chat-{name}.svg"
                path.write_text(draw(screen, name), encoding="utf-8")
                print(path)


if __name__ == "__main__":
    main()
