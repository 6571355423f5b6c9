"""The scripts that change values: results, messages, generations, batches, odd keys. On every server found."""

from __future__ import annotations

import pytest

from nearcache.errors import ServerReplyError
from nearcache.l2 import Exchange, Reply, load_script
from support.lanes import NO_WID, NONCE, Lane, envelope, wid
from support.redis import RedisServer

pytestmark = pytest.mark.every_server

ODD_KEYS = [b"s{braces}", b"snew\nline", b"sn\0l", b"s1:2:3", b"s", b"b\xff\xfe", b"s}{", b"3:abc", b"s" + b"k" * 65535]


def test_heartbeat_without_a_record_creates_it_from_the_nonce(lane: Lane) -> None:
    """Epoch and generation of a new lane are the caller's random nonce; nothing has been written yet."""
    assert lane.run("heartbeat", [], nonce=wid(7)) == [NONCE, b"0", NO_WID, NONCE, b"1", None]
    lane.client.delete(lane.record)
    assert lane.run("heartbeat", [], nonce=wid(7)) == [wid(7), b"0", NO_WID, wid(7), b"1", None]


def test_heartbeat_after_writes_tells_sequence_and_last_wid(lane: Lane) -> None:
    """A heartbeat's answer is the position that the last message brought its readers to."""
    lane.set(b"sk", write=wid(1))
    lane.set(b"sk", write=wid(2))
    assert lane.run("heartbeat", []) == [NONCE, b"2", wid(2), NONCE, b"1", None]


def test_set_stores_with_expiry_and_announces_once(lane: Lane) -> None:
    """Values are stored with their lifetime, fences go, and one message with one wid names all keys."""
    lane.client.set(lane.lease(b"sk"), b"F")
    with lane.listening() as heard:
        assert lane.set(b"sk", b"sj", write=wid(1), ttl=50_000) == [1, NONCE, NONCE, b"1", b""]
    assert lane.client.get(lane.value(b"sk")) == envelope(NONCE, b"sk", wid(1))
    assert lane.client.get(lane.value(b"sj")) == envelope(NONCE, b"sj", wid(1))
    assert 40_000 < lane.client.pttl(lane.value(b"sj")) <= 50_000
    assert not lane.client.exists(lane.lease(b"sk"))
    assert heard == [("S", NONCE, 1, NO_WID, wid(1), [b"sk", b"sj"])]


@pytest.mark.parametrize("before", [9, 99_999_999_999_999, 999_999_999_999_999, 2**53 - 2])
def test_set_counts_on_whatever_the_number(lane: Lane, before: int) -> None:
    """Numbers stay decimal digits, in the answer, in the message and in the record, however many there are."""
    lane.client.hset(lane.record, "s", before)
    with lane.listening() as heard:
        assert lane.set(b"sk", write=wid(1))[3] == b"%d" % (before + 1)
    assert [message.seq for message in heard] == [before + 1]
    assert lane.position() == (before + 1, wid(1))


def test_set_under_another_generation_does_nothing(lane: Lane) -> None:
    """An envelope sealed under another generation is refused, with the generation to seal it under."""
    with lane.listening() as heard:
        assert lane.set(b"sk", write=wid(1), gen=wid(9)) == [0, NONCE]
    assert lane.client.keys(lane.value(b"*")) == []
    assert heard == []
    assert lane.position() == (0, NO_WID)


def test_set_of_large_values_stages_them_outside_of_lua(lane: Lane) -> None:
    """Large and small values of one call are stored alike, in order, and nothing of the staging is left."""
    keys = [b"ssmall", b"slarge", b"sother", b"shuge"]
    envelopes = [envelope(NONCE, bytes([65 + n]) * size) for n, size in enumerate((10, 20_000, 30, 300_000))]
    lane.client.set(lane.value(b"slarge"), b"old")
    with lane.listening() as heard:
        assert lane.run_staged("set", keys, wid(1), envelopes, NONCE, "", 50_000) == [1, NONCE, NONCE, b"1", b""]
    assert [lane.client.get(lane.value(key)) for key in keys] == envelopes
    assert all(40_000 < lane.client.pttl(lane.value(key)) <= 50_000 for key in keys)
    assert heard == [("S", NONCE, 1, NO_WID, wid(1), keys)]
    assert lane.client.dbsize() == len(keys) + 1


