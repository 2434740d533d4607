"""The statistics of chains as one page that needs nothing else: tables, drawings, the list of disagreements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from selfee.data.pictures import Bar, Range, columns, ranges, stacked_bars
from selfee.data.statistics import KINDS, VERDICTS, SourceStatistics, disagreements_of, percentiles

_LISTED = 2000  # disagreements; more are in --json
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --dim: #656d76; --paper: #ffffff; --line: #d8dee4; --shade: #f6f8fa;
  --c0: #3b6fd4; --c1: #2f9e6e; --c2: #b8901f; --c3: #8e5bc2; --c4: #c2574f; --c5: #4a9bab;
  --v0: #c8682b; --v1: #57803a; --v2: #7d8590; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9198a1; --paper: #0d1117; --line: #30363d;
  --shade: #161b22; --c0: #6c9bf0; --c1: #4fc08d; --c2: #d9b44a; --c3: #b78be8; --c4: #e58079; --c5: #6fc3d3;
  --v0: #f0995c; --v1: #8fbf6a; --v2: #9198a1; } }
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p { color: var(--dim); max-width: 46rem; }
table { border-collapse: collapse; font-size: .9rem; display: block; overflow-x: auto; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.text { text-align: left; white-space: normal; min-width: 18rem; }
thead th { color: var(--dim); font-weight: 500; } tbody tr:hover { background: var(--shade); }
svg { width: 100%; height: auto; margin: 1.4rem 0 .6rem; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg text.title { font-weight: 600; font-size: 13px; } svg text.on { fill: var(--paper); }
svg .grid { stroke: var(--line); }
svg .range { stroke: var(--c0); stroke-width: 6; stroke-linecap: round; opacity: .55; }
svg .mark { fill: var(--c0); } code { font-size: .85em; }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); }
.c3 { fill: var(--c3); } .c4 { fill: var(--c4); }
.c5 { fill: var(--c5); }
.v0 { fill: var(--v0); } .v1 { fill: var(--v1); } .v2 { fill: var(--v2); }
"""


def render_page(found: Mapping[str, SourceStatistics], files: Sequence[str]) -> str:
    """The page as HTML."""
    named = {name or "(not told)": one for name, one in found.items() if one.records}
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Chains: statistics</title><style>{_STYLE}</style></head><body>",
        "<h1>Chains: statistics</h1>",
        f"<p>{escape(', '.join(files))}</p>",
        *_overview(named),
        *_lengths(named),
        *_verdicts(named),
        *_scores(named),
        *_sizes(named),
        *_disagreements(found),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _overview(found: Mapping[str, SourceStatistics]) -> Iterator[str]:
    heads = ("source", "chains", "questions", "feedback", "ended by the limit", "unchanged revisions", "reference told")
    yield "<h2>What there is</h2>"
    yield _table(
        heads,
        [
            (name, one.records, len(one.ids), one.verdicts.total(), one.capped, one.unchanged, one.leaks)
            for name, one in found.items()
        ],
    )
    yield (
        "<p><em>Reference told</em>: feedback that holds the reference answer word for word. "
        "<em>Unchanged revisions</em>: equal to the answer before.</p>"
    )


def _lengths(found: Mapping[str, SourceStatistics]) -> Iterator[str]:
    longest = max((length for one in found.values() for length in one.lengths), default=1)
    answers = range(1, longest + 1)
    shares = {name: [100 * one.lengths[n] / one.records for n in answers] for name, one in found.items()}
    yield "<h2>Length</h2>"
    yield columns("Answers in a chain, share of the chains", [str(number) for number in answers], shares)
    yield _table(
        ("answers", *map(str, answers)),
        [(name, *(one.lengths[number] for number in answers)) for name, one in found.items()],
    )


