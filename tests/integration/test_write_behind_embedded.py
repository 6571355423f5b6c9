"""Write-behind on embedded servers, which keep nothing on disk and end with their last user."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

import nearcache
from nearcache.cache.tiered import behind
from nearcache.errors import ClosedError
from support.rows import Database
from support.threads import PATIENCE
from support.waiting import wait_until
from support.worker import Worker

pytestmark = pytest.mark.usefixtures("no_leaks", "runtime_dir")

#: A program that leaves with a change that waits, and that writes into a file.
CODE = """
import nearcache

def begin(rows):
    global cache
    def write(key, value):
        with open(rows, "a") as file:
            print(key, value, file=file)
    cache = nearcache.open("embedded://behind", writer=write, write_delay=600)
    cache["k"] = 1
"""


def test_close_writes_what_waits(database: Database) -> None:
    """The queue goes with the servers: it cannot be left to the next process. The writer may use the cache."""
    cache = nearcache.open("embedded://behind", writer=database, write_delay=600)
    database.before_commit = lambda: cache.get("other")
    cache.set_many({"a": 1, "b": 2})
    del cache["b"]
    cache.close()
    cache.close()
    assert database.rows == {"a": 1}


def test_close_takes_no_change_that_it_would_lose(database: Database) -> None:
    """What other threads change meanwhile is refused, or written; what the writer changes is written too."""
    cache = nearcache.open("embedded://behind", writer=database, write_delay=600)
    acknowledged = dict[str, int]()
    begun = threading.Event()

    def change() -> None:
        with pytest.raises(ClosedError):
            for number in range(1_000_000):
                cache[f"k{number}"] = number
                acknowledged[f"k{number}"] = number
                begun.set()

    def follow() -> None:
        database.before_commit = lambda: None
        cache["written"] = acknowledged["written"] = 1

    database.before_commit = follow
    thread = threading.Thread(target=change)
    thread.start()
    assert begun.wait(PATIENCE)
    cache.close()
    thread.join(PATIENCE)
    assert len(acknowledged) > 1
    assert acknowledged.items() <= database.rows.items()


def test_interpreter_exit_without_close_writes_what_waits(make_worker: Callable[..., Worker], tmp_path: Path) -> None:
    """It is the last of the ends at which something can be done."""
    worker = make_worker(CODE)
    worker.call("begin", str(tmp_path / "rows"))
    assert worker.finish() == 0
    assert (tmp_path / "rows").read_text() == "k 1\n"


#: A program that leaves two caches behind, either of whose writers is done when both are called.
TWO = """
import logging, threading, nearcache

def begin(rows):
    global caches
    both = threading.Barrier(2)
    def write(key, value):
        both.wait(30)
        with open(rows, "a") as file:
            print(key, value, file=file)
    caches = [nearcache.open("embedded://behind", namespace=name, writer=write, write_delay=600) for name in "ab"]
    logging.basicConfig(filename=rows)
    for cache in caches:
        cache["k"] = 1
"""


def test_interpreter_exit_has_the_writers_of_all_caches_work_at_the_same_time(
    make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """None waits for the one before, however long that takes."""
    worker = make_worker(TWO)
    worker.call("begin", str(tmp_path / "rows"))
    assert worker.finish() == 0
    assert (tmp_path / "rows").read_text() == "k 1\nk 1\n"


def test_cache_that_is_dropped_has_what_waits_written(database: Database) -> None:
    """As one that is closed: nobody else may use its servers."""
    cache = nearcache.open("embedded://behind", writer=database, write_delay=600)
    cache.set_many({"a": 1, "b": 2})
    del cache
    assert database.rows == {"a": 1, "b": 2}


def test_cache_that_is_collected_with_its_writer_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """There is nobody any more who could write it."""

    class Shop:
        def __init__(self) -> None:
            self.cache = nearcache.open("embedded://behind", writer=self.write, write_delay=600)

        def write(self, key: str, value: int) -> None:
            raise AssertionError

    shop: Shop | None = Shop()
    assert shop is not None
    shop.cache["k"] = 1
    cache = weakref.proxy(shop.cache)
    wait_until(lambda: cache.stats().writing.backlog)
    shop = None
    gc.collect()
    assert [line.partition(" changes ")[0] for line in caplog.messages if "lost" in line] == ["namespace default: 1"]


def test_killed_process_leaves_what_waits_to_other_users_of_the_servers(
    database: Database, make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """They end with the last of them only."""
    with nearcache.open("embedded://behind", writer=database, write_delay=0.01) as cache:
        worker = make_worker(CODE)
        database.gate.clear()
        worker.call("begin", str(tmp_path / "rows"))
        worker.kill()
        database.gate.set()
        cache.flush(20)
        assert database.rows == {"k": 1}


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "dropped"])
def test_what_the_end_cannot_write_is_logged(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    """Once, with how much it is, and what the writer says."""
    monkeypatch.setattr(behind, "CLOSE_S", 0.05)
    database.fails = OSError("no route to the database")
    cache = nearcache.open("embedded://behind", writer=database, write_delay=0.01)
    cache.set_many({"a": 1, "b": 2})
    seen = weakref.proxy(cache)
    wait_until(lambda: seen.stats().writing.last_error)
    if is_closed:
        cache.close()
    del cache
    (line,) = [line for line in caplog.messages if "lost" in line and "embedded" in line]
    assert "2 changes" in line
    assert "no route to the database" in line


@pytest.mark.parametrize("waits", [True, False])
def test_close_of_a_cache_whose_servers_do_not_answer_says_what_is_lost_if_anything_waits(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """Where all had been written nothing is lost by it, whoever has ended the servers."""
    cache = nearcache.open("embedded://behind", writer=database, write_delay=600 if waits else 0.01)
    cache["k"] = 1
    wait_until(lambda: cache.stats().writing.backlog == waits and (waits or database.rows))

    def flush(_timeout: float, _run: object) -> None:
        raise nearcache.ShardUnavailableError("embedded-0", "no answer", sent=False)

    monkeypatch.setattr(cache._scribe, "flush", flush)
    cache.close()
    assert [line.partition(" changes ")[0] for line in caplog.messages if "lost" in line] == [
        "namespace default: 1"
    ] * waits
