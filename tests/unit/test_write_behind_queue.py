"""What an owner of a queue makes of the records that it is given."""

from __future__ import annotations

import pytest

from nearcache.backlog import Backlog
from nearcache.l2 import Reply
from nearcache.loading import Queues
from support.steps import IDENTITY, World


def test_record_that_somebody_has_deleted_is_passed_over() -> None:
    """The others are taken, each with the number of its owners; where that is not told, there was one."""
    world = World()
    backlog = Backlog(delay_ns=0, batch=10, attempts=3, chance=lambda: 0.0)
    queues = Queues(1, backlog)
    records = [[b"1-0", [b"k", b"a", b"e", b"x"]], [b"2-0", None], [b"3-0", [b"k", b"b", b"e", b"y"]]]
    steps = queues.fetch(world.tier)
    next(steps)
    with pytest.raises(StopIteration) as stop:
        steps.send([Reply([[1, 3, 0, records, [5]]], IDENTITY)])
    assert stop.value.value == []
    taken = {change.encoded: change.deliveries for change in backlog.take(world.ns)}
    assert taken == {b"a": 5, b"b": 1}
