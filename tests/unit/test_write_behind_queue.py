"""What an owner of a queue makes of the records that it is given."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache import Writer
from nearcache.backlog import Backlog
from nearcache.cache.behind import Scribe
from nearcache.l2 import Reply
from nearcache.loading import Queues
from nearcache.loading.tier import hex_id
from nearcache.options import parse
from support.steps import GENERATION, IDENTITY, World


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


class Answering:
    """Carries out steps with an answer to each script that they run."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    def run(self, steps: Any) -> Any:
        try:
            request = next(steps)
            while True:
                request = steps.send([Reply([self._answers[e.commands[0][0].name]], IDENTITY) for e in request])
        except StopIteration as stop:
            return stop.value


def test_queue_found_to_be_anothers_in_the_middle_of_a_batch_nothing_more_of_it_is_written() -> None:
    """The values were written late, when another process had the queue, and perhaps later changes of the other keys."""
    world = World()
    called: list[Any] = []
    writer = Writer(write_many=lambda values: called.append(sorted(values)), delete_many=called.append)
    given = {b"sa": sealed(world, "a"), b"sb": sealed(world, "b"), b"sc": b"", b"sd": b""}
    records = [[b"%d-0" % place, [b"k", key, b"e", env]] for place, (key, env) in enumerate(given.items(), 1)]
    lost = [0, hex_id(GENERATION)]
    runner: Any = Answering(dequeue=[1, 4, 1, records, [1, 1, 1, 1]], written=lost)
    scribe = Scribe(world.tier, runner, writer, parse("redis://a", namespace="t", writer=writer, write_delay=60))
    with scribe.hurried():
        scribe._turn()
        runner._answers["dequeue"] = [1, 4, 0, [], []]
        scribe._turn()
    assert called == [["a", "b"]]


def sealed(world: World, key: str) -> bytes:
    """An envelope of a value."""
    content = world.tier.codec.encode("value")
    return world.tier.codec.seal(content, wid=1, generation=GENERATION, ttl_ms=60_000, key=b"s" + key.encode())
