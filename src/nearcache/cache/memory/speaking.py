"""A cache of one process that can be listened to: how its methods say what they do better than the store knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ...events import EventCause
from ..base import K, V
from ..events.listening import MemoryHub
from ..scanning import begins
from .base import LocalCache
from .telling import Removals


class SpeakingCache(LocalCache[K, V]):
    """What :class:`MemoryCache` is made from: a hub, once there is a listener."""

    _hub: MemoryHub | None = None
    #: What is called of what goes: ``on_removal``, or what calls it in time.
    _on_removal: Removals | None
    #: In which the lock is taken.
    _later: Removals | AbstractContextManager[None]

    def _begin_removals(self) -> None:
        on_removal = self.settings.on_removal
        self._on_removal = None if on_removal is None else Removals(on_removal)
        self._later = self._on_removal or _SILENT

    def _make_hub(self) -> MemoryHub:
        return MemoryHub(self.settings.namespace, self._on_removal)

    def _begin_telling(self, hub: MemoryHub) -> None:
        self.l1_tell(hub.told, stored=True)

    def _telling(self, cause: EventCause | None, *, existed: bool) -> AbstractContextManager[None]:
        """A context in which what the calling thread stores is told of in this way; None: not at all."""
        return _SILENT if self._hub is None else self._hub.telling(cause, existed=existed)

    def _scan(self, prefix: str | bytes | None) -> Iterator[Any]:
        self._use()
        return (key for key, _ in self.l1_snapshot() if begins(key, prefix))

    def _scan_under(self, path: Sequence[str]) -> Iterator[Any]:  # noqa: ARG002  the view looks for itself
        return self._scan(None)


_SILENT = nullcontext()
