"""One process under test: a few threads that read and write through nearcache, and record every call."""

from __future__ import annotations

import faulthandler
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import redis

import nearcache
from common.conversation import Conversation

from . import behind
from . import records as r
from .behind import Behind
from .job import LOAD_S, SHORT_TTL_MS, TAGS, Job, key_name, key_number, tag_name, tags_of
from .records import Recorder
from .starving import Starving
from .watched import is_refused, opened

_ABSENT: Final = object()
_DAMAGED: Final = 0xFFFF_FFFF_FFFF_FFFF
_SIZES: Final = (0, 16, 100, 100, 900, 9_000)
_LOOK_S: Final = 0.02
#: So long a cache may take that is opened when the faults are over.
_RECOVERY_NS: Final = 5_000_000_000
#: A pause of the watching thread that is this much longer than it asked for shows that the process was not running.
_STALL_NS: Final = 100_000_000
#: One of its threads that waited for a processor so long was kept from running: a busy thread waits where one that
#: mostly sleeps does not.
_STARVED_NS: Final = 10_000_000
_JOIN_S: Final = 15.0
#: Who has not ended so long after it should have tells where its threads are.
_STUCK_S: Final = 40.0
_CHILD_CALLS: Final = 150
#: A forked child makes no more calls after the first of these; what is not over after the second hangs.
_CHILD_ENOUGH_NS: Final = 4_000_000_000
_CHILD_S: Final = 40.0
#: How often somebody tries who leads a change that is refused, or meets a shard that is away.
_LEADS: Final = 10

now: Final = time.monotonic_ns


class Caller:
    """One thread's calls. ``go`` makes one of them, drawn at random."""

    def __init__(self, job: Job, cache: Any, below: Any, recorder: Recorder, behind: Behind | None) -> None:
        self._job = job
        self._cache = cache
        self._behind = behind
        self._below = below
        self._recorder = recorder
        self._choose = random.Random(f"{job.seed}/{recorder.process}/{recorder.thread}")
        self._raw = None if job.mute is None else [redis.Redis(**where) for where in job.mute["servers"]]

    def go(self) -> None:
        """Make one call."""
        if self._behind is not None and self._choose.random() < behind.SHARE:
            self._behind.call(self._recorder, self._choose)
            return
        drawn = self._choose.random()
        if drawn < 0.46:
            self._read(self._key(), r.GET)
        elif drawn < 0.87:
            self._read(self._key(), r.ITEM)
        elif drawn < 0.89:
            self._read_many()
        elif drawn < 0.95:
            self._set(self._key())
        elif drawn < 0.985:
            self._invalidate(self._key())
        elif drawn < 0.986:
            self._invalidate_tag(self._choose.randrange(TAGS))
        elif drawn < 0.99998:
            self._set_many()
        else:
            self._clear()

    def final(self) -> None:
        """Read every key once, when nothing is written any more."""
        for key in range(self._job.keys):
            self._read(key, r.FINAL)

    def _key(self) -> int:
        """Draw a key: a few are hot."""
        return int(self._job.keys * self._choose.random() ** 3)

    # -- reads

    def _read(self, key: int, op: int) -> None:
        name, cache, below = key_name(key), self._cache, self._below
        end, found, before = r.OK, _ABSENT, now()
        below.reached = False
        try:
            found = cache[name] if op == r.ITEM else cache.get(name, _ABSENT)
        except Exception:
            end = r.FAIL
        after = now()
        tier = r.BELOW if below.reached else r.L1
        self._recorder.done(op, end, tier, key, self._value(found, key), before, after)

    def _read_many(self) -> None:
        keys = {self._key() for _ in range(5)}
        end, found, before = r.OK, {}, now()
        try:
            found = self._cache.get_many([key_name(key) for key in keys])
        except nearcache.CacheError:
            end = r.INFO
        after = now()
        for key in keys:
            value = self._value(found.get(key_name(key), _ABSENT), key)
            self._recorder.done(r.MANY, end, r.UNKNOWN, key, value, before, after)

    def _value(self, found: Any, key: int) -> int:
        if found is _ABSENT:
            return 0
        value = r.read_payload(found, key)
        return _DAMAGED if value is None else value

    # -- writes

    def _set(self, key: int) -> None:
        value = self._recorder.new_value()
        data = r.payload(value, key, self._choose.choice(_SIZES))
        ttl_ms = SHORT_TTL_MS if key % 20 == 19 else 0
        options: dict[str, Any] = {"ttl": ttl_ms / 1000} if ttl_ms else {}
        self._write(
            r.SET, key, value, lambda: self._cache.set(key_name(key), data, tags=tags_of(key), **options), ttl_ms
        )

    def _invalidate(self, key: int) -> None:
        value = self._recorder.new_value()
        if self._raw is not None:
            self._write(r.INVALIDATE, key, value, lambda: self._delete_silently(key))
        else:
            self._write(r.INVALIDATE, key, value, lambda: self._cache.invalidate(key_name(key)))

    def _invalidate_tag(self, tag: int) -> None:
        value = self._recorder.new_value()
        self._write(r.TAG, r.tagged(tag), value, lambda: self._cache.invalidate_tag(tag_name(tag)))

    def _clear(self) -> None:
        self._write(r.CLEAR, r.ALL_KEYS, self._recorder.new_value(), self._cache.clear)

    def _delete_silently(self, key: int) -> None:
        """What a writer does who knows Redis and not the protocol."""
        assert self._raw is not None
        assert self._job.mute is not None
        self._raw[self._job.mute["shards"][key]].unlink(self._job.mute["prefix"] + key_name(key))

    def _write(self, op: int, key: int, value: int, call: Callable[[], Any], ttl_ms: int = 0) -> None:
        before = now()
        self._recorder.begin(op, key, value, before, ttl_ms)
        end = r.OK
        try:
            call()
        except nearcache.ShardUnavailableError as error:
            end = r.INFO if error.sent else r.FAIL
        except Exception:
            end = r.INFO
        self._recorder.done(op, end, r.UNKNOWN, key, value, before, now())

    def _set_many(self) -> None:
        drawn = [self._key() for _ in range(4)]
        tags = tags_of(drawn[0])  # all have the same
        values = {key: self._recorder.new_value() for key in drawn if tags_of(key) == tags}
        before = now()
        for key, value in values.items():
            self._recorder.begin(r.SET, key, value, before)
        ends: dict[str, int] = {}
        otherwise = r.OK
        try:
            data = {key_name(key): r.payload(value, key, 20) for key, value in values.items()}
            self._cache.set_many(data, tags=tags)
        except nearcache.BulkError as error:
            ends |= dict.fromkeys(error.stored, r.OK)
            ends |= dict.fromkeys(error.failed, r.INFO)
            otherwise = r.INFO
        except Exception:
            otherwise = r.INFO
        after = now()
        for key, value in values.items():
            end = ends.get(key_name(key), otherwise)
            self._recorder.done(r.SET, end, r.UNKNOWN, key, value, before, after)


