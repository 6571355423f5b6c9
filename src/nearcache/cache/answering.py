"""What loaders of a cache of one process answer: terms of a value, that it is unchanged, and errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from .._store import Store
from ..absence import ABSENT, Absent, Failure
from ..answers import Loaded, Old, given, is_conditional
from ..changes import MISSING
from ..clocks import NEVER_NS
from ..flights import Load
from .base import K, V
from .exchanging import ExchangingCache


class AnsweringCache(ExchangingCache[K, V]):
    """What :class:`MemoryCache` is made from, besides."""

    _answers: Store[Any, Loaded[Any]] | None = None

    def _shown(self, loader: Callable[[Any], Any], mine: Load, terms: Any) -> Callable[[Any], Any]:
        """Return the loader, given the value that it is to replace if it wants that."""
        if mine.key is terms.name or not is_conditional(loader):
            return given(loader, None)
        old = self._whole(terms.key, terms.name)
        if old is MISSING:
            return given(loader, None)
        answer = None if self._answers is None else self._answers.hit(terms.name, None)
        # What was stored since then came without terms of its own.
        terms.shown = answer if answer is not None and answer.value is old else Loaded(old)
        return given(loader, Old(old, terms.shown.validator))

    def _failed(self, error: Exception, mine: Load, terms: Any) -> Absent:
        """Return what is kept of an error that the loader raised; raise it if nothing is. An old value stays."""
        if self._freshness.means_absence(error):
            return ABSENT
        if mine.key is not terms.name or not self._freshness.failure(error).ttl_ms:
            raise error
        kept = copy.copy(error)  # without the traceback, which would keep the loader's variables alive
        self._count_load(1)
        return Failure(lambda: copy.copy(kept), error)

    def _remember(self, name: Any, answer: Loaded[Any]) -> None:
        """Keep the terms of a value, for a loader that will be given it."""
        if self._answers is None:
            self._answers = Store(self.settings.maxsize)
            self._answers.lane_vouch(0, NEVER_NS)
        self._answers[name] = answer

    def _count_load(self, which: int) -> None:
        raise NotImplementedError
