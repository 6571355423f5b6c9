"""What the hold of a cache with tiers does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...choices import Seconds
from ...clocks import NS_PER_MS
from ...loading import Held, Steps, invalidate_many, owe_hold_end
from ..holding import hold_to_ms, linger_to_ms, several

if TYPE_CHECKING:
    from .cache import TieredCache


class Holding:
    """The steps of one hold. What it may hold already is held under the token alone.

    Raises:
        TypeError, ValueError: The keys are no list, or a time is out of range.
    """

    def __init__(self, cache: TieredCache[Any, Any], keys: Iterable[Any], seconds: Seconds, linger: Seconds) -> None:
        self._cache = cache
        self._hold_ms, self._linger_ms = hold_to_ms(seconds), linger_to_ms(linger)
        self._names = [cache._name(key) for key in several("hold", keys)]

    def begin(self, token: bytes) -> Steps[int]:
        """Invalidate the keys and hold them."""
        tier = self._cache._tier
        tier.held[token] = Held(self._names, tier.clock() + self._hold_ms * NS_PER_MS, b"%d" % self._linger_ms)
        return invalidate_many(tier, self._cache, self._names, hold=(b"%d" % self._hold_ms, token))

    def end(self, token: bytes) -> Steps[int]:
        """Invalidate them again, and let go of them when it has lingered. What fails is owed, with the lingering."""
        return self._ending(b"%d" % self._linger_ms, token)

    def let_go(self, token: bytes) -> Steps[int]:
        """The same at once, where nothing was changed."""
        return self._ending(b"0", token)

    def owe(self, token: bytes) -> None:
        """The same as soon as the shards answer, without asking them now."""
        self._cache._tier.held.pop(token, None)
        owe_hold_end(self._cache._tier, self._names, token)

    def _ending(self, linger_ms: bytes, token: bytes) -> Steps[int]:
        self._cache._tier.held.pop(token, None)  # before anything is sent: see loading.shards.holds
        return invalidate_many(self._cache._tier, self._cache, self._names, hold=(linger_ms, token), is_end=True)
