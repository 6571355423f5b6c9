"""What loaders of a cache of one process answer: terms of a value, that it is unchanged, and errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from ..._store import Op, Store
from ...absence import ABSENT, Absent, Failure
from ...answers import Loaded, Old, given, is_conditional
from ...changes import MISSING
from ...clocks import NEVER_NS, NS_PER_MS
from ...flights import Load
from ..base import K, V
from .exchanging import ExchangingCache

#: Terms that are kept of the values of a cache without bounds.
_MOST_TERMS: Final = 100_000


class AnsweringCache(ExchangingCache[K, V]):
    """What :class:`MemoryCache` is made from, besides.

    Terms are kept without the value that they are of, which is known by its write id: no two loads have the same.
    """

    _answers: Store[Any, tuple[int, Loaded[None]]] | None = None

    def _shown(self, loader: Callable[[Any], Any], mine: Load, wanted: Any) -> Callable[[Any], Any]:
        """Return the loader, given the value that it is to replace if it wants that."""
        wanted.is_conditional = is_conditional(loader)
        if mine.key is wanted.name or not wanted.is_conditional:
            return given(loader, None)
        wid, known = (0, None) if self._answers is None else self._answers.l1_hit(wanted.name, (0, None))
        was_it = wid == self._version(wanted.name)
        old = self._whole(wanted.key, wanted.name)
        if old is MISSING:
            return given(loader, None)
        # What was stored since then came without terms of its own.
        is_it = known is not None and was_it and wid == self._version(wanted.name)
        wanted.shown = replace(known, value=old) if known is not None and is_it else Loaded(old)
        return given(loader, Old(old, wanted.shown.validator))

    def _failed(self, error: Exception, mine: Load, wanted: Any) -> Absent:
        """Return what is kept of an error that the loader raised; raise it if nothing is. An old value stays."""
        if not wanted.is_renewal and self._freshness.means_absence(error):
            return ABSENT
        if mine.key is not wanted.name or not self._freshness.failure(error).ttl_ms:
            raise error
        kept = copy.copy(error)  # without the traceback, which would keep the loader's variables alive
        self._count(load_errors=1)
        return Failure(lambda: copy.copy(kept), error)

    def _remember(self, op: Op, answer: Loaded[Any], ttl_ms: int) -> None:
        """Keep the terms of a value for as long as it is to live, for a loader that will be given it."""
        if self._answers is None:
            self._answers = Store(self.settings.maxsize or _MOST_TERMS)
            self._answers.lane_vouch(0, NEVER_NS)
        self._answers.l1_put(op.key, (op.wid, replace(answer, value=None)), ttl_ms * NS_PER_MS)

    def drop_all(self, *, invalidated: bool = False) -> int:
        """See :class:`Store`."""
        if self._answers is not None:
            self._answers.drop_all()
        return super().drop_all(invalidated=invalidated)

    def l1_reset_pending(self) -> None:
        """See :class:`Store`."""
        if self._answers is not None:
            self._answers.l1_reset_pending()
        super().l1_reset_pending()
