"""``--prompt-cache``: what the model has read, kept in a file of our own form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selfee.cli.main2023.console import Console
from selfee.cli.main2023.flags import MainOptions
from selfee.cli.places import require_writable
from selfee.errors import SelfeeError
from selfee.llama.model import Session
from selfee.llama.session_file import load_session, save_session


@dataclass
class PromptCache:
    """A session's file, or none. ``tokens``: what it held."""

    session: Session
    console: Console
    remembered: Path
    path: Path | None = None
    tokens: Sequence[int] = ()
    keeps_all: bool = False
    is_read_only: bool = False
    _covers_prompt: bool = field(default=False, init=False)

    @classmethod
    def open(cls, options: MainOptions, session: Session, console: Console, remembered: Path) -> PromptCache:
        """Restore the session from the file that is named, if it is there.

        Raises BadFileError for a file that is no session or damaged, UnsupportedFileError for one of another model,
        UsageError where none can be written.
        """
        if options.prompt_cache is None:
            return cls(session, console, remembered)
        path = Path(options.prompt_cache)
        if not options.prompt_cache_ro:
            require_writable(path)
        console.note(f"main: attempting to load saved session from '{path}'")
        tokens: Sequence[int] = ()
        if path.exists() and path.stat().st_size:
            tokens = load_session(path, session, remembered=remembered)
            console.note(f"main: loaded a session with prompt size of {len(tokens)} tokens")
        else:
            console.note("main: session file does not exist, will create")
        return cls(session, console, remembered, path, tokens, options.prompt_cache_all, options.prompt_cache_ro)

    def align(self, prompt: Sequence[int]) -> int:
        """Leave in the session what it shares with the prompt, but its last token; returns how many tokens."""
        shared = 0
        while shared < min(len(prompt), len(self.tokens)) and prompt[shared] == self.tokens[shared]:
            shared += 1
        self._covers_prompt = shared == len(prompt)
        if self.tokens:
            self.console.note(f"main: session file matches {shared} / {len(prompt)} tokens of prompt")
        held = min(shared, len(prompt) - 1)
        self.session.truncate(held)
        return held

    def save_prompt(self, tokens: Sequence[int]) -> None:
        """Keep the prompt, where the file does not hold all of it already."""
        if not self._covers_prompt:
            self._save(tokens)

    def save_all(self, tokens: Sequence[int]) -> None:
        """Keep everything, where that is wished."""
        if self.path is not None and self.keeps_all and tokens and not self.is_read_only:
            self.console.note(f"main: saving final output to session file '{self.path}'")
            self._save(tokens)

    def _save(self, tokens: Sequence[int]) -> None:
        """A cache that cannot be written costs no text."""
        if self.path is None or self.is_read_only:
            return
        try:
            save_session(self.path, self.session, tokens, remembered=self.remembered)
        except SelfeeError as error:
            self.console.note(f"main: {error} (the cache was not saved)")