def test_set_whose_staged_value_is_gone_does_nothing(lane: Lane) -> None:
    """Evicted between the two steps: an error, no message, no half of the batch."""
    names = [lane.value(b"sk"), lane.lease(b"sk"), lane.prefix + b"s:gone", lane.record]
    command = load_script("set").call(names, [1, NONCE, wid(1), NONCE, "", 60_000, b""])
    with lane.listening() as heard:
        reply = lane.driver.execute([Exchange(0, [command])])[0]
    assert isinstance(reply, Reply)
    assert reply.values[0].code == "NCSTAGE"
    assert heard == []
    assert lane.client.dbsize() == 1


def test_set_refused_with_staged_values_leaves_them_to_expire(lane: Lane) -> None:
    """What was staged for a write that did not come about is gone within seconds."""
    large = envelope(wid(9), bytes(20_000))
    assert lane.run_staged("set", [b"sk"], wid(1), [large], wid(9), "", 50_000) == [0, NONCE]
    (left,) = (key for key in lane.client.scan_iter() if key != lane.record)
    assert 0 < lane.client.pttl(left) <= 10_000


def test_set_nx_on_a_live_value_returns_it(lane: Lane) -> None:
    """With NX a value of the lane's generation stands in the way, and nothing happens."""
    lane.set(b"sk", write=wid(1))
    with lane.listening() as heard:
        assert lane.set(b"sk", write=wid(2), mode="NX")[:3] == [2, NONCE, envelope(NONCE, b"sk", wid(1))]
    assert heard == []


@pytest.mark.parametrize("there", [envelope(wid(9)), b"short", b""], ids=["old generation", "torn", "empty"])
def test_set_nx_on_a_dead_value_replaces_it(lane: Lane, there: bytes) -> None:
    """With NX a value of another generation, or what is no envelope, counts as absent."""
    lane.client.set(lane.value(b"sk"), there)
    assert lane.set(b"sk", write=wid(2), mode="NX") == [1, NONCE, NONCE, b"1", b""]
    assert lane.client.get(lane.value(b"sk")) == envelope(NONCE, b"sk", wid(2))


def test_set_with_an_impossible_ttl_changes_and_announces_nothing(lane: Lane) -> None:
    """A refused command ends the script before the message."""
    with lane.listening() as heard, pytest.raises(ServerReplyError, match="expire"):
        lane.set(b"sk", b"sj", write=wid(1), ttl=0)
    assert heard == []
    assert lane.position() == (0, NO_WID)


def test_invalidate_removes_values_and_leases_and_counts(lane: Lane) -> None:
    """The answer says of several keys how many values existed."""
    lane.set(b"sk", b"sj", write=wid(1))
    lane.client.set(lane.lease(b"sk"), b"F")
    with lane.listening() as heard:
        assert lane.run("invalidate", [b"sk", b"sj", b"sx"], wid(2)) == [1, NONCE, 2, NONCE, b"2"]
    assert lane.client.keys(lane.prefix + b"*") == [lane.record]
    assert heard == [("I", NONCE, 2, wid(1), wid(2), [b"sk", b"sj", b"sx"])]


def test_invalidate_of_one_key_counts_a_live_value_only(lane: Lane) -> None:
    """Not one of another generation, nor what says that there is none, nor what is no envelope; all of them go."""
    name, live = lane.value(b"sk"), envelope(NONCE, b"sk", wid(1))
    negative = live[:1] + b"\x08" + live[2:]
    for there, count in ((live, 1), (live[:1] + b"\x14" + live[2:], 1), (envelope(wid(7), b"sk"), 0), (negative, 0)):
        lane.client.set(name, there)
        assert lane.run("invalidate", [b"sk"], wid(2))[:3] == [1, NONCE, count]
        assert not lane.client.exists(name)
    lane.client.set(name, b"short")
    assert lane.run("invalidate", [b"sk"], wid(2))[2] == 0
    lane.client.rpush(name, live)
    assert lane.run("invalidate", [b"sk"], wid(2))[2] == 0
    assert not lane.client.exists(name)


