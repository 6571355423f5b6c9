"""Loads driven by hand: what becomes of the lease and of the value, whatever the server answers. No I/O."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from nearcache.errors import ServerReplyError, ShardUnavailableError
from nearcache.l2 import Exchange, Reply
from nearcache.loading import Loading, load
from nearcache.loading.steps import Call
from nearcache.loading.tier import hex_id
from support.steps import GENERATION, IDENTITY, World

TOKEN = b"0123456789abcdef"


@pytest.fixture
def world() -> World:
    """See :class:`World`."""
    return World()


def scripts_in(request: Any) -> list[str]:
    """Return the names of the scripts that a request runs, or of the commands."""
    (exchange,) = request
    assert isinstance(exchange, Exchange)
    return [getattr(command[0], "name", command[0]) for command in exchange.commands]


def up_to_fill(world: World) -> tuple[Generator[Any, Any, Any], Any]:
    """Carry out a load up to its fill. Returns the steps and that request."""
    steps = load(world.tier, world.store, Loading("k", "k", lambda _: 7, 60_000))
    assert scripts_in(next(steps)) == [b"PTTL", b"GET"]
    assert scripts_in(steps.send([Reply([-2, None], IDENTITY)])) == ["lease"]
    request = steps.send([Reply([[0, hex_id(GENERATION), TOKEN]], IDENTITY)])
    assert isinstance(request, Call)
    return steps, steps.send(7)


def test_refused_fill_gives_its_lease_up(world: World) -> None:
    """No memory on the server: who waits for the key is to load now, not when the lease runs out."""
    steps, request = up_to_fill(world)
    assert scripts_in(request) == ["fill"]
    request = steps.send([Reply([ServerReplyError("a", "OOM command not allowed")], IDENTITY)])
    assert scripts_in(request) == ["abort"]
    assert TOKEN in request[0].commands[0]
    with pytest.raises(StopIteration) as stop:
        steps.send([Reply([1], IDENTITY)])
    assert stop.value.value == 7
    assert world.store.peek("k") is None


def test_fill_without_an_answer_is_left_alone(world: World) -> None:
    """It may have been done, and the shard has had its time."""
    steps, _ = up_to_fill(world)
    with pytest.raises(StopIteration) as stop:
        steps.send([ShardUnavailableError("a", "no answer", sent=True)])
    assert stop.value.value == 7
    assert world.store.peek("k") is None
