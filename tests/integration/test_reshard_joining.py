"""Coming into the middle of a change of the list of shards, while a shard that takes part in it does not answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import nearcache
from nearcache.errors import BulkError, ReshardError, ServerReplyError
from nearcache.loading import behind as behind_module
from nearcache.rings import shards_of
from support.redis import Binary, RedisServer
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

B = 0.6
Servers = dict[str, RedisServer]


@pytest.fixture
def servers(newest_binary: Binary) -> Iterator[Servers]:
    """Three servers, by the names of their shards."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(RedisServer(newest_binary)) for name in "abc"}


def opened(stack: contextlib.ExitStack, servers: Servers, names: str, away: str = "", **options: Any) -> Any:
    """Open a cache; it cannot reach the shards that are ``away``, wherever they are."""
    paths = [servers[name].path + ("-" if name in away else "") for name in names]
    options = {"max_staleness": B, "shard_names": list(names)} | options
    return stack.enter_context(nearcache.open("unix://" + ",".join(paths), **options))


def freeze(cache: Any) -> None:
    """Let a cache follow nobody of its own accord, as one that cannot reach a new shard."""
    cache._membership._catching_up = True


def refuse(key: str, value: str) -> None:
    """A writer that cannot."""
    raise ValueError(key)


def grown(leader: Any, servers: Servers) -> Any:
    """Return the list with the shard ``c``."""
    endpoint = replace(leader.settings.endpoints[0], name="c", path=servers["c"].path)
    return shards_of("rendezvous", (*leader._membership.ring.old.endpoints, endpoint))


def grow(leader: Any, servers: Servers, steps: int) -> Any:
    """Take steps of a change that adds the shard ``c``. Returns the ring of the step after those."""
    membership = leader._membership
    target = grown(leader, servers)
    for number in range(steps + 1):
        ring = membership.ring.following() if number else membership.ring.begin(target)
        if number < steps:
            membership._advance(ring)
    return ring


def moving_key(cache: Any, target: Any) -> str:
    """Return a key that goes from ``b`` to ``c``."""
    from nearcache.keys import encode_key, slot_of

    before = cache._membership.ring.old
    keys = (f"k{number}" for number in range(1000))
    return next(
        key for key in keys
        if before.owner(slot_of(encode_key(key))) == "b" and target.owner(slot_of(encode_key(key))) == "c"
    )  # fmt: skip


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_open_while_a_step_is_told_to_some_keeps_to_the_step_before(servers: Servers, names: str) -> None:
    """The leader died in the middle, and one shard cannot be reached: it may be two steps behind the others, and let
    somebody work with it who invalidates nothing where the new step reads."""
    with contextlib.ExitStack() as stack:
        behind, leader = (opened(stack, servers, "ab") for _ in range(2))
        freeze(behind)
        freeze(leader)
        ring = grow(leader, servers, 1)
        leader._membership._tell(ring, ["a", "c"], strict=True)
        joined = opened(stack, servers, names, away="b")
        key = moving_key(behind, ring.new)
        assert joined.get_or_load(key, lambda _: "old") == "old"
        behind.invalidate(key)  # at its owner of two steps ago, who knows of one step
        assert joined.get_or_load(key, lambda _: "new") == "new"


def test_open_while_a_step_is_told_to_some_takes_it_where_all_can_be_told(servers: Servers) -> None:
    """It tells the rest itself, as whoever takes a step does."""
    with contextlib.ExitStack() as stack:
        behind, leader = (opened(stack, servers, "ab") for _ in range(2))
        freeze(behind)
        freeze(leader)
        ring = grow(leader, servers, 1)
        leader._membership._tell(ring, ["a"], strict=True)
        joined = opened(stack, servers, "ab")
        assert joined._membership.ring.version == ring.version
        key = moving_key(behind, ring.new)
        assert joined.get_or_load(key, lambda _: "old") == "old"
        with pytest.raises(nearcache.CacheError, match="NCTOPO"):
            behind.invalidate(key)


