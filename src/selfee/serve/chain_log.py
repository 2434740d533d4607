"""Keeps whole chains in a file, for whoever asked for it: one JSON line each, readable for its owner alone."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path

from selfee.chain.record import to_json
from selfee.chain.types import Chain
from selfee.errors import UsageError

_LOG = logging.getLogger("selfee.serve")


class ChainLog:
    """Appends to a file. What cannot be written is told in the log and lost: nobody's answer waits for it."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror}); expected a file to append to") from error
        self._path = path
        self._lock = threading.Lock()

    def add(self, model: str, chain: Chain) -> None:
        """Keep a chain."""
        row = {"time": round(time.time(), 3), "model": model} | to_json(chain)
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            with self._lock:
                os.write(self._file, line)
        except OSError as error:
            facts = {"path": str(self._path), "reason": error.strerror}
            _LOG.warning("chain not kept", extra={"facts": facts})

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
