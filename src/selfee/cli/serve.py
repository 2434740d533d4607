"""``selfee serve``: the chain, live, to any client."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from selfee.cli.ask import MODEL_HELP, ModeName, open_model
from selfee.cli.model_file import CacheTypeName
from selfee.cli.output import Color, screen_of
from selfee.engines.base import SamplingParams
from selfee.weights.fetch.builtin import BUILTIN_MODELS, DEFAULT_MODEL

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("serve")
def serve(
    model: Annotated[
        str, typer.Option("-m", "--model", help=MODEL_HELP, envvar="SELFEE_MODEL", show_envvar=False)
    ] = DEFAULT_MODEL,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    parallel: Annotated[int, typer.Option(help="Requests at a time.")] = 8,
) -> None:
    """Open the model and serve it."""
    from selfee.serve.config import Defaults, ServerConfig
    from selfee.serve.engine.jobs import ModelInfo
    from selfee.serve.engine.threads import ThreadBackend
    from selfee.serve.running import run_server

    stderr = screen_of(sys.stderr, Color.AUTO)
    builtin = BUILTIN_MODELS.get(model)
    defaults = Defaults()
    if builtin is not None:
        defaults = Defaults(
            params=SamplingParams(temperature=builtin.temperature),
            mode=ModeName(builtin.mode).value,
            prompts=builtin.prompts,
        )
    config = ServerConfig(host, port, defaults)
    engine = open_model(model, None, None, None, CacheTypeName.F16, True, None, None, stderr)
    name = model if builtin is not None else Path(model.partition(":")[2] or model).stem
    info = ModelInfo(name, engine.name, engine.context_length, parallel, "auto", True, True, int(time.time()))
    stderr.write(f"selfee serves {name} at {config.url}\n")
    run_server(config, ThreadBackend(engine, info))