def test_invalidate_of_an_absent_key_is_announced(lane: Lane) -> None:
    """What L2 has evicted may still be in somebody's L1."""
    with lane.listening() as heard:
        assert lane.run("invalidate", [b"sk"], wid(2)) == [1, NONCE, 0, NONCE, b"1"]
    assert heard == [("I", NONCE, 1, NO_WID, wid(2), [b"sk"])]


def test_invalidate_without_a_lane_record_creates_one_and_announces(lane: Lane) -> None:
    """Also the first thing that ever happens on a lane reaches its readers."""
    lane.client.delete(lane.record)
    with lane.listening() as heard:
        assert lane.run("invalidate", [b"sk"], wid(2), nonce=wid(7)) == [1, wid(7), 0, wid(7), b"1"]
    assert heard == [("I", wid(7), 1, NO_WID, wid(2), [b"sk"])]


def test_clear_makes_the_wid_the_generation(lane: Lane) -> None:
    """Values stay where they are, and count as absent from now on."""
    lane.set(b"sk", write=wid(1))
    with lane.listening() as heard:
        assert lane.run("clear", [], wid(2)) == [1, wid(2), NONCE, b"2"]
    assert heard == [("C", NONCE, 2, wid(1), wid(2), [])]
    assert lane.set(b"sk", write=wid(3), gen=NONCE) == [0, wid(2)]
    assert lane.set(b"sk", write=wid(3), gen=wid(2), mode="NX") == [1, wid(2), NONCE, b"3", b""]


def test_clear_that_is_repeated_changes_nothing(lane: Lane) -> None:
    """Its answer was lost. Another may have cleared since: what that has ended must not come back to life."""
    lane.run("clear", [], wid(1))
    lane.set(b"sk", write=wid(2), gen=wid(1))
    lane.run("clear", [], wid(3))
    with lane.listening() as heard:
        assert lane.run("clear", [], wid(1)) == [1, wid(3), NONCE, b"3"]
        for number in range(4, 18):
            lane.run("clear", [], wid(number))
        assert lane.run("clear", [], wid(3)) == [1, wid(17), NONCE, b"17"]
    assert [message[4] for message in heard] == [wid(number) for number in range(4, 18)]
    assert lane.set(b"sk", write=wid(99), gen=wid(1)) == [0, wid(17)]


def test_messages_chain_each_names_the_wid_before(lane: Lane) -> None:
    """Sequence numbers follow each other, and each message carries the wid of the one before."""
    with lane.listening() as heard:
        lane.set(b"sa", write=wid(1))
        lane.run("invalidate", [b"sa"], wid(2))
        lane.run("clear", [], wid(3))
        lane.set(b"sa", write=wid(4), gen=wid(3))
    assert [(m.op, m.seq, m.prev, m.wid) for m in heard] == [
        ("S", 1, NO_WID, wid(1)), ("I", 2, wid(1), wid(2)), ("C", 3, wid(2), wid(3)), ("S", 4, wid(3), wid(4)),
    ]  # fmt: skip
    assert lane.position() == (4, wid(4))


def test_sequence_beyond_what_lua_prints_stays_exact(lane: Lane) -> None:
    """Lua prints numbers above 1e14 in exponents; sequence numbers may not go that way."""
    lane.client.hset(lane.record, "s", 1_234_567_890_123_456)
    with lane.listening() as heard:
        lane.set(b"sa", write=wid(1))
    assert heard[0].seq == 1_234_567_890_123_457


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: repr(key[:10]))
def test_odd_keys_are_stored_announced_and_removed_whole(lane: Lane, key: bytes) -> None:
    """No byte of a key means anything to the scripts, and keys may be 64 KiB long."""
    with lane.listening() as heard:
        assert lane.set(key, b"sother", write=wid(1))[:2] == [1, NONCE]
        assert lane.run("invalidate", [key], wid(2))[:3] == [1, NONCE, 1]
    assert [each for m in heard for each in m.keys] == [key, b"sother", key]
    assert lane.client.exists(lane.value(b"sother"))


