"""What the log is told of places that are not heard, and of their return.

Nobody calls the listener, so that nobody gets its errors; and a cache whose shard is gone answers as before, only from
the loader. The log is where somebody looks then.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ..clocks import Clock
from ..coherence import Lane, State
from ..logs import Recurring, log
from .links import Source

#: So many reasons of one outage are told: what fails in a new way each time is no news any more.
_REASONS: Final = 8


@dataclass(slots=True)
class _Outage:
    since_ns: int
    lanes: dict[int, Lane] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


class Outages:
    """Tells of each place that it is not heard, of each new reason, and when its lanes are heard again.

    They may be heard elsewhere then: in a cluster another node goes on with them. A place that comes and goes is told
    of once a second, and what has not been told ends untold.

    Args:
        source: Knows the places' names.
        namespace: Whose places: a program has several caches on one server, and each loses it.
        clock: Monotonic nanoseconds.
    """

    def __init__(self, source: Source, namespace: str, clock: Clock) -> None:
        self._source = source
        self._namespace = namespace
        self._clock = clock
        self._outages: dict[int, _Outage] = {}
        self._losses: defaultdict[int, Recurring] = defaultdict(partial(Recurring, clock))

    def begin(self, place: int, lanes: Mapping[int, Lane], reason: str) -> None:
        """A place is not heard, or still not: its connection has ended, or none could be made. Without lanes: no loss.

        Args:
            lanes: Those which were there, by number.
        """
        if not lanes:
            return
        outage = self._outages.setdefault(place, _Outage(self._clock()))
        outage.lanes.update(lanes)
        # Often the first reason is only that the connection has ended, and why shows when another is to be made.
        if reason in outage.told or len(outage.told) == _REASONS:
            return
        name = self._source.name_of(place)
        text = "namespace %s: shard %s is not heard, and nothing of it is served from memory: %s"
        reason_alone = reason.removeprefix(f"shard {name}: ")
        if self._losses[place].log(logging.WARNING, text, self._namespace, name, reason_alone):
            outage.told.add(reason)

    def end(self) -> None:
        """A lane is heard: tell of what is over by that."""
        for place, outage in list(self._outages.items()):
            if all(lane.state is State.LIVE for lane in outage.lanes.values()):
                del self._outages[place]
                if outage.told:
                    out_s = (self._clock() - outage.since_ns) / 1e9
                    text, name = "namespace %s: shard %s is heard again, after %.1f s", self._source.name_of(place)
                    log(logging.INFO, text, self._namespace, name, out_s)

    def forget(self, place: int) -> None:
        """It is no place any more."""
        self._outages.pop(place, None)
        self._losses.pop(place, None)
