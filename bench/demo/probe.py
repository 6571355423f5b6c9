"""How long an invalidated page stays in a process's L1.

The changer announces each page a moment before it changes it. A thread of each worker then looks at that page in L1,
again and again, until the old version is no longer served, and takes the time. The lag is that instant minus the one at
which the changer's ``invalidate`` returned; 0 when L1 was faster than that, as it may well be. So the lag contains the
thread's own delay in noticing, and is never too favourable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from . import board as layout
from .board import Board, histogram_start
from .histogram import bucket_of
from .ledger import Ledger
from .services import Service
from .workload import Key, version_of

_LOOK_OUT_S = 0.004
_LOOK_AGAIN_S = 0.000_1
_WATCH_NS = 4_000_000_000


class Probe:
    """A thread that measures invalidation lag in one process."""

    def __init__(self, service: Service, board: Board, slot: memoryview, keys: Sequence[Key]) -> None:
        self._service = service
        self._header = board.header
        self._ledger = Ledger(board)
        self._slot = slot
        self._keys = keys
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        seen = self._header[layout.ANNOUNCED]
        while not self._ended.wait(_LOOK_OUT_S):
            announced = self._header[layout.ANNOUNCED]
            if announced != seen:
                seen = announced
                self._watch(self._header[layout.ANNOUNCED_PAGE], announced)

    def _watch(self, page: int, announced: int) -> None:
        key = self._keys[page]
        version = version_of(self._service.peek(key))
        if not version or version != self._ledger.version(page):
            return
        give_up_ns = time.monotonic_ns() + _WATCH_NS
        while version_of(self._service.peek(key)) == version:
            if self._ended.wait(_LOOK_AGAIN_S):
                return
            if self._ledger.superseded(page, version) is None:
                give_up_ns = time.monotonic_ns() + _WATCH_NS
            elif time.monotonic_ns() > give_up_ns:
                break
        gone_ns = time.monotonic_ns()
        while (record := self._ledger.superseded(page, version)) is None:
            if self._ended.wait(_LOOK_OUT_S) or self._header[layout.ANNOUNCED] != announced:
                return
        bumped_ns, superseded_ns = record
        if gone_ns >= bumped_ns:
            self._slot[histogram_start(layout.LAG) + bucket_of(gone_ns - superseded_ns)] += 1
