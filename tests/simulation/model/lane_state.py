"""What the lane model's states consist of."""

from __future__ import annotations

from typing import NamedTuple

NOWHERE = -1
HEARD, UNHEARD, SPARED = 0, 1, 2


class Bounds(NamedTuple):
    """How much may happen. Replication is not counted, being limited by the rest."""

    writes: int = 0
    reads: int = 0
    losses: int = 0
    cuts: int = 0
    failovers: int = 0
    beats: int = 0
    timeouts: int = 0
    others: int = 0
    evictions: int = 0
    proxied: bool = False
    announced: bool = True
    threads: int = 1
    warm: bool = False


class Server(NamedTuple):
    """The primary. ``silent`` is the newest mutation that was not announced; only a mutant has any."""

    fork: int
    log: tuple[tuple[int, str], ...]
    copied: int
    present: bool
    silent: int


class Message(NamedTuple):
    """What the server publishes with each step of the sequence. ``kind``: W write, D delete, X of another key."""

    seq: int
    prev: int
    wid: int
    kind: str
    writer: int


class Beat(NamedTuple):
    """The reply to a heartbeat. ``newest`` and ``fork`` are for the properties only; a zombie repeats what it said."""

    seq: int
    wid: int
    fork: int
    newest: int
    zombie: bool


class Entry(NamedTuple):
    """What L1 holds. ``heard`` says whether the message of this write has come, or others have been spared it."""

    wid: int
    stamp: int
    fork: int
    heard: int


class Flight(NamedTuple):
    """A read. ``suspect`` is the id it hopes to find unchanged by the header alone (``_revalidate``); 0 for none."""

    suspect: int
    answered: bool
    wid: int
    fork: int
    stamp: int
    live: bool
    clean: bool
    floor: tuple[int, int]


class Write(NamedTuple):
    """A write or delete under way. ``fork`` is that of the server that executed it, NOWHERE before."""

    kind: str
    wid: int
    fork: int
    stamp: int
    live: bool
    clean: bool
    heard: int


class Process(NamedTuple):
    """One process. The last four are for the properties, each as (fork, id).

    Attributes:
        position: Number and id of the last step it knows of; None while it is not LIVE.
        fence: The newest mutation at the last heartbeat.
        told: The newest that a message was heard about.
        seen: The newest whose value was returned here.
        own: The newest of its own.
    """

    fork: int
    queue: tuple[Message | Beat, ...]
    position: tuple[int, int] | None
    stamp: int
    live: bool
    entry: Entry | None
    flights: tuple[Flight, ...]
    writes: tuple[Write, ...]
    fence: tuple[int, int]
    told: tuple[int, int]
    seen: tuple[int, int]
    own: tuple[int, int]


class State(NamedTuple):
    """Everything. ``strays`` are writes whose process has given up waiting: they may still be executed."""

    server: Server
    processes: tuple[Process, ...]
    left: Bounds
    ids: int
    strays: tuple[tuple[str, int], ...]


def newest(log: tuple[tuple[int, str], ...]) -> int:
    """Return the last mutation of the key."""
    return next((wid for wid, kind in reversed(log) if kind != "X"), 0)


def value_in(log: tuple[tuple[int, str], ...], present: bool) -> int:
    """Return the write whose value a GET finds, 0 for none."""
    if not present:
        return 0
    return next((wid if kind == "W" else 0 for wid, kind in reversed(log) if kind != "X"), 0)


def dirty(flights: tuple[Flight, ...]) -> tuple[Flight, ...]:
    """Return flights that may neither be stored nor joined."""
    return tuple(f if not f.clean else f._replace(clean=False) for f in flights)


def unfit(writes: tuple[Write, ...]) -> tuple[Write, ...]:
    """Return writes that may not be stored."""
    return tuple(w if not w.clean else w._replace(clean=False) for w in writes)
