"""The scripts of the queue: one step for value, record and mark; one owner; what is settled. On every server found."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.codecs import TTL_NONE, pack
from nearcache.codecs.envelope import FLAG_NEGATIVE
from nearcache.errors import ServerReplyError
from support.lanes import NO_WID, NONCE, Lane, envelope, wid

A, B = b"a" * 16, b"b" * 16


def put(lane: Lane, *keys: bytes, write: int = 1, mode: str = "", most: int = 100, gen: bytes = NONCE) -> Any:
    """Store and queue an envelope under each key."""
    envelopes = [envelope(gen, key, wid(write)) for key in keys]
    return lane.run("set", keys, wid(write), gen, f"Q{most}:{mode}", 60_000, *envelopes, more=[b"w"])


def take(lane: Lane, token: bytes = A, start: bytes = b">", *, lease: int = 60_000, count: int = 100) -> Any:
    """Ask for records as an owner of this name."""
    reply = lane.run("dequeue", [], token, lease, count, 4_000_000, start, more=[b"w", b"o"])
    return [*reply[:3], [record for record, _ in reply[3]], reply[4]] if reply[0] == 1 else reply


def queued(lane: Lane) -> list[tuple[bytes, bytes]]:
    """Return the records of the queue: key and envelope."""
    return [(fields[b"k"], fields[b"e"]) for _, fields in lane.client.xrange(lane.prefix + b"w")]


def ids(lane: Lane) -> list[bytes]:
    """Return the ids of the records of the queue."""
    return [record for record, _ in lane.client.xrange(lane.prefix + b"w")]


def test_queued_set_leaves_value_record_and_mark_in_one_step(lane: Lane) -> None:
    """For each key; one message. The mark has no expiry and names the record."""
    with lane.listening() as heard:
        assert put(lane, b"sa", b"sb") == [1, NONCE, NONCE, b"1", b"", 0]
    assert queued(lane) == [(key, envelope(NONCE, key, wid(1))) for key in (b"sa", b"sb")]
    assert [lane.client.get(lane.lease(key)) for key in (b"sa", b"sb")] == [b"P" + record for record in ids(lane)]
    assert lane.client.ttl(lane.lease(b"sa")) == -1
    assert lane.client.get(lane.value(b"sa")) == envelope(NONCE, b"sa", wid(1))
    assert heard == [("S", NONCE, 1, NO_WID, wid(1), [b"sa", b"sb"])]


def test_queued_deletion_removes_the_value_and_counts_it(lane: Lane) -> None:
    """An empty envelope is the record of one."""
    put(lane, b"sa")
    reply = lane.run("set", [b"sa", b"sb"], wid(2), NONCE, "Q9:", 1, b"", b"", more=[b"w"])
    assert reply == [1, NONCE, NONCE, b"2", b"", 1]
    assert queued(lane)[1:] == [(b"sa", b""), (b"sb", b"")]
    assert not lane.client.exists(lane.value(b"sa"))


def test_queued_envelope_that_says_that_there_is_no_value_is_a_deletion_too(lane: Lane) -> None:
    """It is what signed and encrypted deletions look like; the record holds it, and no verb takes it for a value."""
    put(lane, b"sa")
    deletion = pack(int(wid(2), 16), 0, TTL_NONE, b"", flags=FLAG_NEGATIVE)
    with lane.listening() as heard:
        assert lane.run("set", [b"sa"], wid(2), NONCE, "Q9:", 1, deletion, more=[b"w"])[5] == 1
    assert [kind for kind, *_ in heard] == ["I"]
    assert queued(lane)[1:] == [(b"sa", deletion)]
    assert lane.run("lease", [b"sa"], A, 1000, "", more=[b"w"]) == [4, NONCE, deletion]
    assert put(lane, b"sa", write=3, mode="NX")[0] == 1


def test_queued_set_that_is_refused_leaves_no_record(lane: Lane) -> None:
    """By the generation, by the mode, by the length of the queue, by memory."""
    put(lane, b"sa")
    assert put(lane, b"sb", gen=wid(9)) == [0, NONCE]
    assert put(lane, b"sa", mode="NX")[:2] == [2, NONCE]
    assert put(lane, b"sb", most=1) == [3, NONCE, 1]
    lane.client.config_set("maxmemory", "1")
    with pytest.raises(ServerReplyError, match="OOM"):
        put(lane, b"sb", write=2)
    lane.client.config_set("maxmemory", "0")
    assert len(queued(lane)) == 1
    assert not lane.client.exists(lane.value(b"sb"), lane.lease(b"sb"))
    assert lane.position() == (1, wid(1))


def test_held_set_stores_only_where_its_own_hold_has_lasted(lane: Lane) -> None:
    """Not where it ended, nor where another joined; then the old value is gone, and so is a lease."""
    for key in (b"smine", b"sended", b"sjoined", b"sleased"):
        lane.run("invalidate", [key], wid(1), 60_000, A)
    assert lane.set(b"smine", write=wid(7), gen=wid(9), mode="HELD" + A.decode())[4] == b"1,"  # cleared since
    assert lane.client.exists(lane.value(b"smine"), lane.lease(b"smine")) == 0
    lane.run("invalidate", [b"smine"], wid(1), 60_000, A)
    lane.client.delete(lane.lease(b"sended"))
    lane.run("invalidate", [b"sjoined"], wid(2), 60_000, B)
    lane.client.set(lane.lease(b"sleased"), b"L" + B + NONCE)
    lane.client.set(lane.value(b"sended"), envelope(NONCE, b"old"))
    keys = (b"smine", b"sended", b"sjoined", b"sleased")
    reply = lane.set(*keys, write=wid(3), mode="HELD" + A.decode())
    assert reply[4] == b"2,3,4,"
    assert [lane.client.exists(lane.value(key)) for key in keys] == [1, 0, 0, 0]
    assert [lane.client.get(lane.lease(key)) for key in keys] == [None, None, b"H*", None]


def test_held_set_stores_nothing_where_somebody_else_has_announced_a_change(lane: Lane) -> None:
    """Which may be the later one. The hold ends, as it does without a value; and goes on if it is prolonged."""
    for key in (b"sset", b"sended", b"slonger"):
        lane.run("invalidate", [key], wid(1), 60_000, A)
        for number in (2, 3):
            lane.run("invalidate", [key], wid(number))
        assert lane.client.get(lane.lease(key)) == b"H" + A + b"!"
        assert lane.client.pttl(lane.lease(key)) > 50_000
        assert lane.run("lease", [key], B, 1000, "")[0] == 3
    assert lane.set(b"sset", write=wid(4), mode="HELD" + A.decode())[4] == b"1,"
    lane.run("invalidate", [b"sended"], wid(5), 0, A)
    lane.run("invalidate", [b"slonger"], wid(6), 90_000, A)
    keys = (b"sset", b"sended", b"slonger")
    assert [lane.client.exists(lane.value(key)) for key in keys] == [0, 0, 0]
    assert [lane.client.get(lane.lease(key)) for key in keys] == [None, None, b"H" + A + b"!"]
    assert lane.client.pttl(lane.lease(b"slonger")) > 60_000
    lane.run("invalidate", [b"slonger"], wid(7), 1000, B)
    assert lane.client.get(lane.lease(b"slonger")) == b"H*"
    lane.run("invalidate", [b"slonger"], wid(8), 0, B)
    assert lane.client.get(lane.lease(b"slonger")) == b"H*"


@pytest.mark.parametrize("change", ["set", "set of many", "NX", "queued", "take"])
def test_held_set_stores_nothing_where_somebody_else_has_changed_the_key(lane: Lane, change: str) -> None:
    """Whatever the change is made by; the hold goes on for its time, and is its holder's to end."""
    lane.run("invalidate", [b"sk"], wid(1), 60_000, A)
    for number in (2, 3):
        if change == "take":
            lane.run("take", [b"sk"], wid(number))
        elif change == "queued":
            assert put(lane, b"sk", write=number)[4] == b"1,"
        else:
            keys = [b"sk", b"sj"] if change == "set of many" else [b"sk"]
            assert lane.set(*keys, write=wid(number), mode="NX" if change == "NX" else "")[4] == b"1,"
        assert lane.client.get(lane.lease(b"sk")) == b"H" + A + b"!"
        assert lane.client.pttl(lane.lease(b"sk")) > 50_000
    assert lane.set(b"sk", write=wid(4), mode="HELD" + A.decode())[4] == b"1,"
    assert lane.client.exists(lane.value(b"sk"), lane.lease(b"sk")) == 0
    lane.run("invalidate", [b"sk"], wid(5), 60_000, A)
    lane.run("invalidate", [b"sk"], wid(6), 60_000, B)
    lane.run("take", [b"sk"], wid(7))
    assert lane.client.get(lane.lease(b"sk")) == b"H*"


