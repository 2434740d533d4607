"""How fast conversations are collected, and what it takes, beside another package that finds near-duplicates.

    python benchmarks/data.py [--rows 100000] [--peer /path/to/python-with-datatrove]

Writes synthetic ShareGPT conversations (seeded: answers in the site's HTML with code, one in ten not English, one in
twenty asked before, one in twenty nearly so) and runs `selfee data collect` on them in a process of its own. Then
selfee and a peer only remove near-duplicates from the same questions, given as text. Seconds are those of the processor
(one core works, and other work on the machine does not count), start and all; peak memory is the process's, as the
kernel counts it.
"""

from __future__ import annotations

import argparse
import html
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.results import record

HERE = Path(__file__).resolve().parent

_ENGLISH = """the of and to in is that for it as with on be this by are from at which have an or not can will one all
there more when use time new also some these data first way well because any work even good after people through
between system small large number program question answer simple result language method value function market garden
river winter letter friend teacher student doctor kitchen window animal computer music water light history science
travel money health energy product design server network customer project morning evening country village building
write explain describe compare improve create summarize translate develop review plan build learn measure collect
quickly carefully usually often rarely clearly together today tomorrow however therefore although while during
against without within around across behind strong weak bright quiet modern ancient useful careful important
different possible common public private local global final early late long short high low"""
ENGLISH = _ENGLISH.split()
FOREIGN = [
    """der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat
    dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber""",
    """de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ha me si sin sobre
    este ya entre cuando todo esta ser son dos también fue había era muy años hasta desde está mi porque qué sólo""",
    """le de un être et à il avoir ne je son que se qui ce dans en du elle au pour pas que vous par sur faire plus dire
    me on mon lui nous comme mais pouvoir avec tout y aller voir bien où sans tu ou leur homme si deux""",
]
MOVED = 0.05  # share of the questions that were asked before, and again of those that nearly were
FOREIGN_SHARE = 0.1


def sentence(rng: random.Random, words: list[str], count: int) -> str:
    return " ".join(rng.choice(words) for _ in range(count)).capitalize()


def answer_html(rng: random.Random, words: list[str]) -> str:
    """An answer as the site shows it."""
    paragraphs = [f"<p>{sentence(rng, words, rng.randint(15, 60))}.</p>" for _ in range(rng.randint(1, 5))]
    if rng.random() < 0.3:
        code = "\n".join(f"    {rng.choice(words)}[{n}] = x < {n} && y > {n}" for n in range(rng.randint(3, 15)))
        head = '<div class="flex"><span>python</span><button class="ml-auto"><svg></svg>Copy code</button></div>'
        shown = "".join(f'<span class="hljs-built_in">{html.escape(line)}</span>\n' for line in code.split("\n"))
        block = f'<code class="!whitespace-pre hljs language-python">{shown}</code>'
        paragraphs.append(
            f'<pre><div class="bg-black">{head}<div class="p-4 overflow-y-auto">{block}</div></div></pre>'
        )
    if rng.random() < 0.3:
        items = "".join(
            f"<li><p><strong>{rng.choice(words)}</strong>: {sentence(rng, words, 9)}</p></li>" for _ in range(5)
        )
        paragraphs.append(f"<ol>{items}</ol>")
    return f'<div class="markdown prose w-full break-words dark:prose-invert light">{"".join(paragraphs)}</div>'


def conversations(count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """So many rows of ShareGPT's format."""
    rng = random.Random(seed)
    foreign = [words.split() for words in FOREIGN]
    asked: list[str] = []
    for number in range(count):
        words = rng.choice(foreign) if rng.random() < FOREIGN_SHARE else ENGLISH
        draw = rng.random()
        question = sentence(rng, words, int(min(400, rng.lognormvariate(3.4, 0.9)) + 4)) + "?"
        if asked and draw < MOVED:
            question = rng.choice(asked)
        elif asked and draw < 2 * MOVED:
            changed = rng.choice(asked).split()
            changed[rng.randrange(len(changed))] = rng.choice(ENGLISH)
            question = " ".join(changed)
        elif words is ENGLISH and len(asked) < 5000:
            asked.append(question)
        turns = [("human", question), ("gpt", answer_html(rng, words))] + [("human", "Thanks"), ("gpt", "Welcome")] * 2
        yield {"id": f"c{number}", "conversations": [{"from": who, "value": text} for who, text in turns]}


def write_rows(path: Path, count: int) -> None:
    """The rows as one JSON array, as published."""
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(conversations(count)):
            file.write((",\n" if number else "[\n") + json.dumps(row, ensure_ascii=False))
        file.write("\n]\n")


def measured(*command: str) -> dict[str, float]:
    """What a command cost; see measured.py."""
    done = subprocess.run(
        [sys.executable, "-S", str(HERE / "measured.py"), *command], capture_output=True, text=True, check=True
    )
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if told["exit"]:
        sys.exit(f"data.py: {' '.join(command)}: ended with {told['exit']}; expected 0\n{done.stderr}")
    return {"seconds": told["user"] + told["system"], "MB": told["peak"] / 1e6}


def collecting(rows: Path, out: Path) -> dict[str, float]:
    """What `selfee data collect` cost."""
    return measured(sys.executable, "-m", "selfee.cli", "data", "collect", f"sharegpt:{rows}", "-o", str(out), "-q")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument(
        "--peer",
        help="a Python that has datatrove[processing,io] and spacy, to compare the search for near-duplicates with",
    )
    given = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows, out = folder / "sg.json", folder / "samples.jsonl"
        write_rows(rows, given.rows)
        size = rows.stat().st_size
        whole = collecting(rows, out)
        figures |= {"rows": given.rows, "input MB": size / 1e6, "collect rows/s": given.rows / whole["seconds"]}
        figures |= {f"collect {unit}": value for unit, value in whole.items()}
        report = json.loads((folder / "samples.report.json").read_text())["sources"]["sharegpt"]
        figures |= {"kept": report["kept"]} | {f"rejected, {why}": count for why, count in report["rejected"].items()}
        texts = folder / "questions.jsonl"
        with texts.open("w", encoding="utf-8") as file:
            for row in conversations(given.rows):
                file.write(json.dumps({"text": row["conversations"][0]["value"], "id": row["id"]}) + "\n")
        for name, python in {"selfee": sys.executable, "datatrove": given.peer}.items():
            if python:
                told = measured(python, str(HERE / "data_duplicates.py"), name, str(texts))
                figures |= {f"near-duplicates, {name} {unit}": value for unit, value in told.items()}
                figures[f"near-duplicates, {name} dropped"] = int((folder / f"{name}.count").read_text())
    record("data", figures, isa="python")


if __name__ == "__main__":
    main()
