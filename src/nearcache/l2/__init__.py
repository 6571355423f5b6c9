"""L2: Redis, as nearcache uses it. ``Driver`` carries out batches of commands; ``scripts`` are its verbs."""

from __future__ import annotations

from .breaker import BreakerSettings
from .driver import Driver, ListenerLink
from .request import Command, Exchange, Reply
from .scripts import Script
from .scripts import load as load_script
from .shard import ShardStatus

__all__ = [
    "BreakerSettings",
    "Command",
    "Driver",
    "Exchange",
    "ListenerLink",
    "Reply",
    "Script",
    "ShardStatus",
    "load_script",
]