def test_held_set_of_which_nothing_is_stored_is_announced_as_an_invalidation(lane: Lane) -> None:
    """Who hears of a value is to find one."""
    lane.run("invalidate", [b"sk"], wid(1), 60_000, A)
    with lane.listening() as heard:
        lane.set(b"sk", write=wid(2))
        put(lane, b"sk", write=3)
        lane.set(b"sk", write=wid(4), mode="HELD" + A.decode())
        lane.run("invalidate", [b"sk"], wid(5), 60_000, A)
        lane.set(b"sk", b"sj", write=wid(6))
    assert [message.op for message in heard] == ["I", "I", "I", "I", "S"]


def test_mark_of_a_waiting_record_outlasts_invalidations_and_holds(lane: Lane) -> None:
    """Whatever they announce, the record is going to be written over it."""
    put(lane, b"sa")
    mark = lane.client.get(lane.lease(b"sa"))
    lane.run("invalidate", [b"sa"], wid(2))
    lane.run("invalidate", [b"sa"], wid(3), 60_000, A)
    lane.run("invalidate", [b"sa"], wid(4), 0, A)
    lane.run("take", [b"sa"], wid(5))
    assert lane.client.get(lane.lease(b"sa")) == mark
    assert lane.run("lease", [b"sa"], A, 1000, "", more=[b"w"]) == [4, NONCE, envelope(NONCE, b"sa", wid(1))]
    assert lane.run("lease", [b"sa"], A, 1000, "REPLACE", more=[b"w"])[0] == 4
    assert lane.run("lease", [b"sa"], A, 1000, "")[0] == 3  # of a program that knows no queue
    assert lane.run("fill", [b"sa"], wid(6), NONCE, A, 1000, envelope(NONCE)) == [0, NONCE, b"LOST"]
    lane.client.delete(lane.prefix + b"w")
    assert lane.run("lease", [b"sa"], A, 1000, "", more=[b"w"])[0] == 0  # its record is gone, so it says nothing