@pytest.mark.slow
def test_opened_at_the_step_before_follows_when_the_shard_is_back(servers: Servers) -> None:
    """And so does whoever leads."""
    with contextlib.ExitStack() as stack:
        leader = opened(stack, servers, "ab")
        freeze(leader)
        ring = grow(leader, servers, 1)
        servers["b"].pause()
        try:
            with pytest.raises(ReshardError, match="b did not answer"):
                leader._membership._advance(ring)
            joined = opened(stack, servers, "ab")
            assert joined._membership.ring.version == ring.version - 1
        finally:
            servers["b"].resume()
        wait_until(lambda: joined._membership.ring.version == ring.version, what="it has followed")


def test_change_that_is_written_behind_is_refused_once_the_list_is_changing(servers: Servers) -> None:
    """Its queue would stay with the old owner: at the new one readers would load what is behind it, and keep that."""
    rows: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        leader = opened(stack, servers, "ab")
        behind = opened(stack, servers, "ab", writer=rows.__setitem__, write_delay=60)
        freeze(leader)
        ring = grow(leader, servers, 1)
        key = moving_key(leader, ring.new)
        for change in (lambda: behind.set(key, "new"), lambda: behind.incr(key), lambda: behind.add(key, "new")):
            with pytest.raises(ServerReplyError, match="NCTOPO"):
                change()
        with pytest.raises(BulkError):
            behind.set_many({key: "new"})
        assert [servers[name].cli("EXISTS", "nc:{default:0}:w") for name in "abc"] == [0, 0, 0]


def test_open_with_write_delay_in_the_middle_of_a_change_is_refused(servers: Servers) -> None:
    """It could not follow the others."""
    rows: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        leader = opened(stack, servers, "ab")
        freeze(leader)
        grow(leader, servers, 1)
        with pytest.raises(ReshardError, match="write_delay"):
            opened(stack, servers, "ab", writer=rows.__setitem__, write_delay=60)


def test_queue_that_was_filled_in_the_last_moment_stops_the_change(servers: Servers) -> None:
    """Before anybody reads the new owner; when it is empty, the same call finishes."""
    rows: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        leader = opened(stack, servers, "ab")
        behind = opened(stack, servers, "ab", writer=rows.__setitem__, write_delay=60)
        advance = leader._membership._advance

        def late(ring: Any, **options: Any) -> None:
            if ring.step == 1:
                behind["k"] = "new"
            advance(ring, **options)

        leader._membership._advance = late
        where = {"url": "unix://" + ",".join(servers[name].path for name in "abc"), "shard_names": list("abc")}
        with pytest.raises(ReshardError, match="changes wait in the queue"):
            leader.reshard(**where, pause=0.0)
        assert leader._membership.ring.step == 1
        behind.flush(10)
        behind.close()
        assert leader.reshard(**where, pause=0.0).version == 4
        assert rows == {"k": "new"}


def test_queue_that_has_run_empty_does_not_stop_a_change(servers: Servers) -> None:
    """Its stream is still there, and that is all."""
    rows: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        leader = opened(stack, servers, "ab")
        behind = opened(stack, servers, "ab", writer=rows.__setitem__, write_delay=0.01)
        behind.set_many({"k1": "v", "k2": "v", "k3": "v"})
        behind.flush(10)
        behind.close()
        assert leader.reshard("unix://" + servers["a"].path, shard_names=["a"], pause=0.0).version == 4


def test_change_waits_for_who_owns_an_empty_queue_and_not_for_who_is_gone(servers: Servers) -> None:
    """Its owner may be about to settle what it has taken. A mark that outlived its process says until when.

    Where it says more than any lease lasts, the clock was set back since, and one who lives would have renewed it.
    """
    shard = servers["a"]
    now_s = int(shard.cli("TIME")[0])

    def own(left_s: int) -> None:
        shard.cli("SET", "nc:{default:0}:o", f"L{'f' * 16} {(now_s + left_s) * 1000}")

    with contextlib.ExitStack() as stack:
        cache = opened(stack, servers, "ab")
        three = {"url": "unix://" + ",".join(servers[name].path for name in "abc"), "shard_names": list("abc")}
        own(50)
        with pytest.raises(ReshardError, match="changes wait in the queue of shard a"):
            cache.reshard(**three, pause=0.0)
        own(-1)
        assert cache.reshard(**three, pause=0.0).version == 4
        own(3600)
        assert cache.reshard("unix://" + shard.path, shard_names=["a"], pause=0.0).version == 7


