"""What a worker is told at its start, as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

NAMESPACE: Final = "chaos"
#: Every twentieth key is written with a lifetime so short that it ends within the run.
SHORT_TTL_MS: Final = 3_000
#: Every fifth key has one of so many tags.
TAGS: Final = 3
#: ``lease`` of the caches that write behind: how long the lock of a queue lasts.
BEHIND_LEASE_S: Final = 1.0
#: Longest that a loader takes.
LOAD_S: Final = 0.04


@dataclass(frozen=True)
class Job:
    """One worker's orders.

    Attributes:
        process: Its number, new for every start.
        urls: Where its Redis is, as nearcache takes it, by each list of shards that there may be.
        directory: Where histories go.
        threads: Number of threads that call the cache.
        keys: Number of keys.
        calls_per_s: Of each thread.
        bound_s: ``max_staleness``.
        timeout_s: Of calls.
        seed: Of what it does.
        mute: Sabotage: addresses of servers and the shard of each key, to delete values behind nearcache's back.
        behind: Where the Redis of the cache that writes behind is; None: there is none.
    """

    process: int
    urls: list[str]
    directory: str
    threads: int
    keys: int
    calls_per_s: float
    bound_s: float
    timeout_s: float
    seed: int
    mute: dict[str, Any] | None = None
    behind: str | None = None

    def to_json(self) -> str:
        """Return the job as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Job:
        """Return the job that a line describes."""
        return cls(**json.loads(line))


def key_name(key: int) -> str:
    """Return a key as the cache gets it."""
    return f"key-{key}"


def tag_of(key: int) -> int:
    """Return the number of the tag that a key's values have; -1: they have none."""
    return key // 5 % TAGS if key % 5 == 3 else -1


def tag_name(tag: int) -> str:
    """Return a tag as the cache gets it."""
    return f"tag-{tag}"


def tags_of(key: int) -> list[str]:
    """Return the tags of a key's values."""
    return [] if tag_of(key) < 0 else [tag_name(tag_of(key))]


def key_number(name: str) -> int:
    """Return the number of a key."""
    return int(name.removeprefix("key-"))
