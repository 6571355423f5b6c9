"""L2: Redis, as nearcache uses it. ``Driver`` carries out batches of commands; ``scripts`` are its verbs."""

from __future__ import annotations

from .breaker import BreakerSettings
from .driver import Driver, ListenerLink
from .introduction import Introduction
from .scripts import STAGE_BYTES, Script, stage
from .scripts import load as load_script
from .shard import ShardStatus
from .task import Command, Exchange, Reply

__all__ = [
    "STAGE_BYTES",
    "BreakerSettings",
    "Command",
    "Driver",
    "Exchange",
    "Introduction",
    "ListenerLink",
    "Reply",
    "Script",
    "ShardStatus",
    "load_script",
    "stage",
]