def test_shard_that_was_taken_out_is_taken_in_again_by_the_next_change(servers: Servers) -> None:
    """It knows itself to be none of the list from before, and that is no other change."""
    with contextlib.ExitStack() as stack:
        one, other = (opened(stack, servers, "abc") for _ in range(2))
        for version, names in enumerate(("ab", "abc", "a", "abc"), 1):
            url = "unix://" + ",".join(servers[name].path for name in names)
            assert one.reshard(url, shard_names=list(names), pause=0.0).version == 1 + 3 * version
        wait_until(lambda: other._membership.ring.version == 13, what="the other has followed")
        other.set_many({f"k{number}": number for number in range(16)})
        assert one.get_many([f"k{number}" for number in range(16)]) == {f"k{number}": number for number in range(16)}


def test_change_to_a_shard_that_cannot_be_reached_has_not_begun(servers: Servers) -> None:
    """A wrong address, say: else nobody could ever finish that change, or call for another one."""
    with contextlib.ExitStack() as stack:
        one, other = (opened(stack, servers, "ab") for _ in range(2))
        wrong = "unix://" + ",".join([servers["a"].path, servers["b"].path, servers["c"].path + "-"])
        with pytest.raises(ReshardError, match="c did not answer") as raised:
            one.reshard(wrong, shard_names=list("abc"), pause=0.0)
        assert raised.value.shards == ("c",)
        assert servers["a"].cli("HGET", "nc:{default:0}:L", "r").startswith(b"1-")
        right = wrong.removesuffix("-")
        assert other.reshard(right, shard_names=list("abc"), pause=0.0).version == 4


def test_dead_letters_are_those_of_the_shards_of_now_and_their_ids_hold_in_every_process(servers: Servers) -> None:
    """However a process lists the shards, and whichever it has known before."""

    with contextlib.ExitStack() as stack:
        one = opened(stack, servers, "abc")
        one.reshard("unix://" + ",".join(servers[name].path for name in "ab"), shard_names=["a", "b"], pause=0.0)
        servers["c"].kill()
        assert one.dead_letters() == []
        behind = opened(stack, servers, "ba", writer=refuse, write_delay=0.01, write_attempts=1)
        behind.set_many({f"k{number}": "v" for number in range(8)})
        behind.flush(10)
        letters = behind.dead_letters()
        assert sorted(letter.key for letter in letters) == [f"k{number}" for number in range(8)]
        assert {letter.id for letter in one.dead_letters()} == {letter.id for letter in letters}
        assert one.discard_dead_letters([letter.id for letter in letters]) == 8
        assert behind.dead_letters() == one.dead_letters() == []


def test_shard_that_has_dead_letters_does_not_leave(servers: Servers) -> None:
    """Nobody would find them there. What is not acknowledged by reading or replaying them is not to be lost."""
    with contextlib.ExitStack() as stack:
        behind = opened(stack, servers, "ab", writer=refuse, write_delay=0.01, write_attempts=1)
        for number in range(10):
            behind[f"k{number}"] = number
        behind.flush(10)
        ids = [letter.id for letter in behind.dead_letters()]
        assert len(ids) == 10
        behind.close()
        leader = opened(stack, servers, "ab")
        url = "unix://" + ",".join(servers[name].path for name in "ac")
        with pytest.raises(ReshardError, match=r"shard b, which is to leave, has \d dead letters"):
            leader.reshard(url, shard_names=["a", "c"], pause=0.0)
        assert leader._membership.ring.version == 1
        assert leader.discard_dead_letters(ids) == 10
        assert leader.reshard(url, shard_names=["a", "c"], pause=0.0).version == 4


