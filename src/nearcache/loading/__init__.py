"""From L1's miss to Redis, the loader and back, as steps without I/O. See ``steps`` for how they are carried out."""

from ..backlog import DeadLetter
from ..freshness import ENDLESS_MS
from .ages import read_young
from .behind import (
    Queues,
    dead_letters,
    delete_behind,
    discard,
    is_owned,
    key_of_letter,
    place_of,
    queue_ends,
    read_change,
    readable_key,
    replay,
    still_waiting,
    take_behind,
)
from .bulk import delete_many_behind, invalidate_many, owe_hold_end, write_many
from .bulk_reading import read_many
from .counters import unreadable_as
from .deciding import Source, swap_through, take_through
from .filling import Loading, load, load_young, look, look_many, refresh
from .gathering import Gathering, gather
from .reading import contains, read
from .replies import MISSING
from .sampling import Sampler
from .scanning import Walk, scan
from .steps import Request, Steps, ThreadRunner
from .swapping import find, swap, take, touch
from .tagging import Tag, invalidate_tag, tags_named
from .through import delete_through, write_through
from .tier import Tier, hex_id, new_id
from .tokens import catch_up, token_of
from .upkeep import Upkeep
from .versions import Held
from .ways import DIRECT, Room, Way, queued
from .writing import clear, invalidate, pay, write

__all__ = [
    "DIRECT",
    "ENDLESS_MS",
    "MISSING",
    "DeadLetter",
    "Gathering",
    "Held",
    "Loading",
    "Queues",
    "Request",
    "Room",
    "Sampler",
    "Source",
    "Steps",
    "Tag",
    "ThreadRunner",
    "Tier",
    "Upkeep",
    "Walk",
    "Way",
    "catch_up",
    "clear",
    "contains",
    "dead_letters",
    "delete_behind",
    "delete_many_behind",
    "delete_through",
    "discard",
    "find",
    "gather",
    "hex_id",
    "invalidate",
    "invalidate_many",
    "invalidate_tag",
    "is_owned",
    "key_of_letter",
    "load",
    "load_young",
    "look",
    "look_many",
    "new_id",
    "owe_hold_end",
    "pay",
    "place_of",
    "queue_ends",
    "queued",
    "read",
    "read_change",
    "read_many",
    "read_young",
    "readable_key",
    "refresh",
    "replay",
    "scan",
    "still_waiting",
    "swap",
    "swap_through",
    "tags_named",
    "take",
    "take_behind",
    "take_through",
    "token_of",
    "touch",
    "unreadable_as",
    "write",
    "write_many",
    "write_through",
]
