"""Writing model files so that a crash or a full disk leaves the old file or none, never half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from selfee.errors import ResourceError
from selfee.weights.disk import put_in_place


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file beside ``path`` that takes its place when the block ends well, and vanishes otherwise.

    Raises ResourceError if the disk is full or the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.part")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        put_in_place(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ResourceError(
            f"{path}: cannot be written: {error.strerror or error}; the old file is untouched"
        ) from error
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
