"""From L1's miss to Redis, the loader and back, as steps without I/O. See ``steps`` for how they are carried out."""

from ..freshness import ENDLESS_MS
from .bulk import invalidate_many, write_many
from .bulk_reading import read_many
from .filling import Loading, load, look, refresh
from .reading import contains, read
from .replies import MISSING
from .sampling import Sampler
from .steps import Request, Steps, ThreadRunner
from .swapping import find, swap, take, touch
from .tagging import invalidate_tag, tags_named
from .tier import Tier, hex_id, new_id
from .tokens import catch_up, token_of
from .upkeep import Upkeep
from .writing import clear, invalidate, pay, write

__all__ = [
    "ENDLESS_MS",
    "MISSING",
    "Loading",
    "Request",
    "Sampler",
    "Steps",
    "ThreadRunner",
    "Tier",
    "Upkeep",
    "catch_up",
    "clear",
    "contains",
    "find",
    "hex_id",
    "invalidate",
    "invalidate_many",
    "invalidate_tag",
    "load",
    "look",
    "new_id",
    "pay",
    "read",
    "read_many",
    "refresh",
    "swap",
    "tags_named",
    "take",
    "token_of",
    "touch",
    "write",
    "write_many",
]
