"""An application that is made once and served by processes forked from it: ``python -m tests.serve.forking MODEL``.

As servers do it that load an application before they fork. Prints the port and the processes, then serves until its
input ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from tests.serve.processes import served_process

from selfee.serve.app import make_app
from selfee.serve.config import ServerConfig


def main() -> None:
    """Make, fork twice, wait."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port = listening.getsockname()[1]
        app = make_app(ServerConfig("127.0.0.1", port), [served_process(Path(sys.argv[1]))])
        children = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[listening])
                os._exit(0)
            children.append(pid)
    print(port, *children, flush=True)
    sys.stdin.read()
    for pid in children:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