def test_queue_has_one_owner_until_the_lock_ends(lane: Lane) -> None:
    """The next is given first what the last one was given, with how often, and then the rest."""
    put(lane, b"sa")
    put(lane, b"sb", write=2)
    first, second = ids(lane)
    assert take(lane, A) == [1, 2, 1, [], []]  # fresh: nobody has been given anything
    assert take(lane, A, count=1) == [1, 2, 0, [first], [1]]
    assert take(lane, A, b"0") == [1, 2, 0, [first], [1]]  # an answer was lost: that is nobody's fault
    status, length, pttl = take(lane, B)
    assert (status, length) == (0, 2)
    assert 0 < pttl <= 60_000
    lane.client.delete(lane.prefix + b"o")
    assert take(lane, B) == [1, 2, 1, [first], [2]]
    assert take(lane, B, first) == [1, 2, 0, [], []]
    assert take(lane, B) == [1, 2, 0, [second], [1]]
    lane.client.delete(lane.prefix + b"o")
    lane.client.xdel(lane.prefix + b"w", first)
    assert take(lane, A) == [1, 1, 1, [second], [2]]
    assert take(lane, A, b"0") == [1, 1, 0, [second], [2]]
    assert take(lane, A, b"0", count=0) == [1, 1, 0, [], []]


