"""Write in one process, gone in another: how long the other one's L1 still serves the old value; what hearing costs.

**Latency.** Two processes on one machine share CLOCK_MONOTONIC. The writer notes the instant *before* it writes (so the
time includes the write's own round trip) and the instant when the write was acknowledged; the reader polls its L1 and
notes when the copy is gone. The polling pause is part of what is measured: it makes the figures larger, never smaller.

**Cost.** A process that does nothing but listen says how much processor time it has used, all threads and the kernel's
part included, for messages of one key each: as many as the connection carries at a time, and one by one. Another
process reads the same messages with redis-py's ``PubSub`` and throws them away. Then the listening process looks up
keys all the time, in turns with and without 200,000 messages a second coming in.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

WRITES = 1500
ROUNDS = 5
POLL_S = 0.00002

_READER = f"""
import json, sys, time
import nearcache
cache = nearcache.open(sys.argv[1], namespace="bench")
gone = object()
print("ready", flush=True)
for line in sys.stdin:
    key = json.loads(line)
    value = cache[key]
    while cache.peek(key, gone) is gone:  # the message about the write before may have come in between
        value = cache[key]
    print(json.dumps("held"), flush=True)
    while cache.peek(key, gone) is value:
        time.sleep({POLL_S})
    print(json.dumps(time.monotonic_ns()), flush=True)
"""


_WRITER = """
import json, sys, threading, time
import nearcache
cache = nearcache.open(sys.argv[1], namespace="bench")
print("ready", flush=True)
pause = 1 / json.loads(sys.stdin.readline())
end = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), end.set()), daemon=True).start()
start, number = time.monotonic(), 0
while not end.wait(max(0, start + number * pause - time.monotonic())):
    number += 1
    cache[f"other {number % 100}"] = number
"""

#: Looks up keys for as many seconds as it is told, and says how many, and what it has heard and used.
_HEARER = """
import json, sys, time
import nearcache
cache = nearcache.open(sys.argv[1], namespace="bench", max_staleness=10)
keys = [f"held {number}" for number in range(1000)]
for key in keys:
    cache[key] = key
print("ready", flush=True)
for line in sys.stdin:
    seconds = json.loads(line)
    hits, used, heard = 0, time.process_time(), cache.stats().coherence.received
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key in keys:
            cache[key]
        hits += 1000
    stats = cache.stats()
    print(json.dumps({"heard": stats.coherence.received, "used_s": time.process_time(), "gaps": stats.coherence.gaps,
                      "read": stats.l2.hits + stats.l2.misses, "hits": hits, "window_s": time.process_time() - used,
                      "window_heard": stats.coherence.received - heard}), flush=True)
"""

_PUBSUB = """
import json, sys, threading, time
import redis
client = redis.Redis(unix_socket_path=sys.argv[1].removeprefix("unix://"), protocol=3)
pubsub = client.pubsub(ignore_subscribe_messages=True)
pubsub.subscribe("nc:{bench:0}:i")
heard = 0
def read():
    global heard
    for _ in pubsub.listen():
        heard += 1
threading.Thread(target=read, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps({"heard": heard, "used_s": time.process_time()}), flush=True)
"""

#: Steps the lane record together with each batch of messages, as the scripts do.
_STEP = b"""
for i = 3, #ARGV do redis.call('PUBLISH', KEYS[2], ARGV[i]) end
redis.call('HSET', KEYS[1], 's', ARGV[1], 'w', ARGV[2])
"""


class Reader:
    """The other process."""

    def __init__(self, url: str, program: str = _READER) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.answer()

    def ask(self, key: Any) -> None:
        """Make it read a key."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(key) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        return line if line == "ready" else json.loads(line)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def percentiles(samples: list[float]) -> dict[str, float]:
    """The usual ones."""
    ordered = sorted(samples)
    return {f"p{p:g}": ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] for p in (50, 99, 99.9)}


@pytest.fixture
def busy_writer(request: Any, shard_url: str) -> Iterator[None]:
    """Somebody who writes other keys meanwhile, so many times a second."""
    writer = Reader(shard_url, _WRITER) if request.param else None
    if writer is not None:
        writer.ask(request.param)
    yield
    if writer is not None:
        writer.close()


@pytest.mark.parametrize("busy_writer", [0, 1000], indirect=True, ids=lambda rate: f"{rate} other writes/s")
@pytest.mark.usefixtures("busy_writer")
def test_write_to_gone_elsewhere(benchmark: Any, shard_url: str, rounds_of: Any, report: Any) -> None:
    """Milliseconds from before the write, and from its acknowledgement, to the copy being gone."""
    import nearcache

    cache = nearcache.open(shard_url, namespace="bench")
    reader = Reader(shard_url)
    from_start: list[float] = []
    from_ack: list[float] = []
    numbers = iter(range(10**9))

    def once() -> None:
        number = next(numbers)
        key = f"key {number % 100}"
        cache[key] = number
        reader.ask(key)
        assert reader.answer() == "held"
        time.sleep(0.0005)  # let it poll
        start = time.monotonic_ns()
        cache[key] = -number
        acknowledged = time.monotonic_ns()
        gone = reader.answer()
        from_start.append((gone - start) / 1e6)
        from_ack.append((gone - acknowledged) / 1e6)

    try:
        benchmark.pedantic(once, rounds=rounds_of(WRITES), warmup_rounds=50)
    finally:
        reader.close()
        cache.close()
    for name, samples in (("write started -> gone elsewhere", from_start), ("acknowledged -> gone", from_ack)):
        figures = percentiles(samples[50:])  # the first find everything cold
        report(
            f"{benchmark.name.partition('[')[2].rstrip(']')}: {name}: "
            + ", ".join(f"{p} {value:.3f} ms" for p, value in figures.items())
        )
        benchmark.extra_info[name] = figures


