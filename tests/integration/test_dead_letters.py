"""Write-behind when something is wrong: poison, outages, full queues, strangers. On real servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import ABSENT, BacklogFullError, Cache, FlushTimeoutError
from support.logs import full_disk
from support.redis import RedisServer
from support.rows import Database, writing_behind
from support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

Opener = Callable[..., Cache[Any, Any]]
QUEUE, DEAD, OWNER = "nc:{default:0}:w", "nc:{default:0}:d", "nc:{default:0}:o"


@pytest.fixture
def open_cache(redis_server: RedisServer, database: Database) -> Iterator[Opener]:
    """Open caches that write behind, and are closed at the end."""
    with writing_behind(redis_server.url, database) as opener:
        yield opener


def test_records_in_the_queue_are_sealed_as_values_are(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """Encrypted under the key that they belong to; what was tampered with is a dead letter, never written."""
    cache = open_cache(write_delay=60, encryption_keys=b"k" * 32)
    with redis_server.client() as client:
        cache["k"] = "the secret"
        ((_, fields),) = client.xrange(QUEUE)
        assert b"the secret" not in fields[b"e"]
        client.xadd(QUEUE, {"k": b"sother", "e": fields[b"e"]})
    cache.flush(10)
    assert database.rows == {"k": "the secret"}
    ((_, key, value, is_deletion, error, _),) = cache.dead_letters()
    assert (key, value, is_deletion) == ("other", ABSENT, False)
    assert "ForgedError" in error


@pytest.mark.parametrize("protection", ["signing_keys", "encryption_keys"])
def test_deletions_in_the_queue_are_sealed_as_values_are(
    open_cache: Opener, database: Database, redis_server: RedisServer, protection: str
) -> None:
    """Made without a key, for another one, or of what Redis holds, it is a dead letter and deletes nothing."""
    database.rows = {"one": 1, "many": 2, "kept": 3}
    cache = open_cache(write_delay=60, negative_ttl=60, **{protection: b"k" * 32})
    with pytest.raises(KeyError):
        cache["absent"]
    with redis_server.client() as client:
        remembered = client.get("nc:{default:0}:v:sabsent")
        database.rows["absent"] = "now it is there"
        del cache["one"]
        cache.delete_many(["many"])
        for key in ("one", "many"):  # by what waits, whatever the loader says
            with pytest.raises(KeyError):
                cache[key]
        genuine, _ = [fields[b"e"] for _, fields in client.xrange(QUEUE)]
        for key, envelope in (("kept", b""), ("kept", genuine), ("absent", remembered), ("absent", b"\xc1\x08")):
            client.xadd(QUEUE, {"k": f"s{key}", "e": envelope})
            cache.flush(10)
    assert database.rows == {"kept": 3, "absent": "now it is there"}
    letters = cache.dead_letters()
    assert [(letter.key, letter.is_deletion) for letter in letters] == [("kept", True)] * 2 + [("absent", True)] * 2
    assert ["ForgedError" in letter.error for letter in letters] == [True, True, True, False]
    stats = cache.stats()
    assert (stats.writing.deleted, stats.writing.dead, stats.l2.forged, stats.l2.undecodable) == (2, 4, 3, 1)
    assert cache.replay_dead_letters() == 4
    cache.flush(10)
    assert database.rows == {"kept": 3, "absent": "now it is there"}


def test_record_of_another_shape_is_a_dead_letter_and_stops_nobody(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """A stranger's: with more fields, with fewer, or with others. None is taken for a deletion, none for another."""
    database.rows = {"kept": 1}
    cache = open_cache()
    strange = [
        {"k": "skept", "e": "", "z": "1"}, {"k": "skept"}, {"e": ""}, {"e": "", "k": "skept"}, {"z": "1"},
    ]  # fmt: skip
    with redis_server.client() as client:
        cache["before"] = 1
        for fields in strange:
            client.xadd(QUEUE, fields)
        cache["after"] = 2
        cache.flush(20)
    assert database.rows == {"kept": 1, "before": 1, "after": 2}
    letters = cache.dead_letters()
    assert [(letter.key, letter.value, letter.is_deletion) for letter in letters] == [
        ("kept", ABSENT, True), ("kept", ABSENT, False), (b"", ABSENT, True), ("kept", ABSENT, True),
        (b"", ABSENT, False),
    ]  # fmt: skip
    assert cache.stats().writing.dead == 5
    assert all("no record of nearcache's" in letter.error for letter in letters)
    assert cache.replay_dead_letters([letters[1].id, letters[2].id, letters[4].id]) == 0  # there is nothing to write
    assert cache.discard_dead_letters(letter.id for letter in letters) == 5