def test_owner_whose_time_would_outlast_any_is_left_a_minute(lane: Lane) -> None:
    """The server's clock was set back, and he may be dead. Looking again does not give him another one."""
    put(lane, b"sa")
    take(lane, A)
    seconds, _ = lane.client.time()
    lane.client.set(lane.prefix + b"o", b"L%s %d" % (A, (seconds + 3600) * 1000))
    assert take(lane, B) == [0, 1, 60_000]
    mark = lane.client.get(lane.prefix + b"o")
    status, _, left = take(lane, B)
    assert (status, left <= 60_000, lane.client.get(lane.prefix + b"o")) == (0, True, mark)
    assert take(lane, A)[0] == 1


def test_queue_that_is_empty_has_no_owner(lane: Lane) -> None:
    """Nobody's lock is in the way of who has the next record."""
    assert take(lane, A) == [1, 0, 1, [], []]
    put(lane, b"sa")
    take(lane, A)
    take(lane, A)
    assert lane.run("written", [b"sa"], wid(5), A, ids(lane)[0], wid(1), ids(lane)[0], more=[b"w", b"o"])[0] == 1
    assert take(lane, A) == [1, 0, 0, [], []]
    assert not lane.client.exists(lane.prefix + b"o")


def test_hurry_says_whether_something_waits_and_tells_the_owner_up_to_which_record(lane: Lane) -> None:
    """Nothing is told where nothing waits, and no lane record is made for it."""
    lane.client.delete(lane.prefix + b"L")
    assert lane.run("hurry", [], b"0-1", more=[b"w"]) == 0
    assert not lane.client.exists(lane.prefix + b"L")
    put(lane, b"sa", b"sb")
    assert lane.run("dequeue", [], A, 60_000, 100, 4_000_000, b">", more=[b"w", b"o"])[5] == b""
    first, second = ids(lane)
    assert lane.run("hurry", [], first, more=[b"w"]) == 1
    assert lane.run("dequeue", [], A, 60_000, 100, 4_000_000, b">", more=[b"w", b"o"])[5] == first
    lane.run("written", [b"sa"], wid(9), A, first, wid(1), first, more=[b"w", b"o"])
    assert lane.run("hurry", [], first, more=[b"w"]) == 0
    assert lane.run("hurry", [], second, more=[b"w"]) == 1


def test_dequeue_stops_at_the_size_that_it_was_told(lane: Lane) -> None:
    """A reply has to fit into memory, and into the time of a call."""
    put(lane, b"sa", b"sb", b"sc")
    take(lane, A)
    reply = lane.run("dequeue", [], A, 1000, 100, 1, b">", more=[b"w", b"o"])
    assert len(reply[3]) == 1


def test_written_records_leave_and_nothing_is_announced(lane: Lane) -> None:
    """Nobody can have stored an old value: the mark was there all the time."""
    put(lane, b"sa")
    put(lane, b"sa", write=2)
    take(lane, A)
    take(lane, A)
    first, second = ids(lane)
    with lane.listening() as heard:
        reply = lane.run("written", [b"sa"], wid(9), A, second, wid(2), first, second, more=[b"w", b"o"])
    assert reply == [1, NONCE, NONCE, 0, 0]
    assert heard == []
    assert lane.client.xpending(lane.prefix + b"w", "w")["pending"] == 0
    assert not lane.client.exists(lane.lease(b"sa"))
    assert lane.client.exists(lane.value(b"sa"))


def test_written_record_that_was_overtaken_leaves_the_newer_mark(lane: Lane) -> None:
    """The newer one waits still."""
    put(lane, b"sa")
    take(lane, A)
    take(lane, A)
    (first,) = ids(lane)
    put(lane, b"sa", write=2)
    assert lane.run("written", [b"sa"], wid(9), A, first, wid(1), first, more=[b"w", b"o"])[3:] == [0, 1]
    assert lane.client.get(lane.lease(b"sa")) == b"P" + ids(lane)[0]


