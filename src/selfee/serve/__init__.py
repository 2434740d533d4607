"""The chain, live, to any client: an HTTP server that speaks OpenAI's API, our own, and a web page.

``ServerConfig`` says what to serve and how; ``make_app`` builds the application over a backend, ``run_server`` serves
it. Async lives here and nowhere else. Never reads the environment, and never writes what people asked or were answered
unless told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfee.lazy import lazy_names

if TYPE_CHECKING:
    from selfee.serve.app import make_app as make_app
    from selfee.serve.config import ServerConfig as ServerConfig

__all__ = ["ServerConfig", "make_app"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ServerConfig": "selfee.serve.config",
        "make_app": "selfee.serve.app",
    },
)