def test_batch_of_a_thousand_keys_is_one_message(lane: Lane) -> None:
    """A thousand short keys fit into one message, and into Lua's stack."""
    keys = [b"s%d" % number for number in range(1000)]
    with lane.listening() as heard:
        assert lane.set(*keys, write=wid(1))[:2] == [1, NONCE]
        assert lane.run("invalidate", keys, wid(2))[:3] == [1, NONCE, 1000]
    assert [(m.op, m.seq, m.keys) for m in heard] == [("S", 1, keys), ("I", 2, keys)]
    assert lane.client.dbsize() == 1


def test_batch_beyond_64_kb_is_split_with_its_own_numbers(lane: Lane) -> None:
    """No message carries more than 64 KB of keys; the parts of one write share its wid and chain like any others."""
    keys = [b"s%04d" % number + b"x" * 995 for number in range(200)]
    with lane.listening() as heard:
        assert lane.run("invalidate", keys, wid(5))[:3] == [1, NONCE, 0]
    assert [each for m in heard for each in m.keys] == keys
    assert len(heard) == 4
    assert [(m.seq, m.prev) for m in heard] == [(1, NO_WID), (2, wid(5)), (3, wid(5)), (4, wid(5))]
    assert all(sum(len(key) + 6 for key in m.keys) <= 65536 for m in heard)
    assert lane.position() == (4, wid(5))


def test_ring_one_behind_is_admitted_and_two_behind_refused(lane: Lane) -> None:
    """Two shard lists may be in use during a change, never three; who is refused has changed nothing."""
    lane.set(b"sk", write=wid(1), ring=3)
    assert lane.run("heartbeat", [], ring=2)[4] == b"3"
    with lane.listening() as heard:
        for name, arguments in (("invalidate", [wid(2)]), ("heartbeat", []), ("clear", [wid(2)])):
            with pytest.raises(ServerReplyError) as caught:
                lane.run(name, [b"sk"] if name == "invalidate" else [], *arguments, ring=1)
            assert caught.value.code == "NCTOPO"
            assert "NCTOPO 3" in str(caught.value)
    assert heard == []
    assert lane.client.exists(lane.value(b"sk"))


def test_ring_of_a_shard_that_is_left_is_right_against_the_same_version(lane: Lane) -> None:
    """Who has not noticed yet that it is gone from his list told it in passing; he is not let after that."""
    ring, left = "4-00000000000000aa", "4-" + "0" * 16
    assert lane.run("heartbeat", [], ring=ring)[4] == ring.encode()
    assert lane.run("heartbeat", [], ring=left)[4] == left.encode()
    for other in (ring, "4-00000000000000bb"):
        with pytest.raises(ServerReplyError, match="NCTOPO " + left):
            lane.run("heartbeat", [], ring=other)


def test_databases_of_one_server_have_channels_of_their_own(redis_server: RedisServer) -> None:
    """Pub/sub knows no databases, so a lane's name carries its database: no one sees another's messages as gaps."""
    first, second = Lane(redis_server), Lane(redis_server, db=3)
    first.start()
    second.start()
    with first.listening() as heard:
        second.set(b"sk", write=wid(1))
        first.set(b"sk", write=wid(2))
    assert [m.wid for m in heard] == [wid(2)]
    assert second.client.exists(second.value(b"sk"))
    first.close()
    second.close()


def test_set_cas_stores_over_the_write_it_names_only(lane: Lane) -> None:
    """With CAS and a wid the live value must be that write's; a refusal returns what is there, and tells nobody."""
    lane.set(b"sk", write=wid(1), ttl=50_000)
    with lane.listening() as heard:
        status, gen, there, pttl = lane.set(b"sk", write=wid(3), mode="CAS" + wid(2).decode())
        assert (status, gen, there) == (2, NONCE, envelope(NONCE, b"sk", wid(1)))
        assert 40_000 < pttl <= 50_000
        assert lane.set(b"sj", write=wid(3), mode="CAS" + wid(2).decode()) == [2, NONCE, None, -2]
        assert lane.set(b"sk", write=wid(4), mode="CAS" + wid(1).decode()) == [1, NONCE, NONCE, b"2", b""]
    assert heard == [("S", NONCE, 2, wid(1), wid(4), [b"sk"])]
    assert lane.client.get(lane.value(b"sk")) == envelope(NONCE, b"sk", wid(4))
    assert lane.position() == (2, wid(4))


