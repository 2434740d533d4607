"""Every error selfee raises on purpose.

The whole tree::

    SelfeeError                    anything a person can act on; printed as one paragraph, never a traceback
    ├── UsageError                 the words typed or the arguments given do not fit           (exit code 2)
    ├── BadFileError               a file is damaged, hostile or of the wrong kind             (exit code 2)
    │   └── UnsupportedFileError   a sound file of a kind we do not read (architecture, type)  (exit code 2)
    ├── MissingExtraError          an optional package is not installed                        (exit code 1)
    ├── ResourceError              not enough memory or disk, limit reached                    (exit code 1)
    ├── ContextOverflowError       prompt and answer do not fit into the context window        (exit code 1)
    ├── EngineError                an engine could not continue a text; ``retryable`` says if a retry may help
    │   └── EngineTimeoutError     no byte arrived within the time allowed
    ├── StoppedError               work was stopped on purpose (budget, broken server); all is kept (exit code 1)
    └── DownloadError              a model could not be fetched or did not match its checksum  (exit code 1)

A message reads *where: what was found; what was expected; what to do.*
"""

from __future__ import annotations


class SelfeeError(Exception):
    """Base of every error that is the user's to act on."""

    exit_code = 1


class UsageError(SelfeeError):
    """The arguments given do not fit together or are out of range."""

    exit_code = 2


class BadFileError(SelfeeError):
    """A file is damaged, hostile, or not what its name promises."""

    exit_code = 2


class UnsupportedFileError(BadFileError):
    """A sound file of a kind that selfee does not read."""


class MissingExtraError(SelfeeError):
    """An optional package is not installed; the message names the extra."""


class ResourceError(SelfeeError):
    """Not enough memory, disk or quota for what was asked."""


class ContextOverflowError(SelfeeError):
    """A prompt, or a prompt and its answer, do not fit into the context window."""


class EngineError(SelfeeError):
    """An engine could not continue a text.

    ``retryable`` is true where asking again later may succeed; ``kind`` is one word for counting: "server", "rate",
    "key", "refused", "connection", "cut", "malformed", "endless", "timeout", "filtered" … or "engine".
    """

    def __init__(self, message: str, *, retryable: bool = False, kind: str = "engine") -> None:
        super().__init__(message)
        self.retryable = retryable
        self.kind = kind


class EngineTimeoutError(EngineError):
    """No byte arrived from an engine within the time allowed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True, kind="timeout")


class StoppedError(SelfeeError):
    """Work was stopped on purpose, by a limit or by a person: nothing failed, and what was done is kept."""


class DownloadError(SelfeeError):
    """A model file could not be fetched, or what came does not match its checksum."""
