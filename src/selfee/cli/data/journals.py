"""``selfee data journal``: what a journal holds, and several made into one."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from selfee.cli.output import Color, for_terminal, screen_of

app = typer.Typer(
    name="journal",
    help="Show what a journal of replies holds, or merge the journals of several machines.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Examples:\n\n\b\n  selfee data journal show chains.journal\n"
    "  selfee data journal merge all.journal part1.journal part2.journal",
)
_JSON = "Print JSON."


@app.command(epilog="Examples:\n\n\b\n  selfee data journal show chains.journal")
def show(
    journal: Annotated[Path, typer.Argument(help="The journal.")],
    as_json: Annotated[bool, typer.Option("--json", help=_JSON)] = False,
) -> None:
    """Show replies, tokens, cost, and questions without a reply, by model and by why they failed."""
    from selfee.journal import Journal

    models: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    with Journal(_existing(journal)) as opened:
        for entry in opened.entries():
            if entry.reply is None:
                faults[str((entry.fault or {}).get("kind", "under way, or killed"))] += 1
                continue
            models[str(entry.asked.get("model", "?") if isinstance(entry.asked, dict) else "?")] += 1
            usage = entry.reply.get("usage") if isinstance(entry.reply, dict) else None
            for name in ("prompt_tokens", "completion_tokens"):
                tokens[name] += (usage or {}).get(name, 0)
        row = {
            "replies": len(opened),
            "cost": round(opened.spent(), 6),
            "prompt_tokens": tokens["prompt_tokens"],
            "completion_tokens": tokens["completion_tokens"],
            "models": dict(models.most_common()),
            "without_reply": dict(faults.most_common()),
            "orphaned": opened.num_orphaned(),
        }
    stdout = screen_of(sys.stdout, Color.AUTO)
    if as_json:
        stdout.write_json(row, indent=2)
        return
    lines = [f"{row['replies']:,} replies, ${row['cost']:.4f}, {tokens['prompt_tokens']:,} tokens in, "]
    lines[0] += f"{tokens['completion_tokens']:,} out"
    lines += [f"  {count:,} of {model}" for model, count in models.most_common()]
    lines += [f"without a reply: {count:,} ({kind})" for kind, count in faults.most_common()]
    stdout.write(for_terminal("\n".join(lines)) + "\n")


@app.command(epilog="Examples:\n\n\b\n  selfee data journal merge all.journal part1.journal part2.journal")
def merge(
    into: Annotated[Path, typer.Argument(help="The journal to add to; made if missing.")],
    others: Annotated[list[Path], typer.Argument(help="The journals to take over; they stay as they are.")],
    as_json: Annotated[bool, typer.Option("--json", help=_JSON)] = False,
) -> None:
    """Make one journal of several: of shards that ran on other machines, or of two runs."""
    from selfee.errors import UsageError
    from selfee.journal import Journal

    if any(path.resolve() == into.resolve() for path in others):
        raise UsageError(f"{into}: is to be added to itself; expected other journals")
    for path in others:
        _existing(path)
    rows = []
    with Journal(into) as opened:
        for path in others:
            merged = opened.merge(path)
            rows.append({"journal": str(path)} | vars(merged))
        total = len(opened)
    stdout = screen_of(sys.stdout, Color.AUTO)
    if as_json:
        stdout.write_json({"replies": total, "merged": rows}, indent=2)
        return
    for row in rows:
        twice = f", {row['conflicting']:,} of them answered twice" if row["conflicting"] else ""
        stdout.write(for_terminal(f"{row['journal']}: {row['added']:,} new, {row['known']:,} known{twice}\n"))
    stdout.write(for_terminal(f"{into}: {total:,} replies\n"))


def _existing(path: Path) -> Path:
    from selfee.errors import UsageError

    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a journal")
    return path
