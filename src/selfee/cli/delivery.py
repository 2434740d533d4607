"""From a stream of events to what the user asked to see, whatever happens on the way."""

from __future__ import annotations

from dataclasses import dataclass

from selfee.chain.format import render_steps
from selfee.chain.record import to_json
from selfee.chain.run import ChainStream
from selfee.chain.types import Chain, ChainFinished
from selfee.cli.chain_view import ChainView, final_rule, wrapped
from selfee.cli.output import Screen, for_terminal
from selfee.cli.plain import plain_event
from selfee.errors import EngineError, SelfeeError


@dataclass(frozen=True)
class Wish:
    """What goes to stdout, and whether the chain is shown on stderr."""

    form: str = "final"  # "final", "raw", "json" or "jsonl"
    shows_chain: bool = True
    is_quiet: bool = False


def deliver_chain(stream: ChainStream, wish: Wish, stdout: Screen, stderr: Screen) -> None:
    """Show the chain while it is made and deliver its final answer; also after Ctrl-C or an error, if there is one.

    Raises what stopped the chain, and EngineError if not even the first answer was finished.
    """
    view = ChainView(stderr) if wish.shows_chain else None
    try:
        for event in stream:
            if view is not None:
                view.show(event)
            if wish.form == "jsonl":
                stdout.write_json(plain_event(event))
    except KeyboardInterrupt:
        stream.close()
        if view is not None:
            view.interrupt(stream.chain)
        if wish.form == "jsonl":
            stdout.write_json(plain_event(ChainFinished(stream.chain)))
        if stream.chain.delivered is not None or wish.form == "json":
            _print(stream.chain, wish, stdout, stderr)
        raise
    except SelfeeError:
        if stream.chain.delivered is not None or wish.form == "json":
            _print(stream.chain, wish, stdout, stderr)
        raise
    _print(stream.chain, wish, stdout, stderr)
    if stream.chain.delivered is None:
        found = "no answer was finished; what there is of it was printed"
        if not stream.chain.final.strip():
            found = "the model wrote no answer"
        raise EngineError(f"{stream.chain.status}; {found}")
    if not stream.chain.is_complete and view is None and not wish.is_quiet:
        stderr.write(for_terminal(stream.chain.status) + "\n")


def _print(chain: Chain, wish: Wish, stdout: Screen, stderr: Screen) -> None:
    """The result in the form wished for; nothing where nothing was made."""
    if wish.form == "json":
        stdout.write_json(to_json(chain))
    elif wish.form == "raw":
        text = render_steps(chain.steps, check=False)
        stdout.write((for_terminal(text) if stdout.is_terminal else text) + "\n" if text else "")
    elif wish.form == "final" and chain.final:
        if not stdout.is_terminal:
            stdout.write(chain.final + "\n")
            return
        if wish.shows_chain and stderr.is_terminal:
            stderr.write(final_rule(stderr))
        stdout.write(wrapped(chain.final, stdout.width) + "\n")