def test_dead_letter_that_cannot_be_read_hides_no_others(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """Its key is shown as it is in Redis. One that is buried by this process, and what strangers put among them."""
    database.poison = {"bad"}
    cache = open_cache(write_attempts=1)
    with redis_server.client() as client:
        client.xadd(QUEUE, {"k": b"\xff\xfe", "e": b""})
        cache["bad"] = 1
        cache.flush(20)
        client.xadd(DEAD, {"k": "sother", "e": "", "n": "zz"})
        client.xadd(DEAD, {"k": "sother", "e": "", "n": "1" * 5000, "x": b"\xff"})
        client.xadd(DEAD, {"e": "", "x": "why", "n": "3"})
    letters = cache.dead_letters()
    assert [(letter.key, letter.error, letter.attempts) for letter in letters[1:]] == [
        ("bad", "ValueError: refused: ['bad']", 1), ("other", "", 0), ("other", "\N{REPLACEMENT CHARACTER}", 0),
        (b"", "why", 3),
    ]  # fmt: skip
    assert (letters[0].key, letters[0].value, letters[0].attempts) == (b"\xff\xfe", ABSENT, 0)
    database.poison = set()
    assert cache.replay_dead_letters() == 4
    cache.flush(20)
    assert database.rows == {"bad": 1}
    assert {letter.key for letter in cache.dead_letters()} == {b"\xff\xfe", b""}


def test_poison_becomes_a_dead_letter_and_dooms_nobody(open_cache: Opener, database: Database) -> None:
    """The rest of its batch is written at once; it leaves the cache, which says what the data says."""
    database.rows["bad"] = "old"
    database.poison = {"bad"}
    cache = open_cache(write_attempts=2)
    cache.set_many({"bad": "new", "good": 1, "better": 2})
    wait_until(lambda: set(database.rows) == {"bad", "good", "better"})
    assert cache["bad"] == "new"
    cache.flush(20)
    (letter,) = cache.dead_letters()
    assert letter[1:] == ("bad", "new", False, "ValueError: refused: ['bad']", 2)
    wait_until(lambda: cache["bad"] == "old")
    stats = cache.health().writing
    assert (stats.written, stats.dead, stats.retried, stats.backlog) == (2, 1, 1, 0)
    assert stats.last_error == "ValueError: refused: ['bad']"


def test_log_that_cannot_be_written_ends_no_writer(open_cache: Opener, database: Database) -> None:
    """A dead letter is logged; what comes after it is written all the same."""
    database.poison.add("bad")
    cache = open_cache(write_attempts=1)
    with full_disk() as handler:
        cache["bad"] = 1
        cache.flush(10)
        cache["good"] = 2
        cache.flush(10)
    assert len(handler.refused) == 1
    assert database.rows == {"good": 2}


def test_writer_that_fails_is_logged_before_there_are_dead_letters_and_these_by_their_keys(
    open_cache: Opener, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """With what it raised, how many changes wait for it, and the key of the first; one line a second of each kind."""
    database.poison = {f"k{number}" for number in range(20)}
    cache = open_cache(namespace="shop", write_attempts=2, shard_names=["left"])
    assert [line for line in caplog.messages if "namespace shop: shard left has no append-only file" in line]
    cache.set_many(dict.fromkeys(database.poison, 1))
    wait_until(lambda: cache.stats().writing.errors)
    wait_until(lambda: "namespace shop: the writer failed" in caplog.text)
    assert not cache.dead_letters()
    cache.flush(20)
    warned, buried = ([record.getMessage() for record in caplog.records if record.levelname == level]
                      for level in ("WARNING", "ERROR"))  # fmt: skip
    (first, *_) = [line for line in warned if "the writer failed" in line]
    assert "for 20 changes, the first of key 'k" in first
    assert "ValueError: refused: ['k0'" in first
    assert buried[0].startswith("namespace shop: a change of key 'k")
    assert "dead_letters()): ValueError: refused" in buried[0]
    assert len(buried) < 20


def test_dead_letters_are_replayed_or_discarded(open_cache: Opener, database: Database) -> None:
    """All or some; never over a newer change that waits."""
    database.poison = {"a", "b", "c", "gone"}
    cache = open_cache(write_attempts=1)
    cache.set_many({"a": 1, "b": 2, "c": 3})
    del cache["gone"]
    cache.flush(20)
    letters = {letter.key: letter for letter in cache.dead_letters()}
    assert set(letters) == {"a", "b", "c", "gone"}
    assert letters["gone"].is_deletion
    database.poison = set()
    assert cache.discard_dead_letters([letters["a"].id, letters["gone"].id]) == 2
    assert cache.discard_dead_letters([letters["a"].id]) == cache.discard_dead_letters([]) == 0
    database.gate.clear()
    cache["b"] = "newer"
    assert cache.replay_dead_letters() == 1  # c
    assert cache["c"] == 3
    database.gate.set()
    cache.flush(20)
    assert database.rows == {"b": "newer", "c": 3}
    assert [letter.key for letter in cache.dead_letters()] == ["b"]
    assert cache.replay_dead_letters([letters["b"].id]) == 1
    cache.flush(20)
    assert database.rows["b"] == cache["b"] == 2
    with pytest.raises(ValueError, match="'x' is no id"):
        cache.replay_dead_letters(["x"])


def test_newest_of_a_keys_dead_letters_is_put_back_and_it_has_overtaken_the_others(
    open_cache: Opener, database: Database
) -> None:
    """Of those that are replayed: a value is not followed by an earlier one, and no call leaves half of it behind."""
    database.poison = {"k", "l"}
    cache = open_cache(write_attempts=1)
    for number in range(3):
        cache.set_many({"k": number, "l": number})
        cache.flush(20)
    letters = [letter.id for letter in cache.dead_letters() if letter.key == "k"]
    database.poison = set()
    assert len(letters) == 3
    assert cache.replay_dead_letters(reversed(letters[:2])) == 2
    cache.flush(20)
    assert database.rows == {"k": 1}
    assert cache.replay_dead_letters() == 4
    assert cache.dead_letters() == []
    cache.flush(20)
    assert database.rows == {"k": 2, "l": 2}


def test_dead_letter_is_not_put_back_over_a_newer_change_made_under_a_hold(
    open_cache: Opener, database: Database
) -> None:
    """Such a change waits without a mark at its key, however much waits before it."""
    database.poison = {"k"}
    cache = open_cache(write_attempts=1)
    cache["k"] = "old"
    cache.flush(20)
    (letter,) = cache.dead_letters()
    database.poison = set()
    database.gate.clear()
    cache.set_many(dict.fromkeys(range(1_200), 0))
    with cache.hold(["k"]):
        cache["k"] = "new"
        assert cache.replay_dead_letters() == 0
    assert cache.replay_dead_letters([letter.id]) == 0
    database.gate.set()
    cache.flush(20)
    assert database.rows["k"] == cache["k"] == "new"
    assert [each.id for each in cache.dead_letters()] == [letter.id]


def test_outage_behind_the_cache_costs_no_changes(open_cache: Opener, database: Database) -> None:
    """After some failures in a row the rest is not tried; all is written when it is over."""
    values = {f"k{number}": number for number in range(50)}
    database.poison = set(values)
    cache = open_cache()
    cache.set_many(values)
    wait_until(lambda: cache.stats().writing.errors >= 4)
    assert sum(call == "write" for call, _ in database.calls) < len(values)
    database.poison = set()
    cache.flush(30)
    assert (database.rows, cache.dead_letters()) == (values, [])


def test_full_backlog_makes_writers_wait_and_then_refuses_them(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """Nothing is changed by what is refused; there is room again when something has been written."""
    database.gate.clear()
    cache = open_cache(max_backlog=2, timeout=0.3, write_attempts=None)
    other = open_cache(max_backlog=2, timeout=20)
    cache["a"] = 1
    cache["b"] = 2
    for refused in (
        lambda: cache.set("c", 3),
        lambda: cache.__delitem__("c"),
        lambda: cache.incr("c"),
    ):
        with pytest.raises(BacklogFullError, match="2 changes wait to be written, max_backlog=2"):
            refused()
    with pytest.raises(nearcache.BulkError, match="max_backlog=2") as caught:
        cache.set_many({"c": 3})
    assert set(caught.value.failed) == {"c"}
    with pytest.raises(nearcache.BulkError, match="max_backlog=2"):
        cache.delete_many(["c"])
    assert "c" not in cache
    assert cache.stats().coherence.owed == 0  # it is known that nothing was done
    waiting = threading.Thread(target=lambda: other.set("d", 4))
    waiting.start()
    database.gate.set()
    waiting.join(20)
    cache.flush(20)
    assert database.rows == {"a": 1, "b": 2, "d": 4}


def test_flush_that_takes_too_long_says_so(open_cache: Opener, database: Database) -> None:
    """And loses nothing."""
    database.gate.clear()
    cache = open_cache()
    cache["k"] = 1
    with pytest.raises(FlushTimeoutError, match=r"within 0\.05 s"):
        cache.flush(0.05)
    database.gate.set()
    cache.flush(20)
    assert database.rows == {"k": 1}
    database.poison = {"bad"}
    cache["bad"] = 2
    wait_until(lambda: cache.stats().writing.errors)
    with pytest.raises(FlushTimeoutError, match=r"newest trouble: ValueError: ") as raised:
        cache.flush(0.05)
    assert raised.value.trouble == cache.stats().writing.last_error


def test_program_without_a_queue_in_between_ends_with_what_was_written(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """One that stores past the queue takes the mark away; then the end of the record invalidates."""
    cache, stranger = open_cache(), open_cache(writer=None, write_delay=None)
    database.gate.clear()
    cache["k"] = "written"
    wait_until(lambda: database.calls)
    stranger["k"] = "not written"
    database.gate.set()
    cache.flush(10)
    wait_until(lambda: stranger["k"] == "written")


def test_record_that_ends_processes_is_a_dead_letter_in_the_end(
    open_cache: Opener, database: Database, redis_server: RedisServer
) -> None:
    """It was given out again and again, and nobody has ever come back; it is not tried once more."""
    with redis_server.client() as client:
        with open_cache(write_delay=60) as cache:
            cache["killer"] = 1
            wait_until(lambda: client.exists(OWNER) and client.xpending(QUEUE, "w")["pending"])
        assert not client.exists(OWNER)  # given back
        for _ in range(20):
            (pending,) = client.xpending_range(QUEUE, "w", "-", "+", 5)
            client.xclaim(QUEUE, "w", "w", 0, [pending["message_id"]])
    cache = open_cache(write_attempts=5)
    cache["next"] = 2
    cache.flush(20)
    (letter,) = cache.dead_letters()
    assert (letter.key, letter.value) == ("killer", 1)
    assert "given to 22 owners" in letter.error
    assert database.calls == [("write", {"next": 2})]
