"""What a membership has of the cache that it works for."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..._store import Store
    from ...bus import GrowingListener
    from ...l2 import Driver
    from ...options import Endpoint
    from .. import Tier


@dataclass(frozen=True, slots=True)
class Host:
    """See the module. It does not keep the cache from being collected.

    Attributes:
        namespace: For messages.
        has_queue: Whether the cache writes behind it.
        store: Its L1.
        driver, listener: What reaches the shards, and what follows their lanes.
        endpoints: Where the shards are, by lane; those that come are added.
        install: Called with the tier of each version that is in use from then on.
    """

    namespace: str
    has_queue: bool
    store: weakref.ref[Store[Any, Any]]
    driver: Driver
    listener: GrowingListener
    endpoints: dict[int, Endpoint]
    install: Callable[[Tier], None]
