"""Runs the application until it is told to end."""

from __future__ import annotations

import uvicorn

from selfee.serve.app import make_app
from selfee.serve.config import ServerConfig
from selfee.serve.engine.backend import Backend


def run_server(config: ServerConfig, backend: Backend) -> None:
    """Serve until a signal comes."""
    app = make_app(config, backend)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            http="h11",
            ws="none",
        )
    )
    server.run()
