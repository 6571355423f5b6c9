"""A primary that was replaced and still answers, while this process hears of the new one; and the other way round."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache._store import Store
from nearcache.coherence import DERIVED, Suspect, pack_message
from nearcache.keys import encode_key
from nearcache.l2 import Reply
from nearcache.loading import MISSING, Tier, pay, read
from support.tiers import tier_of

OLD, NEW = 0xAAAA, 0xBBBB
HERE, THERE = 7, 9
CLEARED, CURRENT = 0x1111, 0x2222


@pytest.fixture
def tier() -> Tier:
    """A tier of one lane that is followed on the server HERE, where CLEARED is the generation."""
    tier = tier_of(clock=lambda: 1_000)
    lane = tier.lanes[0]
    lane.connected(HERE)
    lane.heartbeat_sent(500)
    lane.heartbeat_reply([b"%016x" % OLD, b"5", b"%016x" % 0x55, b"%016x" % CLEARED, b"1", None], 1_000)
    return tier


def test_payment_to_a_replaced_primary_is_made_once_and_left_to_the_next_heartbeat(tier: Tier) -> None:
    """It takes invalidations as fast as they come; none of them counts, so the thread must not go on and on."""
    tier.forked(0, OLD, {}, 0)
    tier.owe(0, [encode_key("k")])
    tier.forked(0, NEW, {OLD: 5}, 0)
    steps = pay(tier, 0)
    next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send([Reply([[1, b"%016x" % OLD, b"9"]], HERE)])
    assert end.value.value is False
    assert tier.journals[0].is_owed(encode_key("k"))


def test_clear_that_was_owed_and_is_paid_leaves_the_generation_to_be_asked_for(tier: Tier) -> None:
    """Its message may come after the reply, and a heartbeat's answer may be older still: both say what was before."""
    store: Store[Any, Any] = Store(10, lanes=1 + DERIVED)
    tier.forked(0, OLD, {}, 0)
    tier.owe_clear(0)
    steps = pay(tier, 0)
    next(steps)
    tier.lanes[0].heartbeat_sent(900)
    with pytest.raises(StopIteration) as end:
        steps.send([Reply([[1, b"%016x" % CURRENT, b"%016x" % OLD, b"6"]], HERE)])
    assert end.value.value is True
    tier.lanes[0].heartbeat_reply([b"%016x" % OLD, b"5", b"%016x" % 0x55, b"%016x" % CLEARED, b"1", None], 1_000)
    (exchange,) = next(read(tier, store, "k"))
    assert len(exchange.commands) == 3


def test_clear_that_was_owed_and_is_paid_ends_what_was_stored_before_it(tier: Tier) -> None:
    """In L2 nothing of that is alive any more, and nobody else would drop it here: the message makes it suspect."""
    tier.forked(0, OLD, {}, 0)
    tier.owe_clear(0)
    steps = pay(tier, 0)
    (exchange,) = next(steps)
    wid = int(exchange.commands[0][-1], 16)
    with pytest.raises(StopIteration):
        steps.send([Reply([[1, b"%016x" % wid, b"%016x" % OLD, b"6"]], HERE)])
    assert tier.lanes[0].message(pack_message("C", OLD, 6, 0x55, wid, [])) == [Suspect()]


@pytest.mark.parametrize(("identity", "asks"), [(HERE, False), (THERE, True)])
def test_generation_of_the_server_that_is_heard_says_nothing_of_another(tier: Tier, identity: int, asks: bool) -> None:
    """Values of another server are judged by the generation there: it may have been cleared, by this process too."""
    store: Store[Any, Any] = Store(10, lanes=1 + DERIVED)
    envelope = tier.codec.dumps(1, wid=5, generation=CLEARED, ttl_ms=60_000)
    steps = read(tier, store, "k")
    (exchange,) = next(steps)
    assert len(exchange.commands) == 2  # the generation is known
    if not asks:
        with pytest.raises(StopIteration) as end:
            steps.send([Reply([60_000, envelope], identity)])
        assert end.value.value == 1
        return
    (exchange,) = steps.send([Reply([60_000, envelope], identity)])
    assert exchange.commands[-1] == tier.ask_generation(0)
    with pytest.raises(StopIteration) as end:
        steps.send([Reply([60_000, envelope, [b"%016x" % CURRENT, b"1"]], identity)])
    assert end.value.value is MISSING
