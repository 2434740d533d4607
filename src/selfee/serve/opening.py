"""From what a person calls a model to one that is served: a file in a process of its own, others in threads."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfee.chain.run import choose_mode
from selfee.engines.base import Engine
from selfee.engines.open import open_engine
from selfee.serve.config import Defaults
from selfee.serve.engine.jobs import ModelInfo
from selfee.serve.engine.process import ProcessBackend
from selfee.serve.engine.threads import ThreadBackend
from selfee.serve.service import Served


@dataclass(frozen=True)
class Opening:
    """A model to be served: its name for clients, what ``open_engine`` needs, how its chains are made."""

    name: str
    options: Mapping[str, Any]
    defaults: Defaults
    parallel: int

    @property
    def is_local(self) -> bool:
        """Whether it is a file on this machine."""
        return not str(self.options["spec"]).lower().startswith(("http://", "https://", "script:"))

    def served(self) -> Served:
        """The model, not loaded yet where it is a file; a server or a script is opened here."""
        if self.is_local:
            return Served(ProcessBackend({**self.options, "parallel": self.parallel}, self._describe), self.defaults)
        engine = open_engine(**self.options)
        mode = choose_mode(engine, self.defaults.mode)
        length = getattr(engine, "context_length", None)
        info = ModelInfo(
            self.name, engine.name, length, self.parallel, mode, isinstance(engine, Engine), int(time.time())
        )
        return Served(ThreadBackend(engine, info), self.defaults)

    def _describe(self, told: Mapping[str, Any]) -> ModelInfo:
        mode = self.defaults.mode
        if mode == "auto":
            mode = "single-pass" if told["trained_on_chains"] else "turns" if told["supports_chat"] else "guided"
        return ModelInfo(
            self.name,
            told["name"],
            told["context_length"],
            told["parallel"],
            mode,
            True,
            int(time.time()),
            told["end_text"],
        )