def test_set_cas_after_a_clear_finds_no_value(lane: Lane) -> None:
    """The envelope of a dead generation is nothing that could be compared with, even under its own wid."""
    lane.set(b"sk", write=wid(1))
    lane.run("clear", [], wid(2))
    assert lane.set(b"sk", write=wid(3), gen=wid(2), mode="CAS" + wid(1).decode()) == [2, wid(2), None, -2]


def test_set_cas_keeping_the_lifetime_does_not_move_its_end(lane: Lane) -> None:
    """KEEP in place of milliseconds leaves the value what is left, staged or not."""
    lane.set(b"sk", write=wid(1), ttl=50_000)
    assert lane.set(b"sk", write=wid(2), mode="CAS" + wid(1).decode(), ttl="KEEP")[0] == 1
    assert 40_000 < lane.client.pttl(lane.value(b"sk")) <= 50_000
    large = envelope(NONCE, b"x" * 20_000, wid(3))
    assert lane.run_staged("set", [b"sk"], wid(3), [large], NONCE, "CAS" + wid(2).decode(), "KEEP")[0] == 1
    assert lane.client.get(lane.value(b"sk")) == large
    assert 40_000 < lane.client.pttl(lane.value(b"sk")) <= 50_000


def test_touch_announces_what_ends_sooner_only(lane: Lane) -> None:
    """Copies may end too early but not too late; the answer is as much of the envelope as was asked for."""
    lane.set(b"sk", write=wid(1), ttl=50_000)
    whole = envelope(NONCE, b"sk", wid(1))
    with lane.listening() as heard:
        whole = whole[:1] + b"\x40" + whole[2:]  # marked: its age cannot be told from what is left of its lifetime
        assert lane.run("touch", [b"sk"], wid(2), 90_000, 35) == [1, NONCE, whole[:36], NONCE, 0]
        assert 80_000 < lane.client.pttl(lane.value(b"sk")) <= 90_000
        assert lane.run("touch", [b"sk"], wid(3), 20_000, -1) == [1, NONCE, whole, NONCE, b"2"]
        assert 10_000 < lane.client.pttl(lane.value(b"sk")) <= 20_000
        assert lane.run("touch", [b"sj"], wid(4), 20_000, -1) == [0, NONCE]
    assert heard == [("I", NONCE, 2, wid(1), wid(3), [b"sk"])]


def test_take_returns_the_value_once_and_voids_leases(lane: Lane) -> None:
    """It removes and announces as an invalidation does, even where nothing is left; a hold stays."""
    lane.set(b"sk", write=wid(1))
    lane.client.set(lane.lease(b"sk"), b"L" + wid(9) + NONCE)
    with lane.listening() as heard:
        assert lane.run("take", [b"sk"], wid(2)) == [1, NONCE, envelope(NONCE, b"sk", wid(1)), NONCE, b"2"]
        assert not lane.client.exists(lane.value(b"sk"), lane.lease(b"sk"))
        lane.client.set(lane.lease(b"sk"), b"H" + wid(9), px=60_000)
        assert lane.run("take", [b"sk"], wid(3)) == [1, NONCE, None, NONCE, b"3"]
    assert lane.client.get(lane.lease(b"sk")) == b"H" + wid(9) + b"!"
    assert heard == [("I", NONCE, 2, wid(1), wid(2), [b"sk"]), ("I", NONCE, 3, wid(2), wid(3), [b"sk"])]


def test_take_of_a_cleared_value_returns_none(lane: Lane) -> None:
    """An envelope of another generation is no value; it goes all the same."""
    lane.set(b"sk", write=wid(1))
    lane.run("clear", [], wid(2))
    assert lane.run("take", [b"sk"], wid(3))[:3] == [1, wid(2), None]
    assert not lane.client.exists(lane.value(b"sk"))