class Publisher:
    """Publishes messages of one key each, valid and in order, on the only lane of a server."""

    def __init__(self, socket_path: str) -> None:
        import redis

        self._client = redis.Redis(unix_socket_path=socket_path)
        self._lane = b"nc:{bench:0}:L"
        self._number = 0

    def _command(self, count: int) -> bytes:
        """The request that publishes so many."""
        import hiredis

        from nearcache.coherence import pack_message

        payloads = []
        for _ in range(count):
            self._number += 1
            key = b"ssku:%d:details" % (self._number % 100_000)
            wid, self._wid, self._seq = self._wid, self._wid + 1, self._seq + 1
            payloads.append(pack_message("I", self._epoch, self._seq, wid, self._wid, [key]))
        words = (
            b"EVAL",
            _STEP,
            b"2",
            self._lane,
            b"nc:{bench:0}:i",
            b"%d" % self._seq,
            b"%016x" % self._wid,
            *payloads,
        )
        return hiredis.pack_command(words)

    def prepare(self, count: int, batch: int) -> list[bytes]:
        """Requests for so many messages from where the lane stands. Nobody else may write before they are sent."""
        epoch, seq, wid = self._client.hmget(self._lane, "e", "s", "w")
        self._epoch, self._seq, self._wid = int(epoch, 16), int(seq), int(wid, 16)
        return [self._command(batch) for _ in range(count // batch)]

    def send(self, commands: list[bytes], pause_s: float) -> None:
        """Send one request every so often; return when all are answered."""
        connection = self._client.connection_pool.get_connection()
        start = time.monotonic()
        for number, command in enumerate(commands):
            connection.send_packed_command([command])
            due = start + (number + 1) * pause_s
            while pause_s and number % 8 == 7 and (left := due - time.monotonic()) > 0:
                time.sleep(left)
            if number >= 64:
                connection.read_response()
        for _ in range(min(64, len(commands))):
            connection.read_response()
        self._client.connection_pool.release(connection)


def settled(reader: Reader, heard: int) -> dict[str, Any]:
    """What the reader says once it has heard so much."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        reader.ask(0)
        answer = reader.answer()
        if answer["heard"] >= heard:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"heard {answer['heard']:,} of {heard:,} messages")


@pytest.mark.parametrize(
    ("count", "batch", "pause_s"), [(100_000, 100, 0.0), (3_000, 1, 0.001)], ids=["in batches", "one at a time"]
)
def test_cost_of_a_message(
    one_socket: str, rounds_of: Any, report: Any, count: int, batch: int, pause_s: float
) -> None:
    """Processor time per invalidation: ours, and redis-py's for reading it only. In turns; the least counts."""
    url = f"unix://{one_socket}"
    hearer, pubsub, publisher = Reader(url, _HEARER), Reader(url, _PUBSUB), Publisher(one_socket)
    try:
        ours, theirs = [], []
        for _ in range(rounds_of(ROUNDS)):
            commands = publisher.prepare(count, batch)
            before = []
            for reader in (hearer, pubsub):
                reader.ask(0)
                before.append(reader.answer())
            publisher.send(commands, pause_s)
            for reader, was, figures in zip((hearer, pubsub), before, (ours, theirs), strict=True):
                now = settled(reader, was["heard"] + count)
                figures.append((now["used_s"] - was["used_s"]) / count * 1e6)
    finally:
        hearer.close()
        pubsub.close()
    how = "in batches" if batch > 1 else "one at a time"
    report(
        f"{how}: {min(ours):.2f} us per invalidation, PubSub {min(theirs):.2f} us, "
        f"ratio {min(ours) / min(theirs):.2f} (medians {statistics.median(ours):.2f}, {statistics.median(theirs):.2f})"
    )


def test_hits_under_a_stream_of_messages(one_socket: str, rounds_of: Any, report: Any) -> None:
    """Hits per second of a busy thread, alone and beside 200,000 invalidations a second, all of which are heard.

    On a machine that others use too, only figures per processor second of the process say something.
    """
    rate, seconds, batch = 200_000, 1.0, 100
    hearer, publisher = Reader(f"unix://{one_socket}", _HEARER), Publisher(one_socket)
    by_wall, by_processor, heard = [], [], []
    try:
        for _ in range(rounds_of(ROUNDS)):
            hearer.ask(seconds)
            alone = hearer.answer()
            commands = publisher.prepare(int(rate * seconds), batch)
            sender = threading.Thread(target=publisher.send, args=(commands, batch / rate))
            sender.start()
            hearer.ask(seconds)
            beside = hearer.answer()
            sender.join()
            after = settled(hearer, alone["heard"] + len(commands) * batch)
            assert after["gaps"] == 0
            assert after["read"] == alone["read"]  # every look-up was a hit
            by_wall.append(beside["hits"] / alone["hits"])
            by_processor.append(beside["hits"] / beside["window_s"] / (alone["hits"] / alone["window_s"]))
            heard.append((beside["window_heard"] / seconds, beside["window_heard"] / beside["window_s"]))
    finally:
        hearer.close()
    wall, processor = statistics.median(by_wall), statistics.median(by_processor)
    a_second, a_processor_second = sorted(heard)[len(heard) // 2]
    report(
        f"hits beside a stream of {rate:,} invalidations/s, of those without: median {wall:.2f} a second, "
        f"{processor:.2f} a processor second; heard {a_second:,.0f} a second, "
        f"{a_processor_second:,.0f} a processor second"
    )
