"""nearcache: a cache in this process at dict speed, Redis behind it, and coherence that knows what it missed.

>>> import nearcache
>>> cache = nearcache.open("memory://", maxsize=1000, ttl=60)
>>> cache["answer"] = 42
>>> cache["answer"]
42
"""

from .absence import ABSENT
from .answers import UNCHANGED, Loaded, Old, Unchanged, conditional
from .cache import (
    Cache,
    CacheInfo,
    CoherenceStats,
    DeadLetter,
    Durations,
    Health,
    L1Stats,
    L2Stats,
    LaneStats,
    LoaderStats,
    MemoryCache,
    Resharded,
    SelfTest,
    ShardHealth,
    ShardTest,
    Stats,
    View,
    WritingStats,
    open,  # noqa: A004  nearcache.open, as io.open
)
from .cache.events.subscriptions import Subscription
from .choices import Idle
from .decorators import lru_cache, ttl_cache
from .errors import (
    AuthenticationFailedError,
    BacklogFullError,
    BulkError,
    CacheError,
    ClosedError,
    CoherenceError,
    ConfigError,
    ContentionError,
    DecodeError,
    EmbeddedError,
    FlushTimeoutError,
    ForgedError,
    LoadCycleError,
    LoadTimeoutError,
    NotRedisError,
    NotReplicatedError,
    ReshardError,
    ServerNotFoundError,
    ServerReplyError,
    ShardError,
    ShardListError,
    ShardUnavailableError,
    UnencodableKeyError,
    UnencodableValueError,
    UnknownMasterError,
    UnsupportedServerError,
    ValueTooLargeError,
    WrongTopologyError,
)
from .events import EntryEvent
from .keywords import Options
from .options import RemovalCause
from .writers import Writer

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "UNCHANGED",
    "AuthenticationFailedError",
    "BacklogFullError",
    "BulkError",
    "Cache",
    "CacheError",
    "CacheInfo",
    "ClosedError",
    "CoherenceError",
    "CoherenceStats",
    "ConfigError",
    "ContentionError",
    "DeadLetter",
    "DecodeError",
    "Durations",
    "EmbeddedError",
    "EntryEvent",
    "FlushTimeoutError",
    "ForgedError",
    "Health",
    "Idle",
    "L1Stats",
    "L2Stats",
    "LaneStats",
    "LoadCycleError",
    "LoadTimeoutError",
    "Loaded",
    "LoaderStats",
    "MemoryCache",
    "NotRedisError",
    "NotReplicatedError",
    "Old",
    "Options",
    "RemovalCause",
    "ReshardError",
    "Resharded",
    "SelfTest",
    "ServerNotFoundError",
    "ServerReplyError",
    "ShardError",
    "ShardHealth",
    "ShardListError",
    "ShardTest",
    "ShardUnavailableError",
    "Stats",
    "Subscription",
    "Unchanged",
    "UnencodableKeyError",
    "UnencodableValueError",
    "UnknownMasterError",
    "UnsupportedServerError",
    "ValueTooLargeError",
    "View",
    "Writer",
    "WritingStats",
    "WrongTopologyError",
    "conditional",
    "lru_cache",
    "open",
    "ttl_cache",
]
