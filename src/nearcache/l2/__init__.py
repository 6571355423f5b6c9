"""L2: Redis, as nearcache uses it. ``Driver`` carries out batches of commands; ``scripts`` are its verbs."""

from __future__ import annotations

from .breaker import BreakerSettings
from .certificates import check_certificates
from .clustering import ClusterDriver
from .clustermap import NOWHERE
from .driver import Driver, ListenerLink
from .introduction import Introduction
from .scripts import STAGE_BYTES, STAGING, Script, stage
from .scripts import load as load_script
from .shard import ShardStatus
from .task import WAIT, Command, Exchange, Extended, Reply

__all__ = [
    "NOWHERE",
    "STAGE_BYTES",
    "STAGING",
    "WAIT",
    "BreakerSettings",
    "ClusterDriver",
    "Command",
    "Driver",
    "Exchange",
    "Extended",
    "Introduction",
    "ListenerLink",
    "Reply",
    "Script",
    "ShardStatus",
    "check_certificates",
    "load_script",
    "stage",
]
