"""``selfee bench``: how fast model files run on this machine, beside what the machine could do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfee.cli.model_file import local_file
from selfee.cli.output import Color, Screen, for_terminal, screen_of
from selfee.cli.shared_options import AsJson, Colored, Quiet
from selfee.cli.table import Column, render_table
from selfee.weights.fetch.builtin import DEFAULT_MODEL

if TYPE_CHECKING:
    from selfee.eval.bench import Bench, CaseResult, FileResult
    from selfee.eval.bench_child import Case

EXAMPLES = """Examples:

\b
  selfee bench
  selfee bench model-q4_0.gguf model-q4_K_M.gguf --threads 1,2
  selfee bench model.gguf --prompt 128,512 --generate 32 --passes none --no-drafting --rounds 5
  selfee bench model.gguf --json > bench.json

\b
pp512: a prompt of 512 tokens. tg128: a text of 128 tokens, one after another. pass8: 8 tokens in one pass, logits of
all, as a draft is verified. revision: a text that repeats most of one before it, with and without drafting.
"of reading": the weights' bytes over the time, as a share of what the same threads read at best in the same minutes;
"of products": the multiply-adds, as a share of their best with bytes from registers. The nearer to 100 %, the less is
left to win. Rounds are interleaved; figures are medians.
"""

_MOST = 1 << 20  # tokens of a case
_NONE = "none"

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("bench", epilog=EXAMPLES)
def bench(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help=f"Model files, or names of downloaded models; else {DEFAULT_MODEL}."),
    ] = None,
    prompt: Annotated[
        str, typer.Option("-p", "--prompt", metavar="SIZES", help="Tokens of prompts, as 128,512; none for none.")
    ] = "512",
    generate: Annotated[
        str, typer.Option("-n", "--generate", metavar="SIZES", help="Tokens of texts, written one by one.")
    ] = "128",
    passes: Annotated[
        str, typer.Option("-b", "--passes", metavar="SIZES", help="Tokens that go through the model together.")
    ] = "2,8,32",
    drafting: Annotated[
        bool, typer.Option("--drafting/--no-drafting", help="Also time a revision, with and without drafting.")
    ] = True,
    threads: Annotated[
        str | None, typer.Option("-t", "--threads", metavar="COUNTS", help="As 1,2,4.  [default: all cores]")
    ] = None,
    rounds: Annotated[int, typer.Option("-r", "--rounds", min=1, max=1000, help="How often all is measured.")] = 3,
    as_json: AsJson = False,
    quiet: Quiet = False,
    color: Colored = Color.AUTO,
) -> None:
    """Check every word first, measure in rounds, show the table of what is finished whatever happens."""
    from selfee.cli.chunk_progress import ChunkDisplay
    from selfee.errors import UsageError
    from selfee.eval.bench import Bench
    from selfee.eval.limits import MOST_THREADS
    from selfee.llama.model import physical_cores

    counts = [physical_cores()] if threads is None else parse_counts(threads, "--threads", MOST_THREADS)
    if not counts:
        raise UsageError(f"--threads '{threads}': expected a list such as 1,2,4")
    cases = _cases(prompt, generate, passes, drafting)
    paths: list[Path] = [local_file(name) for name in files or [DEFAULT_MODEL]]
    measured = Bench(paths, counts, cases, rounds)
    display = None if quiet else ChunkDisplay(screen_of(sys.stderr, color), measured.steps, unit="steps")
    try:
        measured.run(None if display is None else _Steps(display))
    finally:
        if display is not None:
            display.clear()
        if results := measured.results():
            _show(measured, results, screen_of(sys.stdout, color), as_json)


def parse_counts(text: str, option: str, most: int = _MOST) -> list[int]:
    """Numbers from a list such as 128,512, each once; none of them for "none". Raises UsageError naming ``option``."""
    from selfee.errors import UsageError

    if text.strip().lower() == _NONE:
        return []
    found: dict[int, None] = {}
    for part in text.split(","):
        word = part.strip()
        if not (word.isascii() and word.isdecimal() and len(word) < 10 and 1 <= int(word) <= most):
            raise UsageError(
                f"{option} '{text}': '{word}' is no number from 1 to {most}; expected a list such as 1,2,4"
            )
        found[int(word)] = None
    return list(found)


class _Steps:
    """Tells a display of each case that is done."""

    def __init__(self, display: Any) -> None:
        self._display = display
        self._done = 0

    def __call__(self, name: str) -> None:
        self._done += 1
        self._display.step(name, self._done)


def _cases(prompt: str, generate: str, passes: str, drafting: bool) -> list[Case]:
    from selfee.errors import UsageError
    from selfee.eval.bench_child import GENERATE, PASS, PROMPT, REVISION, Case

    cases = [Case(PROMPT, size) for size in parse_counts(prompt, "--prompt")]
    cases += [Case(GENERATE, size) for size in parse_counts(generate, "--generate")]
    cases += [Case(PASS, size) for size in parse_counts(passes, "--passes")]
    cases += [Case(REVISION), Case(REVISION, drafting=True)] if drafting else []
    if not cases:
        raise UsageError("--prompt, --generate, --passes: none of anything; expected something to measure")
    return cases


def _show(measured: Bench, results: list[FileResult], stdout: Screen, as_json: bool) -> None:
    if as_json:
        stdout.write_json(_as_json(measured, results), indent=2)
        return
    columns = (
        Column("file"),
        *(Column(title, is_number=True) for title in ("size", "threads")),
        Column("what"),
        *(Column(title, is_number=True) for title in ("tokens/s", "slowest", "fastest", "of reading", "of products")),
    )
    rows = [row for result in results for row in _rows(result)]
    stdout.write(render_table(columns, rows, stdout))
    for result in results:
        stdout.write("\n" + "".join(stdout.style(line, "dim") + "\n" for line in _facts(result)))


def _rows(result: FileResult) -> list[tuple[str, ...]]:
    from selfee.weights.disk import human_size

    head = (result.file, human_size(result.size), str(result.threads))
    return [
        (
            *(head if number == 0 else ("", "", "")),
            case.name,
            _rate(case.tokens_per_second),
            _rate(case.slowest),
            _rate(case.fastest),
            _percent(case.of_reading),
            _percent(case.of_multiplying),
        )
        for number, case in enumerate(result.cases)
    ]


def _facts(result: FileResult) -> list[str]:
    from selfee.weights.disk import human_size

    lines = [
        f"{for_terminal(result.file)}, {_count(result.threads, 'thread')}, {_count(result.rounds, 'round')}: "
        f"peak memory {human_size(result.peak_memory)}, loaded in {result.load_seconds:.1f} s",
        f"  a token reads {human_size(result.bytes_read)}; limits here: {result.read_limit / 1e9:.1f} GB/s read, "
        f"{result.multiply_limit / 1e9:,.0f} billion byte products/s",
    ]
    if gain := _gain(result.cases):
        lines.append(f"  drafting makes the revision {gain:.1f} times as fast")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _gain(cases: tuple[CaseResult, ...]) -> float | None:
    by_name = {case.name: case for case in cases}
    plain, drafted = by_name.get("revision"), by_name.get("revision-drafted")
    return drafted.tokens_per_second / plain.tokens_per_second if plain and drafted else None


def _as_json(measured: Bench, results: list[FileResult]) -> dict[str, Any]:
    from selfee import __version__
    from selfee.cli.doctoring.processor import processor_name
    from selfee.weights.quantize import isa

    return {
        "selfee": __version__,
        "processor": processor_name(),
        "instruction_set": isa(),
        "rounds": measured.rounds,
        "files": [result.as_json() for result in results],
    }


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
