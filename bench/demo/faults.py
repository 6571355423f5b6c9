"""Kills a shard and watches for it to come back."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def server_pid(socket: str) -> int | None:
    """Return the process id of the Redis that answers on a socket; None when none does."""
    client = redis.Redis(unix_socket_path=socket, socket_timeout=0.25, retry=Retry(NoBackoff(), 0))
    try:
        return int(client.info("server")["process_id"])
    except redis.RedisError:
        return None
    finally:
        client.close()


@dataclass
class Fault:
    """The death of one shard in one phase.

    Attributes:
        shard: Its number.
        socket: Its address.
        due_ns: When to kill it.
        killed_ns: When it was killed.
        back_ns: When another process answered on its socket.
        victim: Process id of the one that was killed.
    """

    shard: int
    socket: str
    due_ns: int
    killed_ns: int | None = None
    back_ns: int | None = None
    victim: int | None = None

    def step(self) -> str | None:
        """Do what is due and return what happened, for the reader."""
        now_ns = time.monotonic_ns()
        if self.back_ns is not None or now_ns < self.due_ns:
            return None
        if self.killed_ns is None:
            self.victim = server_pid(self.socket)
            if self.victim is None:
                return None
            os.kill(self.victim, signal.SIGKILL)
            self.killed_ns = time.monotonic_ns()
            return f"shard {self.shard} killed (kill -9 of its Redis server, process {self.victim})"
        pid = server_pid(self.socket)
        if pid is None or pid == self.victim:
            return None
        self.back_ns = time.monotonic_ns()
        return f"shard {self.shard} is back, empty, after {self.outage_s:.1f} s (process {pid})"

    @property
    def outage_s(self) -> float | None:
        """How long the shard was away, as seen from here; None if it was not killed or has not come back."""
        if self.killed_ns is None or self.back_ns is None:
            return None
        return (self.back_ns - self.killed_ns) / 1e9
