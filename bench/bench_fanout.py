"""What each process that listens costs a server: processor time for a write, by the number of subscribers.

Redis itself says how much time it has used. The subscribers are sockets of one child process, which reads and throws
away. Writes come one by one, as from a process that waits for each answer, and as messages sixteen at a time, as the
server meets them when many write at once: it then sends each subscriber all of a turn together.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import redis

import nearcache

LISTENERS = (0, 20, 100)
WRITES = 1_600
TOGETHER = 16
ROUNDS = 3
CHANNEL = "nc:{default:0}:i"
MESSAGE = b"S 0123456789abcdef 1 0123456789abcdef 0123456789abcdef\n5:ikeyx"

#: Subscribes so many times, and reads until its input ends.
_SUBSCRIBERS = f"""
import selectors, socket, sys
found = selectors.DefaultSelector()
for _ in range(int(sys.argv[2])):
    each = socket.socket(socket.AF_UNIX)
    each.connect(sys.argv[1])
    each.sendall(b"SUBSCRIBE {CHANNEL}\\r\\n")
    each.recv(1024)
    found.register(each, selectors.EVENT_READ)
found.register(sys.stdin, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in found.select():
        if key.fileobj is sys.stdin:
            sys.exit()
        key.fileobj.recv(65536)
"""


@pytest.fixture(params=LISTENERS)
def listeners(request: pytest.FixtureRequest, one_socket: str) -> Iterator[int]:
    """So many subscribers of the lane, in another process."""
    command = [sys.executable, "-c", _SUBSCRIBERS, one_socket, str(request.param)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield request.param
        child.stdin.close()


def used_s(client: redis.Redis) -> float:
    """The processor time that the server has used so far."""
    cpu = client.info("cpu")
    return float(cpu["used_cpu_sys"] + cpu["used_cpu_user"])


def least_us(client: redis.Redis, write: Callable[[], None], rounds: int) -> float:
    """The server's microseconds for each write, minimum of the rounds."""
    found = []
    for _ in range(rounds):
        before = used_s(client)
        write()
        found.append((used_s(client) - before) / WRITES * 1e6)
    return min(found)


def test_write_by_listeners(
    one_socket: str, listeners: int, rounds_of: Callable[[int], int], report: Callable[[str], None]
) -> None:
    """Each subscriber costs a system call for each message, unless several go together."""
    client, rounds = redis.Redis(unix_socket_path=one_socket), rounds_of(ROUNDS)

    def single() -> None:
        for number in range(WRITES):
            cache[number % 100] = number

    def together() -> None:
        for _ in range(WRITES // TOGETHER):
            messages = client.pipeline(transaction=False)
            for _ in range(TOGETHER):
                messages.publish(CHANNEL, MESSAGE)
            messages.execute()

    with nearcache.open(f"unix://{one_socket}", max_staleness=60.0) as cache:
        one = least_us(client, single, rounds)
    many = least_us(client, together, rounds)
    client.close()
    report(f"{listeners:>3} listeners: {one:.1f} us of the server for a write alone, {many:.1f} for one of 16 messages")
