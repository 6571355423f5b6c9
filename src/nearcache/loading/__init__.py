"""From L1's miss to Redis, the loader and back, as steps without I/O. See ``steps`` for how they are carried out."""

from .bulk import invalidate_many, read_many, write_many
from .filling import Loading, load
from .reading import MISSING, contains, read
from .steps import Request, Steps, ThreadRunner
from .tier import ENDLESS_MS, Tier, hex_id, new_id
from .upkeep import Upkeep
from .writing import clear, invalidate, write

__all__ = [
    "ENDLESS_MS",
    "MISSING",
    "Loading",
    "Request",
    "Steps",
    "ThreadRunner",
    "Tier",
    "Upkeep",
    "clear",
    "contains",
    "hex_id",
    "invalidate",
    "invalidate_many",
    "load",
    "new_id",
    "read",
    "read_many",
    "write",
    "write_many",
]
