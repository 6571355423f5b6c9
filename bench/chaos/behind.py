"""Write-behind in a worker: a second cache, whose changes go through the servers' queues to a file of all processes.

The writer fails now and then after it has written, as one whose answer is lost; and always at some values, which have
to end as dead letters. What came of all that ``written`` judges.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import redis

import nearcache

from . import records as r
from .job import BEHIND_LEASE_S, Job
from .records import Recorder, Rows

NAMESPACE: Final = "chaos-behind"
KEYS: Final = 40
#: What part of a thread's calls are changes of this cache, and what part of those waits until all is written.
SHARE: Final = 0.03
_FLUSHES: Final = 0.02
#: With sabotage: what part of the changes loses the queues.
_LOSSES: Final = 0.01
_FLUSH_S: Final = 2.0
_FORGETS: Final = 0.03
_SIZES: Final = (0, 10, 100, 3_000)

now: Final = time.monotonic_ns


class RowError(Exception):
    """The writer has failed, on purpose."""


def is_poisoned(value: int) -> bool:
    """Whether the writer always fails at this value."""
    return value % 50 == 7


def open_behind(url: str, rows: Rows, timeout_s: float) -> Any:
    """Return a cache that writes behind, into ``rows``.

    Raises:
        CacheError: A server does not let it, for now.
    """
    chance = random.Random(rows.process)

    def write_many(values: Mapping[str, bytes]) -> None:
        from_ns = now()
        found = {key: r.read_payload(data, key) or 0 for key, data in ((_number(n), d) for n, d in values.items())}
        if any(map(is_poisoned, found.values())):
            raise RowError("this value cannot be written")
        rows.write(found, from_ns, now())
        if chance.random() < _FORGETS:
            raise RowError("it is written, and nobody knows")

    return nearcache.open(
        url, namespace=NAMESPACE, timeout=timeout_s, connect_timeout=timeout_s, lease=BEHIND_LEASE_S,
        writer=nearcache.Writer(write_many=write_many), write_delay=0.05, write_batch=10, write_attempts=3,
    )  # fmt: skip


def name(key: int) -> str:
    """Return a key as the cache gets it."""
    return f"row-{key}"


def _number(given: str) -> int:
    return int(given.removeprefix("row-"))


class Behind:
    """The cache of one process, and the calls of it."""

    def __init__(self, job: Job) -> None:
        assert job.behind is not None
        self._job = job
        self._url = job.behind
        self._rows = Rows(Path(job.directory), job.process)
        self._opening = threading.Lock()
        self._cache: Any = None

    def after_fork(self, process: int) -> None:
        """In a child: go on with what was inherited, under another number."""
        self._rows.process = process
        self._opening = threading.Lock()

    def call(self, recorder: Recorder, choose: random.Random) -> None:
        """Change a key, or wait until all that was changed is written."""
        cache = self._opened()
        if cache is None:
            return
        if choose.random() < _FLUSHES:
            self._flush(cache, recorder)
            return
        if self._job.mute is not None and choose.random() < _LOSSES:
            self._lose()
        key, value, before = choose.randrange(KEYS), recorder.new_value(), now()
        recorder.begin(r.BEHIND, key, value, before)
        end = r.OK
        try:
            cache[name(key)] = r.payload(value, key, choose.choice(_SIZES))
        except nearcache.ShardUnavailableError as error:
            end = r.INFO if error.sent else r.FAIL
        except nearcache.BacklogFullError:
            end = r.FAIL
        except Exception:
            end = r.INFO
        recorder.done(r.BEHIND, end, r.UNKNOWN, key, value, before, now())

    def close(self) -> None:
        """Leave the rest to others."""
        if self._cache is not None:
            self._cache.close()

    def _opened(self) -> Any:
        """The cache; None as long as its servers do not let it be opened."""
        with self._opening:
            if self._cache is None:
                with suppress(nearcache.CacheError):
                    self._cache = open_behind(self._url, self._rows, self._job.timeout_s)
            return self._cache

    def _flush(self, cache: Any, recorder: Recorder) -> None:
        before = now()
        with suppress(nearcache.CacheError):
            cache.flush(_FLUSH_S)
            recorder.done(r.FLUSH, r.OK, r.UNKNOWN, 0, 0, before, now())

    def _lose(self) -> None:
        """What a server does that forgets the queues: the judge must find out."""
        assert self._job.mute is not None
        for where in self._job.mute["servers"]:
            with redis.Redis(**where) as client, suppress(redis.RedisError):
                client.delete(*client.scan_iter(match="nc:{" + NAMESPACE + ":*}:w"), "none")


def drain(url: str, recorder: Recorder, directory: Path, patience_s: float) -> str | None:
    """Have everything written when the faults are over, and record it, and the dead letters. Returns what hung."""
    with open_behind(url, Rows(directory, recorder.process), 5.0) as cache:
        before, trouble = now(), None
        try:
            cache.flush(patience_s)
            recorder.done(r.FLUSH, r.OK, r.UNKNOWN, 0, 0, before, now())
        except nearcache.FlushTimeoutError as error:
            trouble = f"not everything was written after the faults: {error}"
        for letter in cache.dead_letters():
            key = _number(letter.key)
            value = r.read_payload(letter.value, key) or 0
            recorder.done(r.LETTER, r.OK, r.UNKNOWN, key, value, before, now())
    return trouble
