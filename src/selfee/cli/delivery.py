"""From a stream of events to what the user asked to see, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from selfee.chain.allowance import Allowance
from selfee.chain.budgets import Budgets
from selfee.chain.checkers import Checker
from selfee.chain.format import render_steps
from selfee.chain.policy import RevisionPolicy
from selfee.chain.record import samples_to_json, to_json
from selfee.chain.resampling import SampleEvent, SamplesStream, stream_samples
from selfee.chain.run import ChainStream, Mode, stream_chain
from selfee.chain.samples import Samples, SamplesEnd, SamplesFinished
from selfee.chain.types import Chain, ChainFinished, Event, Instruction
from selfee.cli.chain_view import ChainView, final_rule, wrapped
from selfee.cli.choosing import Chooser
from selfee.cli.output import Screen, for_terminal
from selfee.cli.plain import plain_event
from selfee.cli.samples_view import SamplesView
from selfee.engines.base import SamplingParams
from selfee.errors import EngineError, SelfeeError

E = TypeVar("E", bound=Event | SampleEvent)
E_co = TypeVar("E_co", bound=Event | SampleEvent, covariant=True)
E_contra = TypeVar("E_contra", bound=Event | SampleEvent, contravariant=True)
R = TypeVar("R", Chain, Samples)
R_contra = TypeVar("R_contra", Chain, Samples, contravariant=True)


@dataclass(frozen=True)
class Wish:
    """What goes to stdout, and whether the chain is shown on stderr."""

    form: str = "final"  # "final", "raw", "json" or "jsonl"
    shows_chain: bool = True
    is_quiet: bool = False


@dataclass(frozen=True)
class Task:
    """What to ask, and how the model is driven."""

    instruction: Instruction
    policy: RevisionPolicy
    params: SamplingParams
    budgets: Budgets
    allowance: Allowance
    mode: Mode
    prompts: str | None
    stop: tuple[str, ...]


def deliver(
    engine: object, task: Task, chooser: Chooser, checker: Checker | None, wish: Wish, stdout: Screen, stderr: Screen
) -> None:
    """Make a chain, or several attempts, and deliver the answer."""
    if chooser.samples:
        samples = stream_samples(
            engine,
            task.instruction,
            chooser.count,
            task.params,
            keep=chooser.keep,
            extractor=chooser.extractor,
            allowance=task.allowance,
            checker=checker,
            until_passed=chooser.until_passed,
            mode=task.mode,
            budgets=task.budgets,
            prompts=task.prompts,
            stop=task.stop,
        )
        deliver_samples(samples, wish, stdout, stderr)
        return
    chain = stream_chain(
        engine,
        task.instruction,
        task.policy,
        task.params,
        mode=task.mode,
        budgets=task.budgets,
        prompts=task.prompts,
        selector=chooser.selector,
        stop=task.stop,
        allowance=task.allowance,
        checker=checker,
        until_passed=chooser.until_passed,
    )
    deliver_chain(chain, wish, stdout, stderr)


def deliver_chain(stream: ChainStream, wish: Wish, stdout: Screen, stderr: Screen) -> None:
    """Show the chain while it is made and deliver its final answer; also after Ctrl-C or an error, if there is one.

    Raises what stopped the chain, and EngineError if not even the first answer was finished.
    """
    view = ChainView(stderr) if wish.shows_chain else None
    _follow(
        stream,
        view,
        wish,
        stdout,
        lambda: stream.chain,
        ChainFinished,
        lambda chain: _print(chain, wish, stdout, stderr),
    )
    chain = stream.chain
    if chain.delivered is None:
        found = "no answer was finished; what there is of it was printed"
        if not chain.final.strip():
            found = "the model wrote no answer"
        raise EngineError(f"{chain.status}; {found}")
    if not chain.is_complete and view is None and not wish.is_quiet:
        stderr.write(for_terminal(chain.status) + "\n")


def deliver_samples(stream: SamplesStream, wish: Wish, stdout: Screen, stderr: Screen) -> None:
    """As ``deliver_chain``, for several attempts."""
    view = SamplesView(stderr) if wish.shows_chain else None
    _follow(
        stream,
        view,
        wish,
        stdout,
        lambda: stream.samples,
        SamplesFinished,
        lambda samples: _print_samples(samples, wish, stdout, stderr),
    )
    samples = stream.samples
    if samples.delivered is None:
        raise EngineError(f"{samples.status}; no attempt was finished with an answer")
    if samples.end is SamplesEnd.CUT_OFF and view is None and not wish.is_quiet:
        stderr.write(for_terminal(samples.status) + "\n")


class _Stream(Protocol[E_co]):
    """Events that can be broken off."""

    def __iter__(self) -> Iterator[E_co]: ...

    def close(self) -> None: ...


class _View(Protocol[E_contra, R_contra]):
    """Shows events, and what there is where the user stops them."""

    def show(self, event: E_contra) -> None: ...

    def interrupt(self, made: R_contra, /) -> None: ...


def _follow(
    stream: _Stream[E],
    view: _View[E, R] | None,
    wish: Wish,
    stdout: Screen,
    made: Callable[[], R],
    last_event: Callable[[R], E],
    show_result: Callable[[R], None],
) -> None:
    """Show events as they come and the result at the end, or what there is of it where something stops the stream."""

    def show_finished() -> None:
        if made().delivered is not None or wish.form == "json":
            show_result(made())

    try:
        for event in stream:
            if view is not None:
                view.show(event)
            if wish.form == "jsonl":
                stdout.write_json(plain_event(event))
    except KeyboardInterrupt:
        stream.close()
        if view is not None:
            view.interrupt(made())
        if wish.form == "jsonl":
            stdout.write_json(plain_event(last_event(made())))
        show_finished()
        raise
    except SelfeeError:
        show_finished()
        raise
    show_result(made())


def _print(chain: Chain, wish: Wish, stdout: Screen, stderr: Screen) -> None:
    """The result in the form wished for; nothing where nothing was made."""
    if wish.form == "json":
        stdout.write_json(to_json(chain))
    elif wish.form == "raw":
        _print_raw(chain, stdout)
    elif wish.form == "final":
        _print_final(chain.final, wish, stdout, stderr)


def _print_samples(samples: Samples, wish: Wish, stdout: Screen, stderr: Screen) -> None:
    """As ``_print``; raw is the text of the attempt that is delivered."""
    if wish.form == "json":
        stdout.write_json(samples_to_json(samples))
    elif wish.form == "raw" and samples.attempts:
        _print_raw(samples.attempts[samples.delivered or 0], stdout)
    elif wish.form == "final":
        _print_final(samples.final, wish, stdout, stderr)


def _print_raw(chain: Chain, stdout: Screen) -> None:
    text = render_steps(chain.steps, check=False)
    stdout.write((for_terminal(text) if stdout.is_terminal else text) + "\n" if text else "")


def _print_final(answer: str, wish: Wish, stdout: Screen, stderr: Screen) -> None:
    if answer and not stdout.is_terminal:
        stdout.write(answer + "\n")
    elif answer:
        if wish.shows_chain and stderr.is_terminal:
            stderr.write(final_rule(stderr))
        stdout.write(wrapped(answer, stdout.width) + "\n")
