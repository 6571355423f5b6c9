"""What the parts of a cache on Redis have in common: a tier, and a way to carry out steps there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ...answers import DEFAULT
from ...forks import notice
from ...freshness import Ttl, checked_ttl
from ...loading import ENDLESS_MS, Loading, Steps, ThreadRunner, Tier, look, read
from ...workers import Helper, refuse_greenlets
from ..base import Cache, K, Lifetime, V, closed

T = TypeVar("T")


class SteppingCache(Cache[K, V]):
    """What :class:`TieredCache` is made from. Its attributes are set there."""

    _closed = False
    _tier: Tier
    _runner: ThreadRunner
    _threads: Sequence[Helper]
    _own_ttl: Ttl | None = None

    def _use(self) -> None:
        notice()
        if self._closed:
            raise closed(repr(self))
        refuse_greenlets()  # a server of workers may put them there after this was opened
        for each in self._threads:
            if each.thread is None:  # a forked child has none until it needs one
                each.start()

    def _run(self, steps: Steps[T]) -> T:
        self._use()
        return self._given(self._runner.run(steps))

    def _given(self, result: T) -> T:
        return result  # to the caller, by any runner: subclasses may give something else

    def _ttl(self, ttl: Any, endless_ms: int) -> Ttl:
        if ttl is not DEFAULT:
            return checked_ttl(ttl, endless_ms)
        if self._own_ttl is None:
            self._own_ttl = super()._ttl(ttl, endless_ms)  # with one ``endless_ms`` always
        return self._own_ttl

    def _wanted(self, key: K, loader: Callable[[K], Any], ttl: Lifetime, tags: Any) -> Loading:
        return Loading(self._name(key), key, loader, self._ttl(ttl, ENDLESS_MS), self._labels(tags))

    def _reading(self, key: Any) -> Steps[Any]:
        loader = self.settings.loader
        if loader is None or not self._tier.freshness.renews:
            return read(self._tier, self, self._name(key))
        return look(self._tier, self, self._wanted(key, loader, DEFAULT, DEFAULT))
