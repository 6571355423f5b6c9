"""Holds that cannot be begun, or not be ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import nearcache
from nearcache import Writer
from nearcache.cache.aio import AsyncHold
from nearcache.cache.holding import Hold
from nearcache.errors import BulkError, ShardUnavailableError
from nearcache.keys import encode_key
from nearcache.l2 import Reply
from nearcache.loading import invalidate_many, owe_hold_end, pay, write_through
from nearcache.loading.tier import hex_id
from support.steps import EPOCH, GENERATION, IDENTITY, World

GONE = [1, hex_id(GENERATION), 0, hex_id(EPOCH), b"1"]  # what an invalidation answers


def test_hold_that_begins_in_part_is_given_up_whole() -> None:
    """Of two shards one is out: the other's keys must not be held for the whole time, for nobody."""
    refused = BulkError(["a"], {"b": ShardUnavailableError("s", "refused")}, {})
    ended: list[str] = []

    def begin(_token: bytes) -> None:
        raise refused

    def end(_token: bytes) -> None:
        ended.append("thread")
        raise refused

    async def begin_later(token: bytes) -> None:
        begin(token)

    async def end_later(_token: bytes) -> None:
        ended.append("task")

    async def enter() -> None:
        async with AsyncHold(begin_later, end_later):
            raise AssertionError("it was entered")

    with pytest.raises(BulkError), Hold(begin, end):
        raise AssertionError("it was entered")
    with pytest.raises(BulkError):
        asyncio.run(enter())
    assert ended == ["thread", "task"]


@pytest.mark.parametrize("linger", [b"0", b"60000"])
def test_end_of_a_hold_that_fails_is_made_up_for_under_its_token(linger: bytes) -> None:
    """With the time that it was to linger; a beginning that fails owes no more than an invalidation."""
    world = World()
    out = ShardUnavailableError("a", "no answer in time", sent=True)
    with pytest.raises(BulkError):
        world.run(invalidate_many(world.tier, world.store, ["k"], hold=(b"9000", b"token")), out)
    assert not world.tier.journals[0].owed_holds()
    end = invalidate_many(world.tier, world.store, ["k"], hold=(linger, b"token"), is_end=True)
    with pytest.raises(BulkError):
        world.run(end, out)
    paying = pay(world.tier, 0)
    ((exchange,),) = [next(paying)]
    assert exchange.commands[0][-2:] == (linger, b"token")
    with pytest.raises(StopIteration):
        paying.send([Reply([GONE], IDENTITY)])
    assert not world.tier.journals[0].owes


def test_end_of_a_hold_that_was_owed_is_owed_no_more_once_it_is_acknowledged() -> None:
    """It was interrupted, say, and left again."""
    world = World()
    owe_hold_end(world.tier, ["k", object()], b"token")  # what has no encoding is not held
    assert world.tier.journals[0].owed_count == 1
    world.run(invalidate_many(world.tier, world.store, ["k"], hold=(b"0", b"token"), is_end=True), [GONE])
    assert not world.tier.journals[0].owes


@pytest.mark.parametrize("requests", [0, 2])
def test_write_through_that_is_interrupted_without_its_writer_lets_go_of_the_key(requests: int) -> None:
    """Before it is called, or when it is back; of one that may be at work nobody knows when it ends."""
    world = World()
    steps = write_through(world.tier, world.store, Writer(write=lambda _key, _value: None), {"k": "k"}, {"k": 1}, 9_000)
    request: Any = next(steps)
    for answer in ([Reply([GONE], IDENTITY)], None)[:requests]:
        assert isinstance(request, list) is bool(answer)
        request = steps.send(answer)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    ((hold, keys),) = world.tier.journals[0].owed_holds().items()
    assert (hold[0], keys) == (b"0", [encode_key("k")])


def test_hold_that_is_interrupted_at_its_beginning_is_let_go_of_later() -> None:
    """An interrupt waits for no server; nor does a task that is cancelled."""
    owed: list[bytes] = []

    def begin(_token: bytes) -> None:
        raise KeyboardInterrupt

    async def begin_later(_token: bytes) -> None:
        raise asyncio.CancelledError

    async def enter() -> None:
        async with AsyncHold(begin_later, unexpected, let_go=unexpected, owe=owed.append):
            raise AssertionError("it was entered")

    def unexpected(_token: bytes) -> Any:
        raise AssertionError("a server was asked")

    with pytest.raises(KeyboardInterrupt), Hold(begin, unexpected, let_go=unexpected, owe=owed.append):
        raise AssertionError("it was entered")
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(enter())
    assert len(set(owed)) == 2


def test_hold_that_cannot_begin_does_not_linger() -> None:
    """Nothing was changed, so there is nothing that a loader could still read."""
    done: list[str] = []

    def begin(_token: bytes) -> None:
        raise BulkError([], {"a": ShardUnavailableError("s", "refused")}, {})

    hold = Hold(begin, lambda _token: done.append("end"), let_go=lambda _token: done.append("let go"))
    with pytest.raises(BulkError), hold:
        raise AssertionError("it was entered")
    assert done == ["let go"]


def test_hold_of_one_text_is_refused_with_the_remedy() -> None:
    """Its characters are no keys that anybody means."""
    with nearcache.open("memory://") as cache:
        keys: Any
        for keys in ("sku:1", b"sku:1"):
            for hold in (cache.hold, cache.aio.hold):
                with pytest.raises(TypeError, match=r"sku:1.*give a list of keys"):
                    hold(keys)


def test_hold_that_is_entered_again_ends_with_the_outer_block() -> None:
    """A function that holds what its caller holds must not let go of it."""
    done: list[str] = []

    async def begin(_token: bytes) -> None:
        done.append("begin")

    async def end(_token: bytes) -> None:
        done.append("end")

    async def enter(held: AsyncHold) -> None:
        async with held:
            async with held:
                done.append("in")
            done.append("out")

    held = Hold(lambda _token: done.append("begin"), lambda _token: done.append("end"))
    for _ in range(2):
        with held:
            with held:
                done.append("in")
            done.append("out")
    asyncio.run(enter(AsyncHold(begin, end)))
    assert done == ["begin", "begin", "in", "out", "end"] * 3


def test_hold_has_a_token_of_its_own_each_time() -> None:
    """Who enters while another thread is about to end it must not be ended with it; blocks inside share the token."""
    tokens: list[tuple[str, bytes]] = []
    held = Hold(lambda token: tokens.append(("begin", token)), lambda token: tokens.append(("end", token)))
    for _ in range(2):
        with held, held:
            pass
    assert [what for what, _ in tokens] == ["begin", "begin", "end"] * 2
    first, second = ({token for _, token in part} for part in (tokens[:3], tokens[3:]))
    assert len(first) == len(second) == 1
    assert first != second