class Loader:
    """The slow source: it is read when the call begins."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.recorders = threading.local()

    def __call__(self, name: str) -> bytes:
        recorder, key = self.recorders.own, key_number(name)
        value = recorder.new_value()
        recorder.begin(r.LOAD, key, value, now())
        time.sleep(LOAD_S * (value * 2_654_435_761 % 1_000) / 1_000 if value % 4 == 0 else 0.001)
        return r.payload(value, key, 50)


class Worker:
    """The process."""

    def __init__(self, conversation: Conversation, job: Job) -> None:
        self._conversation = conversation
        self._job = job
        self._directory = Path(job.directory)
        self._loader = Loader(job.seed)
        logging.getLogger("nearcache").setLevel(logging.CRITICAL)  # trouble is what is made here
        self._open()
        self._behind = None if job.behind is None else Behind(job)
        self._stopping = threading.Event()
        self._looking = True
        self._children: list[tuple[int, float]] = []

    def _open(self) -> None:
        job = self._job
        self._cache, self._below = opened(
            job.urls, bound_s=job.bound_s, timeout_s=job.timeout_s, loader=self._loader, maxsize=job.keys * 3 // 4,
            tags=lambda name, _value: tags_of(key_number(name)),
        )  # fmt: skip

    def _reopen(self) -> None:
        """Do what whoever looks after a process does that has the wrong list of shards: start it with the right one."""
        before = self._cache
        self._open()
        before.close()
        give_up_ns = now() + _RECOVERY_NS
        while not all(self._vouched()) and now() < give_up_ns:
            time.sleep(_LOOK_S)

    def work(self) -> int:
        """Serve, and do what the conductor says, until told to end."""
        threads = [threading.Thread(target=self._serve, args=(n,), daemon=True) for n in range(self._job.threads)]
        watch = threading.Thread(target=self._watch, args=(self._job.process, self._vouched), daemon=True)
        for thread in (*threads, watch):
            thread.start()
        self._conversation.say("ready")
        while (command := self._conversation.hear()) is not None:
            if command["do"] == "fork":
                self._fork(command["processes"])
            elif command["do"] == "reshard":
                threading.Thread(target=self._reshard, args=(command["url"], command["pause_s"]), daemon=True).start()
            elif command["do"] == "quiet":
                self._stopping.set()
                hung = [thread.name for thread in threads if self._hangs(thread)]
                self._conversation.say("quiet", hung=hung + self._reap())
            elif command["do"] == "final":
                self._final()
        faulthandler.dump_traceback_later(_STUCK_S)  # the conductor will kill it, and only it can say where it stood
        self._looking = False
        watch.join(_JOIN_S)
        if not any(thread.is_alive() for thread in threads):
            self._cache.close()
        return 0

    def _hangs(self, thread: threading.Thread) -> bool:
        thread.join(_JOIN_S)
        return thread.is_alive()

    def _caller(self, recorder: Recorder) -> Caller:
        self._loader.recorders.own = recorder
        return Caller(self._job, self._cache, self._below, recorder, self._behind)

    def _serve(self, number: int) -> None:
        recorder = Recorder(self._directory, self._job.process, number)
        caller = self._caller(recorder)
        every_ns = int(1e9 / self._job.calls_per_s)
        due_ns = now()
        while not self._stopping.is_set():
            caller.go()
            due_ns = max(due_ns + every_ns, now() - 20 * every_ns)  # who is late catches up, a little
            if (early_ns := due_ns - now()) > 1_000_000:
                time.sleep(early_ns / 1e9)
        recorder.close()

    def _watch(self, process: int, vouched_for: Callable[[], list[bool]]) -> None:
        """Record when shards go dark and come back, and when this process was kept from running."""
        recorder = Recorder(self._directory, process, 200)
        seen: dict[int, bool] = {}
        last_ns, starving = now(), Starving()
        while self._looking:
            time.sleep(_LOOK_S)
            at_ns = now()
            if at_ns - last_ns > _STALL_NS:
                recorder.done(r.STALL, r.OK, r.UNKNOWN, 0, 0, last_ns, at_ns)
            last_ns = at_ns
            if (starved_ns := starving.most_ns()) > _STARVED_NS:
                recorder.done(r.STALL, r.OK, r.UNKNOWN, 0, 0, at_ns - starved_ns, at_ns)
            for shard, vouched in enumerate(vouched_for()):
                if seen.get(shard) is not vouched:
                    seen[shard] = vouched
                    recorder.done(r.HEALTH, r.OK, r.UNKNOWN, shard, int(vouched), at_ns, at_ns)
            recorder.flush()
        recorder.close()

    def _vouched(self) -> list[bool]:
        """Return whether L1 may serve, for each shard; for a cluster, whose nodes come and go, as a whole."""
        vouched = [health.vouched for health in self._cache.health().shards]
        return [all(vouched)] if "+cluster:" in self._job.urls[0] else vouched

    def _final(self) -> None:
        if is_refused(self._cache):
            self._reopen()
        recorder = Recorder(self._directory, self._job.process, 201)
        self._caller(recorder).final()
        for shard, vouched in enumerate(self._vouched()):
            recorder.done(r.HEALTH, r.OK, r.BELOW, shard, int(vouched), now(), now())
        recorder.close()
        if self._behind is not None:
            self._behind.close()  # what waits is left to the conductor
        self._conversation.say("final", stats=self._cache.stats().as_dict())

    def _reshard(self, url: str, pause_s: float) -> None:
        """Lead to another list of shards; what another one has begun is finished, or is in the way."""
        for _ in range(_LEADS):
            try:
                self._cache.reshard(url, pause=pause_s)
                return
            except nearcache.CacheError:
                time.sleep(0.2)

    # -- forks

    def _fork(self, processes: list[int]) -> None:
        """Make children that use the cache they inherit, all at once."""
        for process in processes:
            pid = os.fork()
            if pid == 0:
                status = 1
                with suppress(BaseException):  # whatever happens here, two workers must not go on
                    status = self._live_as_child(process)
                os._exit(status)
            self._children.append((pid, time.monotonic()))

    def _live_as_child(self, process: int) -> int:
        recorder = Recorder(self._directory, process, 0)
        if self._behind is not None:
            self._behind.after_fork(process)
        caller = self._caller(recorder)
        # Of a child only that counts which says when it was kept from running.
        threading.Thread(target=self._watch, args=(process, list), daemon=True).start()
        since_ns = now()
        for _ in range(_CHILD_CALLS):
            if now() - since_ns > _CHILD_ENOUGH_NS:
                break
            caller.go()
            time.sleep(0.001)
        recorder.close()
        return 0

    def _reap(self) -> list[str]:
        """Wait for the children; return those that did not end well."""
        bad = []
        for pid, since in self._children:
            while (done := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < since + _CHILD_S:
                time.sleep(0.02)
            if done[0] == 0:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                bad.append(f"forked child {pid} did not end")
            elif done[1]:
                bad.append(f"forked child {pid} ended with status {done[1]}")
        self._children.clear()
        return bad


def main(conversation: Conversation) -> int:
    """Run as a child of the conductor."""
    line = conversation.hear_line()
    return 0 if line is None else Worker(conversation, Job.from_json(line)).work()
