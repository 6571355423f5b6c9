"""Write-behind on embedded servers, which keep nothing on disk and end with their last user."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import nearcache
from nearcache.cache.tiered import behind
from nearcache.cache.tiered import cache as tiered
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


def test_what_close_cannot_write_is_logged(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how much it is, and what the writer says."""
    for module in (behind, tiered):
        monkeypatch.setattr(module, "CLOSE_S", 0.05)
    database.fails = OSError("no route to the database")
    cache = nearcache.open("embedded://behind", writer=database, write_delay=0.01)
    cache.set_many({"a": 1, "b": 2})
    wait_until(lambda: cache.stats().writing.last_error)
    cache.close()
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

    def flush(_timeout: float) -> None:
        raise nearcache.ShardUnavailableError("embedded-0", "no answer", sent=False)

    monkeypatch.setattr(cache, "flush", flush)
    cache.close()
    assert [line.partition(" changes ")[0] for line in caplog.messages if "lost" in line] == [
        "namespace default: 1"
    ] * waits
