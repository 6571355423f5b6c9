"""Processes that use embedded servers, and what can be seen of the servers from outside."""

from __future__ import annotations

from pathlib import Path

from support import processes

#: Code of a ``Worker`` that joins, asks and leaves; it answers with what can be compared between processes.
USER = """
import os
from pathlib import Path
from nearcache.embedded import EmbeddedServers, locks

def join(name="shop", shards=2, **options):
    global servers
    servers = EmbeddedServers.join(name, shards, **options)
    return state()

def state():
    files = ["supervisor", *(f"{name}.pid" for name in servers.names)]
    return [int((servers.directory / file).read_text().split()[0]) for file in files]

def ask(shard, command):
    return locks.ask(servers.sockets[shard], command.encode() + b"\\r\\n").decode().strip()

def ensure():
    servers.ensure()

def leave():
    servers.leave()
"""


def supervisor_pid(directory: Path) -> int:
    """Return the pid that the supervisor wrote into its directory."""
    return int((directory / "supervisor").read_text().split()[0])


def server_pid(directory: Path, shard: int) -> int:
    """Return the pid that a server wrote into its directory."""
    return int((directory / f"{shard}.pid").read_text().split()[0])


def running(directory: Path) -> list[int]:
    """Return the pids of everything that runs for the directory: supervisor, watcher and servers."""
    return sorted(processes.mentioning(str(directory)))