def _verdicts(found: Mapping[str, SourceStatistics]) -> Iterator[str]:
    yield "<h2>Verdicts</h2>"
    for title, pick in (("Every feedback", "verdicts"), ("The last feedback of each chain", "endings")):
        bars = [Bar(name, getattr(one, pick), f"{getattr(one, pick).total():,}") for name, one in found.items()]
        yield stacked_bars(title, bars, VERDICTS)
        yield _table(
            ("source", *VERDICTS), [(name, *(getattr(one, pick)[v] for v in VERDICTS)) for name, one in found.items()]
        )
    yield "<h2>Verdicts that are missing or make no sense</h2>"
    yield (
        "<p>Chains whose last feedback asks for a revision or states no verdict; feedback without verdict, or content, "
        "that a revision follows; feedback whose verdict does not go with its score.</p>"
    )
    yield _table(
        (
            "source",
            "ends asking",
            "ends silent",
            "silent, goes on",
            "content, goes on",
            "content under 9",
            "revise from 9",
        ),
        [
            (
                name,
                one.endings["revise"],
                one.endings["no verdict"],
                one.silent_in_midst,
                one.content_in_midst,
                one.low_but_content,
                one.high_but_revise,
            )
            for name, one in found.items()
        ],
    )


def _scores(found: Mapping[str, SourceStatistics]) -> Iterator[str]:
    whole = range(11)
    scored = {name: one for name, one in found.items() if one.scores}
    yield "<h2>Scores</h2>"
    if not scored:
        yield "<p>No feedback gives a score.</p>"
        return
    shares = {
        name: [
            100 * sum(count for score, count in one.scores.items() if int(score) == n) / one.scores.total()
            for n in whole
        ]
        for name, one in scored.items()
    }
    yield columns("Scores out of 10, rounded down, share of the scored feedback", [str(n) for n in whole], shares)
    heads = ("source", "scored", "mean", "content, scored", "of these under 9")
    yield _table(
        heads,
        [
            (
                name,
                one.scores.total(),
                f"{sum(score * count for score, count in one.scores.items()) / one.scores.total():.2f}",
                one.scored_content,
                one.low_but_content,
            )
            for name, one in scored.items()
        ],
    )


def _sizes(found: Mapping[str, SourceStatistics]) -> Iterator[str]:
    yield "<h2>Words</h2>"
    rows = []
    for part in ("question", "answer", "feedback"):
        lines = []
        for name, one in found.items():
            if values := percentiles(one.sizes[part]):
                lines.append(Range(name, values["p10"], values["p50"], values["p90"]))
                rows.append((f"{name}, {part}", values["mean"], values["p10"], values["p50"], values["p90"]))
        yield ranges(f"{part.capitalize()}: median, and where 8 of 10 lie", lines, "words")
    yield _table(("", "mean", "10 % below", "median", "90 % below"), rows)


def _disagreements(found: Mapping[str, SourceStatistics]) -> Iterator[str]:
    rows = list(disagreements_of(found))
    yield "<h2>Where the verdict and SelFee's stop rule of 2023 disagree</h2>"
    yield (
        "<p>"
        + "<br>".join(f"<strong>{escape(kind)}</strong>: {escape(words)}" for kind, words in KINDS.items())
        + "</p>"
    )
    yield _table(
        ("source", *KINDS),
        [
            (name or "(not told)", *one.to_json()["disagreements"].values())
            for name, one in found.items()
            if one.records
        ],
    )
    if len(rows) > _LISTED:
        yield f"<p>The first {_LISTED:,} of {len(rows):,}; all are in --json.</p>"
    yield "<table><thead><tr><th>id</th><th>kind</th><th>source</th><th>line</th><th>feedback</th><th>its end</th></tr>"
    yield "</thead><tbody>"
    for row in rows[:_LISTED]:
        line = row["where"].rpartition(":")[2]
        yield (
            f"<tr><td><code>{row['id']}</code></td><td>{escape(row['kind'])}</td><td>{escape(row['source'])}</td>"
            f'<td>{escape(line)}</td><td>{row["step"]}</td><td class="text">… {escape(row["ending"])}</td></tr>'
        )
    yield "</tbody></table>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(_cell(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
