"""What a cache on Redis offers about its queues: waiting until they are empty, and dead letters."""

from __future__ import annotations

from collections.abc import Iterable

from ...choices import Seconds, timeout_to_s
from ...loading import (
    DeadLetter,
    dead_letters,
    discard,
    key_of_letter,
    place_of,
    replay,
)
from ..base import K, V
from .base import SteppingCache
from .behind import Scribe


class QueueingCache(SteppingCache[K, V]):
    """What :class:`TieredCache` is made from, besides: what waits to be written behind it. See :class:`Letters`."""

    _scribe: Scribe | None = None

    def flush(self, timeout: Seconds = 30.0) -> None:
        """Wait until every change in the queues has been written or given up. See :meth:`Letters.flush`."""
        timeout_s = timeout_to_s(timeout)
        if self._scribe is not None:
            self._scribe.flush(timeout_s, self._run)

    def dead_letters(self) -> list[DeadLetter]:
        """Return the changes that could not be written. See :meth:`Letters.dead_letters`."""
        found: list[DeadLetter] = []
        tier = self._tier
        for lane in tier.active:
            page, after = self._run(dead_letters(tier, lane))
            found += page
            while after:
                page, after = self._run(dead_letters(tier, lane, after))
                found += page
        return found

    def replay_dead_letters(self, ids: Iterable[str] | None = None) -> int:
        """Have dead letters written once more. See :meth:`Letters.replay_dead_letters`."""
        chosen = [letter.id for letter in self.dead_letters()] if ids is None else list(ids)
        tier = self._tier
        for name in chosen:
            place_of(tier, name)  # all of them are looked at before one is put back
        by_key: dict[bytes, list[str]] = {}
        for name in dict.fromkeys(chosen):
            key = self._run(key_of_letter(tier, name))
            if key is not None:
                by_key.setdefault(key, []).append(name)
        count = sum(self._run(replay(tier, key, letters)) for key, letters in by_key.items())
        if self._scribe is not None:
            self._scribe.wake()
        return count

    def discard_dead_letters(self, ids: Iterable[str]) -> int:
        """Forget dead letters. See :meth:`Letters.discard_dead_letters`."""
        return self._run(discard(self._tier, ids))
