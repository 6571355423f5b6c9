"""Changing the list of shards, for asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

from ..report import Resharded


class AsyncReshardable:
    """See :class:`Reshardable`."""

    __slots__ = ()

    async def reshard(self, url: str, **options: Any) -> Resharded:
        """Change the list of shards of the namespace, for all processes. See :meth:`Cache.reshard`.

        A thread does it; cancelling the caller does not end it.
        """
        cache: Any = self.cache  # type: ignore[attr-defined]  # every asynchronous view has one
        changed: Resharded = await asyncio.to_thread(cache.reshard, url, **options)
        return changed
