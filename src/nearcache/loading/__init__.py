"""From L1's miss to Redis, the loader and back, as steps without I/O. See ``steps`` for how they are carried out."""

from ..backlog import DeadLetter
from ..freshness import ENDLESS_MS
from .behind import (
    Queues,
    dead_letters,
    delete_behind,
    discard,
    drained,
    read_change,
    replay,
    take_behind,
)
from .bulk import invalidate_many, write_many
from .bulk_reading import read_many
from .filling import Loading, load, look, refresh
from .reading import contains, read
from .replies import MISSING
from .sampling import Sampler
from .steps import Request, Steps, ThreadRunner
from .swapping import find, swap, take, touch
from .tagging import Tag, invalidate_tag, tags_named
from .through import delete_through, write_through
from .tier import Tier, hex_id, new_id
from .tokens import catch_up, token_of
from .upkeep import Upkeep
from .ways import DIRECT, Room, Way, queued
from .writing import clear, invalidate, pay, write

__all__ = [
    "DIRECT",
    "ENDLESS_MS",
    "MISSING",
    "DeadLetter",
    "Loading",
    "Queues",
    "Request",
    "Room",
    "Sampler",
    "Steps",
    "Tag",
    "ThreadRunner",
    "Tier",
    "Upkeep",
    "Way",
    "catch_up",
    "clear",
    "contains",
    "dead_letters",
    "delete_behind",
    "delete_through",
    "discard",
    "drained",
    "find",
    "hex_id",
    "invalidate",
    "invalidate_many",
    "invalidate_tag",
    "load",
    "look",
    "new_id",
    "pay",
    "queued",
    "read",
    "read_change",
    "read_many",
    "refresh",
    "replay",
    "swap",
    "tags_named",
    "take",
    "take_behind",
    "token_of",
    "touch",
    "write",
    "write_many",
    "write_through",
]
