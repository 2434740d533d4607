"""Turn by turn: the model writes until it ends, a reverse prompt appears or somebody interrupts; then a person types.

The order of events is that of June 2023 (spec: ggml-formats §7); where ``is_2023`` is asked, a comment says what
differs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from selfee.cli.main2023.console import Console
from selfee.cli.main2023.prompts import INSTRUCTION, BareDecoder, Encoder, tail_of
from selfee.errors import ContextOverflowError
from selfee.llama.decoder import StreamDecoder
from selfee.llama.tokenizer import Tokenizer

Logits = npt.NDArray[np.float32]

MOST_TOKENS = 512
"""Of a prompt, at a time."""

_SPARE = 4  # tokens of context that a prompt must leave


class Session(Protocol):
    """What the loop needs of a session."""

    @property
    def length(self) -> int: ...

    @property
    def context_length(self) -> int: ...

    def truncate(self, length: int) -> None: ...

    def forward(self, tokens: Sequence[int], logits_for: Literal["last"] = "last") -> Logits: ...


class Sampler(Protocol):
    """What the loop needs of a sampler."""

    def begin(self, tokens: Sequence[int]) -> None: ...

    def read(self, tokens: Sequence[int]) -> None: ...

    def sample(self, logits: Logits) -> int: ...


@dataclass(frozen=True)
class Turns:
    """Who speaks when."""

    n_predict: int = -1  # -1 = no end, -2 = until the context is full
    keep: int = 0  # tokens of the prompt that stay when the context is full; -1 = all
    batch: int = MOST_TOKENS  # tokens of a prompt taken at a time
    interactive: bool = False
    begins: bool = False  # the person, and not the model
    instruct: bool = False
    reverse_prompts: Sequence[str] = ()
    in_prefix: str = ""
    in_suffix: str = ""
    is_2023: bool = False


@dataclass
class Counts:
    """Tokens and seconds."""

    read: int = 0
    written: int = 0
    reading: float = 0.0
    writing: float = 0.0
    swaps: int = 0

    def __str__(self) -> str:
        def rate(count: int, seconds: float) -> str:
            return f"{count} tokens in {seconds:.2f} s" + (f" ({count / seconds:.1f}/s)" if seconds > 0 else "")

        return f"read {rate(self.read, self.reading)}, wrote {rate(self.written, self.writing)}"


@dataclass
class _State:
    """What the model has been given, and what comes next."""

    queue: deque[int]  # tokens of the prompt or a person that are still to be read
    remain: int
    pending: list[int] = field(default_factory=list)  # to be evaluated next
    text: list[int] = field(default_factory=list)  # all there was, in order, also what the context has lost
    logits: Logits | None = None
    is_shown: bool = True  # whether what is pending is to be shown
    is_stopped: bool = False  # by a reverse prompt
    has_begun: bool = False


class Loop:
    """One call of ``selfee main``.

    ``prompt``: its tokens. ``held``: those of them that the session holds already. ``on_prompt_read`` is called once,
    before the first token is sampled, while the session holds the prompt and nothing else.
    """

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        sampler: Sampler,
        turns: Turns,
        console: Console,
        prompt: Sequence[int],
        *,
        held: int = 0,
        on_prompt_read: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        room = session.context_length - _SPARE
        if len(prompt) > room:
            raise ContextOverflowError(
                f"prompt: {len(prompt)} tokens; expected at most {room}, which leaves {_SPARE} of the context; shorten "
                "it or choose a larger -c"
            )
        self.counts = Counts()
        self.is_interacting = False
        self.was_swapped = False
        self._session, self._tokenizer, self._sampler, self._turns = session, tokenizer, sampler, turns
        self._console = console
        self._encoder = Encoder(tokenizer, turns.is_2023)
        self.keep = len(prompt) if turns.instruct or not 0 <= turns.keep <= len(prompt) else turns.keep
        self._ends: set[int | None] = {tokenizer.eos} if turns.is_2023 else set(tokenizer.end_tokens)
        reverse = [text.encode() for text in turns.reverse_prompts if text]
        self._reverse = [*reverse, INSTRUCTION.lstrip("\n").encode()] if turns.instruct else reverse
        # Somebody who takes turns goes on where the context is full.
        self._limit = -1 if turns.n_predict == -2 and turns.interactive and not turns.is_2023 else turns.n_predict
        self._state = _State(deque(prompt), self._limit)
        self._known = held  # tokens of the prompt that need not be evaluated
        self._past = 0  # tokens that count as read: behind the session's length as long as some are known
        self._on_prompt_read = on_prompt_read
        self._decoder: BareDecoder | StreamDecoder = (
            BareDecoder(tokenizer) if turns.is_2023 else tokenizer.stream_decoder(start_of_text=True)
        )

    @property
    def held_tokens(self) -> list[int]:
        """What the session holds, unless the context was swapped."""
        return self._state.text[: self._session.length]

    def interrupt(self) -> None:
        """Ctrl-C: the word goes to the person. Raises KeyboardInterrupt where it is theirs already."""
        if self.is_interacting:
            raise KeyboardInterrupt
        self.is_interacting = True

    def run(self) -> None:
        """Until the model has ended, its tokens are used up, or the person leaves."""
        state, turns = self._state, self._turns
        self._sampler.begin([])
        self.is_interacting = turns.begins or turns.instruct
        self._console.color("prompt")
        while (state.remain != 0 and not state.is_stopped) or turns.interactive:
            if state.pending and not self._evaluate():
                break
            if not state.queue and not self.is_interacting:
                self._write_one()
            else:
                self._read_some()
            self._show()
            if not state.queue:
                self._look_for_reverse_prompt()
                if state.has_begun and self.is_interacting:
                    if not self._listen():
                        break
                    self.is_interacting = False  # only here: elsewhere a Ctrl-C that has just come would be forgotten
            if state.pending and state.pending[-1] in self._ends:
                if not turns.instruct:
                    self._console.color("text")
                    self._console.note(" [end of text]")
                    break
                self.is_interacting = True
            if turns.interactive and state.remain <= 0 and self._limit != -1:
                state.remain = self._limit
                self.is_interacting = True
        self._console.write(self._decoder.finish())
        self._console.color("text")

    def _evaluate(self) -> bool:
        """What is pending; False if the context is full and that is the end."""
        state = self._state
        is_prompt = len(state.pending) > 1 or bool(state.queue)
        longest = self._session.context_length - _SPARE
        if len(state.pending) > longest:
            self._skipped(len(state.pending) - longest)
            del state.pending[longest:]
        is_full = self._past + len(state.pending) > self._session.context_length
        if is_full and self._turns.n_predict == -2 and self._limit == -2 and not self._turns.is_2023:
            return False
        if is_full:
            self._swap()
        known = min(self._known, len(state.pending))
        self._known -= known
        self._past += len(state.pending)
        fresh = state.pending[known:]
        if fresh:
            started = time.monotonic()
            state.logits = self._session.forward(fresh, "last")[-1]
            seconds = time.monotonic() - started
            if is_prompt:
                self.counts.read, self.counts.reading = self.counts.read + len(fresh), self.counts.reading + seconds
            else:
                self.counts.writing += seconds
        state.has_begun = True
        return True

    def _swap(self) -> None:
        """Make room: keep the beginning, and of the rest the last half, which is evaluated again."""
        state, context = self._state, self._session.context_length
        kept = max(1, self.keep)  # the first token always stays
        half = (self._past - self.keep) // 2
        room = context - kept - len(state.pending)
        if room < 0:  # 2023 wrote beyond its memory here
            longest = max(1, (context - kept) // 2)
            self._skipped(len(state.pending) - longest)
            state.pending = state.pending[-longest:]
            room = 0
        carried = max(0, min(half, room))
        end = len(state.text) - len(state.pending)
        state.pending = state.text[end - carried : end] + state.pending
        self._session.truncate(kept)
        self._past, self._known = kept, 0
        self.was_swapped = True
        self.counts.swaps += 1

    def _skipped(self, count: int) -> None:
        self._console.color("error")
        self._console.write(f"<<input too long: skipped {count} token{'s' if count != 1 else ''}>>")
        self._console.color("text")

    def _write_one(self) -> None:
        state, turns = self._state, self._turns
        if self._on_prompt_read is not None and not self.was_swapped:
            self._on_prompt_read(self.held_tokens)
            self._on_prompt_read = None
        assert state.logits is not None, "the prompt has at least one token"
        started = time.monotonic()
        token = self._sampler.sample(state.logits)
        self.counts.writing += time.monotonic() - started
        self.counts.written += 1
        if token in self._ends and turns.interactive and not turns.instruct:
            # A person goes on where the text would have ended.
            token = (self._encoder.more("\n") or [token])[0]
            if self._reverse:
                state.queue += self._encoder.more(self._reverse[0].decode())
        state.text.append(token)
        state.pending = [token]
        state.is_shown = True
        state.remain -= 1

    def _read_some(self) -> None:
        state = self._state
        state.pending = [state.queue.popleft() for _ in range(min(self._turns.batch, len(state.queue)))]
        state.text += state.pending
        self._sampler.read(state.pending)

    def _show(self) -> None:
        state = self._state
        if state.is_shown:
            self._console.write("".join([self._decoder.feed(token) for token in state.pending]))
            if not state.queue:
                self._console.color("text")

    def _look_for_reverse_prompt(self) -> None:
        if not self._reverse:
            return
        longest = max(map(len, self._reverse))
        context = self._session.context_length
        tail, last = tail_of(self._tokenizer, self._state.text[-context:], longest + 64)
        # The token that completes it may have more text behind. In 2023 two more bytes were allowed without a person,
        # and none with one, who then was not given the word.
        more = max(0, last - 1)
        if self._turns.is_2023:
            more = 0 if self._turns.interactive else 2
        found = any(tail.find(text, max(0, len(tail) - len(text) - more)) >= 0 for text in self._reverse)
        self._state.is_stopped = found
        if found and self._turns.interactive:
            self.is_interacting = True

    def _listen(self) -> bool:
        """Let the person type; False if they have left."""
        state, turns = self._state, self._turns
        self._console.color("input" if state.is_stopped else "text")
        if turns.instruct:
            self._console.write("\n> ")
        self._console.write(turns.in_prefix)
        entry = self._console.read()
        if entry.at_end and not entry.text:
            return False
        # In 2023 one character alone counted as nothing, and a line break behind a prefix as something.
        said = turns.in_prefix + entry.text
        if len(said) > 1 if turns.is_2023 else not entry.is_empty:
            self._console.write(turns.in_suffix)
            self._take(said + turns.in_suffix)
        state.is_shown = False
        if not turns.is_2023:
            self._decoder = self._tokenizer.stream_decoder()
        return True

    def _take(self, said: str) -> None:
        state, turns = self._state, self._turns
        if turns.instruct:
            tokens, own = self._encoder.instruction(said, is_announced=state.is_stopped)
        else:
            tokens = self._encoder.more(said)
            own = len(tokens)
        state.queue += tokens
        if turns.is_2023:  # what was typed counted against -n
            state.remain -= own
