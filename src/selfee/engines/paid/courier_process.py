"""The courier: ``python -m selfee.engines.paid.courier_process``, spoken to in JSON lines by ``CourierDesk``.

Started by selfee itself. The first line holds the settings (keys come this way and no other), each later one a call or
the order to stop. At the end of input, whoever asked is gone: no new calls, but those under way are brought home.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, TextIO

from selfee.engines.paid.calling import CallFailedError
from selfee.engines.paid.opening import PaidServer, RemoteDesk
from selfee.engines.paid.plain import from_plain
from selfee.errors import ContextOverflowError, SelfeeError, StoppedError, UsageError
from selfee.journal import Journal

_TELL = 0.25  # seconds between two readings of the meter
_GONE = "stopped: the program that asked is gone"


class _Courier:
    def __init__(self, desk: RemoteDesk, output: TextIO) -> None:
        self._desk = desk
        self._output = output
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._teller = threading.Thread(target=self._tell_meter, daemon=True)
        self._teller.start()

    def carry(self, key: str, asked: dict[str, Any]) -> None:
        """Make one call and say what came of it."""
        told: dict[str, Any] = {"key": key}
        try:
            self._desk.obtain(key, asked)
        except StoppedError as error:
            told["stopped"] = str(error)
        except ContextOverflowError as error:
            told["overflow"] = str(error)
        except CallFailedError as error:
            told |= {"fault": asdict(error.fault), "attempts": error.attempts}
        except UsageError as error:
            told["usage"] = str(error)
        except SelfeeError as error:
            told["error"] = str(error)
        except Exception as error:  # a bug of ours must not leave the asker waiting for ever
            told["error"] = f"{type(error).__name__}: {error}"
        self.tell(told)

    def tell(self, message: dict[str, Any]) -> None:
        """Say something, if anybody still listens."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            # With the lock held, so that no older numbers are told after newer ones.
            message["meter"] = self._desk.read().to_json()
            self._output.write(json.dumps(message) + "\n")
            self._output.flush()

    def finish(self) -> None:
        """Tell the last numbers."""
        self._over.set()
        self._teller.join()
        self.tell({})

    def _tell_meter(self) -> None:
        while not self._over.wait(_TELL):
            self.tell({})


def main() -> int:
    """Carry until the end of input."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _hang_up)  # as if whoever asked were gone
    first = sys.stdin.readline()
    if not first:
        return 0
    try:
        _carry_all(json.loads(first))
    except Exception as error:
        text = str(error) if isinstance(error, SelfeeError) else traceback.format_exc(limit=-3)
        with contextlib.suppress(OSError):
            print(json.dumps({"crash": text}), flush=True)
        return 1
    return 0


def _hang_up(*_: object) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())


def _carry_all(settings: dict[str, Any]) -> None:
    server = from_plain(PaidServer, settings["server"])
    with Journal(settings["journal"]) as journal:
        desk = RemoteDesk(server, journal)
        courier = _Courier(desk, sys.stdout)
        try:
            with ThreadPoolExecutor(settings["workers"]) as pool:
                for line in sys.stdin:
                    if not line.endswith("\n"):  # killed while it wrote
                        break
                    message = json.loads(line)
                    if "stop" in message:
                        desk.stop(message["stop"])
                    else:
                        pool.submit(courier.carry, message["ask"], message["asked"])
                desk.stop(_GONE)
        finally:
            courier.finish()
            desk.close()


if __name__ == "__main__":
    sys.exit(main())
