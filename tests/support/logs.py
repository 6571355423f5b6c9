"""Log handlers such as users may have."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager


class FullDisk(logging.Handler):
    """A handler that raises whatever it is told, and keeps it.

    Attributes:
        refused: The messages.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.refused.append(record.getMessage())
        raise OSError(errno.ENOSPC, "no space left on device")


@contextmanager
def full_disk() -> Iterator[FullDisk]:
    """A context in which the log of nearcache has a handler that raises."""
    handler, log = FullDisk(), logging.getLogger("nearcache")
    log.addHandler(handler)
    try:
        yield handler
    finally:
        log.removeHandler(handler)
