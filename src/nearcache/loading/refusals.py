"""What the log is told of values that are not kept although nobody gets an error: a server is full, say.

Such a cache answers as ever, only from the loader, and its shards are heard. The log is where somebody looks then. Of
a shard that does not answer the listener tells (``bus.outages``).
"""

from __future__ import annotations

import logging

from ..errors import CacheError, ShardUnavailableError
from ..logs import Recurring


class Refusals:
    """Tells of what is not kept, and why. For any thread."""

    __slots__ = ("_changed", "_loaded", "_namespace")

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._loaded = Recurring()
        self._changed = Recurring()

    def loaded(self, error: CacheError) -> None:
        """What a loader has brought, or is about to, is for its caller alone."""
        if not isinstance(error, ShardUnavailableError):
            text = "namespace %s: what was loaded is not kept: %s"
            self._loaded.log(logging.WARNING, text, self._namespace, error)

    def changed(self, error: BaseException) -> None:
        """A change is forgiven (``on_error="queue"``), and what it was to store is not there."""
        if not isinstance(error, ShardUnavailableError):
            text = "namespace %s: a change was refused, and is made up for by an invalidation: %s"
            self._changed.log(logging.WARNING, text, self._namespace, error)
