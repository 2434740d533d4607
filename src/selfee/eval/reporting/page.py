"""The report as one HTML page that needs nothing else: no network, no other file; the browser of questions included.

Nothing that a model, a judge or a file name says is markup here: every text is escaped, the browser only sets text, and
the page's policy lets no script run but its own.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from importlib.resources import files

from selfee.eval.reporting.browser import island
from selfee.eval.reporting.contents import Contents, contents_of
from selfee.eval.reporting.report import Report
from selfee.eval.reporting.sections import Picture, Section, Table

_ASSETS = "selfee.eval.reporting.assets"


def render_page(report: Report) -> str:
    """The whole page."""
    contents = contents_of(report)
    script, style = _asset("page.js"), _asset("page.css")
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<meta name="generator" content="selfee report">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(contents.title)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            '<a class="skip" href="#scores">Skip to the figures</a>',
            _head(contents),
            '<main id="main">',
            *(_section(section) for section in contents.sections if section.id != "made"),
            _BROWSER,
            *(_section(section) for section in contents.sections if section.id == "made"),
            "</main>",
            "<footer>Made by selfee. This page needs no network.</footer>",
            f'<script type="application/json" id="data">{island(report)}</script>',
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _asset(name: str) -> str:
    return (files(_ASSETS) / name).read_text(encoding="utf-8").strip()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _head(contents: Contents) -> str:
    links = [(section.id, section.title) for section in contents.sections]
    links.insert(len(links) - 1, ("browser", "Questions"))
    items = "".join(f'<li><a href="#{escape(name)}">{escape(title)}</a></li>' for name, title in links)
    told = "".join(f"<li>{escape(line)}</li>" for line in contents.headlines)
    return (
        f"<header><h1>{escape(contents.title)}</h1>"
        + (f'<ul class="findings">{told}</ul>' if told else "")
        + f'<nav aria-label="Sections"><ul>{items}</ul></nav></header>'
    )


def _section(section: Section) -> str:
    parts = [f'<section id="{escape(section.id)}" aria-labelledby="h-{escape(section.id)}">']
    parts.append(f'<h2 id="h-{escape(section.id)}">{escape(section.title)}</h2>')
    parts += [f'<p class="warning">{escape(warning)}</p>' for warning in section.warnings]
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.paragraphs]
    if section.pictures:
        parts.append(f'<div class="pictures">{"".join(map(_picture, section.pictures))}</div>')
    parts += [_table(table) for table in section.tables]
    return "".join(parts) + "</section>"


def _picture(picture: Picture) -> str:
    words = f"<strong>{escape(picture.title)}.</strong> {escape(picture.words)}"
    return f"<figure>{picture.svg}<figcaption>{words}</figcaption></figure>"


def _table(table: Table) -> str:
    heads = "".join(
        f'<th scope="col"{_kind(number, table)}>{escape(name)}</th>' for number, name in enumerate(table.columns)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row"{_kind(number, table)}>{_breakable(cell)}</th>'
            if number == 0
            else f"<td{_kind(number, table)}>{_breakable(cell) if number in table.words else escape(cell)}</td>"
            for number, cell in enumerate(row)
        )
        + "</tr>"
        for row in table.rows
    )
    label = escape(table.caption)
    return (
        f'<p class="caption">{label}</p><div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f'<table aria-label="{label}"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _breakable(text: str) -> str:
    """Names break where their parts meet, not in the middle of a word."""
    return re.sub(r"([_/@.\-])(?=\w)", r"\1<wbr>", escape(text))


def _kind(number: int, table: Table) -> str:
    return "" if number in table.words else ' class="number"'


_BROWSER = """<section id="browser" aria-labelledby="h-browser">
<h2 id="h-browser">Questions</h2>
<noscript><p>The questions with their chains and judgments need scripts; all figures above do not.</p></noscript>
<form id="controls" class="controls" hidden>
<label>Category <select id="category"><option value="">all</option></select></label>
<label>Show <select id="kind">
<option value="">all questions</option>
<option value="lost">lost by a model</option>
<option value="differ">orders disagree</option>
<option value="unreadable">unreadable judgment</option>
</select></label>
<label class="wide">Search <input id="search" type="search" autocomplete="off"></label>
<label class="wide">Question <select id="question"></select></label>
<button type="button" id="previous">Previous</button>
<button type="button" id="next">Next</button>
<label><input type="checkbox" id="changes" checked> Mark what a revision changed</label>
</form>
<p id="status" role="status" class="status"></p>
<div id="view"></div>
</section>"""