def test_written_record_whose_mark_was_lost_takes_other_values_along(lane: Lane) -> None:
    """Something else may have been stored meanwhile, and lost the race in the data; the leases of loads too."""
    put(lane, b"sa")
    take(lane, A)
    take(lane, A)
    (first,) = ids(lane)
    lane.set(b"sa", write=wid(7))  # past the queue
    lane.client.set(lane.lease(b"sa"), b"L" + B + NONCE)
    with lane.listening() as heard:
        lane.run("written", [b"sa"], wid(9), A, first, wid(1), first, more=[b"w", b"o"])
    assert [message.op for message in heard] == ["I"]
    assert not lane.client.exists(lane.value(b"sa"), lane.lease(b"sa"))


def test_settling_is_the_owners_alone(lane: Lane) -> None:
    """Who has lost the queue changes nothing."""
    put(lane, b"sa")
    take(lane, A)
    (first,) = ids(lane)
    assert lane.run("written", [b"sa"], wid(9), B, first, wid(1), first, more=[b"w", b"o"]) == [0, NONCE]
    assert lane.run("buried", [b"sa"], wid(9), B, "error", 3, first, more=[b"w", b"o", b"d"]) == [0, NONCE]
    assert ids(lane) == [first]


def test_buried_record_that_a_failover_has_lost_leaves_the_one_before_as_a_dead_letter(lane: Lane) -> None:
    """What it had overtaken is there, and has been neither written nor given up: it must not vanish."""
    for write in (1, 2, 3):
        put(lane, b"sa", write=write)
    first, second, third = ids(lane)
    take(lane, A)
    lane.client.xdel(lane.prefix + b"w", third)
    lane.client.set(lane.lease(b"sa"), b"P" + second)
    assert lane.run("buried", [b"sa"], wid(9), A, "why", 3, first, second, third, more=[b"w", b"o", b"d"])[0] == 1
    ((_, fields),) = lane.client.xrange(lane.prefix + b"d")
    assert fields[b"e"] == envelope(NONCE, b"sa", wid(2))
    assert not lane.client.exists(lane.value(b"sa"), lane.lease(b"sa"))
    assert ids(lane) == []


def test_buried_record_is_a_dead_letter_and_comes_back_as_the_newest(lane: Lane) -> None:
    """With its error; the value leaves the cache, and readers are told. It comes back once."""
    put(lane, b"sa", write=1)
    put(lane, b"sa", write=2)
    first, second = ids(lane)
    take(lane, A)
    take(lane, A)
    with lane.listening() as heard:
        assert lane.run("buried", [b"sa"], wid(9), A, "why", 3, first, second, more=[b"w", b"o", b"d"])[0] == 1
    assert [(message.op, message.keys) for message in heard] == [("I", [b"sa"])]
    assert not lane.client.exists(lane.value(b"sa"), lane.lease(b"sa"))
    ((letter, fields),) = lane.client.xrange(lane.prefix + b"d")
    assert fields == {b"k": b"sa", b"e": envelope(NONCE, b"sa", wid(2)), b"x": b"why", b"n": b"3"}
    assert lane.run("requeue", [b"sa"], wid(10), letter, more=[b"d", b"w"])[0] == 1
    assert lane.run("requeue", [b"sa"], wid(11), letter, more=[b"d", b"w"]) == [0, NONCE]
    assert queued(lane) == [(b"sa", fields[b"e"])]
    assert lane.client.get(lane.lease(b"sa")) == b"P" + ids(lane)[0]


def test_rebury_takes_in_a_dead_letter_of_another_lane_as_it_is(lane: Lane) -> None:
    """With all its fields. Not in the middle of a change of the list, when nobody could tell where its key is."""
    fields = [b"k", b"sa", b"e", envelope(NONCE, b"sa", wid(1)), b"x", b"why", b"n", b"3"]
    status, generation, record = lane.run("rebury", [], wid(2), *fields, more=[b"d"])
    assert (status, generation) == (1, NONCE)
    assert lane.client.xrange(lane.prefix + b"d") == [(record, dict(zip(fields[::2], fields[1::2], strict=True)))]
    assert lane.run("requeue", [b"sa"], wid(3), record, more=[b"d", b"w"])[0] == 1
    with pytest.raises(ServerReplyError, match="NCTOPO"):
        lane.run("rebury", [], wid(4), *fields, more=[b"d"], ring=2)