def test_dead_letter_of_a_key_that_has_moved_ends_what_its_new_owner_has(servers: Servers) -> None:
    """Readers have loaded from behind the cache meanwhile."""
    rows: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        key, leader = moved_with_dead_letters(stack, servers, "new")
        assert leader.get_or_load(key, lambda _: "old") == "old"
        again = opened(stack, servers, "abc", writer=rows.__setitem__, write_delay=0.01)
        assert again.replay_dead_letters() == 1
        again.flush(10)
        assert rows == {key: "new"}
        wait_until(lambda: leader.get(key) is None, what="it is loaded anew")


def moved_with_dead_letters(stack: contextlib.ExitStack, servers: Servers, *values: str) -> tuple[str, Any]:
    """Return a key whose changes became dead letters on a shard that it has left since, and a cache that sees it."""
    leader = opened(stack, servers, "ab")
    key = moving_key(leader, grown(leader, servers))
    with opened(stack, servers, "ab", writer=refuse, write_delay=0.01, write_attempts=1) as behind:
        for value in values:
            behind[key] = value
            behind.flush(10)
    leader.reshard("unix://" + ",".join(servers[name].path for name in "abc"), shard_names=list("abc"), pause=0.0)
    return key, leader


def test_dead_letter_of_a_key_that_has_moved_is_not_put_back_over_a_newer_change(servers: Servers) -> None:
    """That waits where the key is now, and there the letter stays one until it has been written."""
    rows: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        key, _ = moved_with_dead_letters(stack, servers, "old")
        now = opened(stack, servers, "abc", writer=rows.__setitem__, write_delay=60)
        now[key] = "new"
        assert now.replay_dead_letters() == 0
        (letter,) = now.dead_letters()
        assert (letter.key, letter.value, letter.error) == (key, "old", f"ValueError: {key}")
        now.flush(10)
        assert rows == {key: "new"}
        assert now.replay_dead_letters([letter.id]) == 1
        assert now.dead_letters() == []
        now.flush(10)
        assert rows == {key: "old"}


def test_dead_letters_that_are_not_put_back_yet_stay_in_their_order(servers: Servers) -> None:
    """An older one from another shard does not come to lie behind the newest, which is put back later."""
    rows: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        key, _ = moved_with_dead_letters(stack, servers, "older")
        with opened(stack, servers, "abc", writer=refuse, write_delay=0.01, write_attempts=1) as behind:
            behind[key] = "newest"
            behind.flush(10)
        again = opened(stack, servers, "abc", writer=rows.__setitem__, write_delay=60)
        again[key] = "new"
        assert again.replay_dead_letters() == 0
        assert {letter.value for letter in again.dead_letters()} == {"older", "newest"}
        again.flush(10)
        assert rows == {key: "new"}
        assert again.replay_dead_letters() == 2
        again.flush(10)
        assert rows == {key: "newest"}


def test_dead_letters_of_a_key_from_before_and_after_it_moved_are_put_back_as_one(servers: Servers) -> None:
    """The newest of them, wherever it is."""
    rows: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        key, _ = moved_with_dead_letters(stack, servers, "oldest", "older")
        with opened(stack, servers, "abc", writer=refuse, write_delay=0.01, write_attempts=1) as behind:
            behind[key] = "newest"
            behind.flush(10)
        again = opened(stack, servers, "abc", writer=rows.__setitem__, write_delay=0.01)
        assert again.replay_dead_letters() == 3
        again.flush(10)
        assert rows == {key: "newest"}
        assert again.dead_letters() == []


def test_dead_letter_that_two_processes_bring_to_its_new_shard_is_one(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It belongs to whoever took it away from the old one."""
    rows: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        key, leader = moved_with_dead_letters(stack, servers, "value")
        other = opened(stack, servers, "abc", writer=rows.__setitem__, write_delay=0.01)
        true, letters = behind_module._fields_of, other.dead_letters()

        def read(*place: Any) -> Any:
            fields = yield from true(*place)
            if len(calls) == 1:  # the first look is for its key
                calls.append("other")
                assert other.replay_dead_letters([letters[0].id]) == 1
            calls.append("read")
            return fields

        calls: list[str] = []
        monkeypatch.setattr(behind_module, "_fields_of", read)
        assert leader.replay_dead_letters([letters[0].id]) == 0
        assert "other" in calls
        assert leader.dead_letters() == []
        other.flush(10)
        assert rows == {key: "value"}
