"""What a cache whose shards may change has beside others: the change, and nothing kept of owners that were left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..._store import Op, Store
from ...choices import Seconds, plain_seconds
from ...errors import ConfigError
from ...keys import encode_key
from ...options import Endpoint, Settings, parse
from ...rings import SLOTS, Shards, moved, shards_of
from ..base import K, V
from ..report import Resharded
from ..tiered.base import SteppingCache

if TYPE_CHECKING:
    from ...loading import Tier
    from ...loading.shards.membership import Membership


class Placed(Store[K, V]):
    """A store that keeps nothing of owners that have been left."""

    __slots__ = ()

    _tier: Tier

    @property
    def l1_is_plain(self) -> bool:
        """Whether operations may be completed without going through :meth:`l1_finish` and :meth:`l1_confirm`."""
        return not self._tier.has_moved

    def l1_finish(self, op: Op, value: Any, wid: int, *rest: Any, **more: Any) -> bool:
        """See :class:`Store`. What was read of an owner that has been left is not kept."""
        tier = self._tier
        if tier.has_moved and tier.is_astray(op.lane, encode_key(op.key)):
            wid = 0
        return super().l1_finish(op, value, wid, *rest, **more)

    def l1_confirm(self, op: Op, wid: int, *rest: Any, **more: Any) -> bool:
        """The same."""
        tier = self._tier
        if tier.has_moved and tier.is_astray(op.lane, encode_key(op.key)):
            self.l1_abandon(op, drop=True)
            return False
        return super().l1_confirm(op, wid, *rest, **more)


class MovingCache(Placed[K, V], SteppingCache[K, V]):
    """See the module."""

    _membership: Membership | None

    def reshard(
        self,
        url: str,
        *,
        shard_names: Sequence[str] | None = None,
        shard_weights: Sequence[int] | None = None,
        placement: str | None = None,
        pause: Seconds | None = None,
    ) -> Resharded:
        """Change the list of shards of the namespace, for all processes, while they work. See :meth:`Cache.reshard`."""
        self._use()
        membership = self._membership
        if membership is None:
            raise ConfigError("url", url, "a Redis Cluster moves its keys itself, with its own tools")
        given = {"shard_names": shard_names, "shard_weights": shard_weights}
        target = _target(self.settings, membership.ring.reads, url, placement, given)
        wait_s = self.settings.max_staleness if pause is None else plain_seconds(pause)
        if not 0 <= wait_s <= 3600:
            raise ConfigError("pause", pause, "give seconds from 0 to 3600, or None for max_staleness")
        before = membership.ring.old.named_as(target)
        version = membership.change(target, wait_s)
        return Resharded(version, target.names, sum(moved(before, target).values()) / SLOTS)


def _target(settings: Settings, now: Shards, url: str, placement: str | None, given: dict[str, Any]) -> Shards:
    """Return the list that is asked for. What it does not say of connections is as in the list of now.

    Raises:
        ConfigError: It is no list, or none to which this cache can come.
    """
    if settings.scheme == "embedded":
        raise ConfigError("url", url, "embedded servers are as many as they were started as; open another set of them")
    options = {option: value for option, value in given.items() if value is not None}
    asked = parse(url, namespace=settings.namespace, **options)
    if asked.scheme != settings.scheme:
        raise ConfigError(
            "url", asked.scheme + "://", f"the cache was opened with {settings.scheme}://; so must this be"
        )
    strategy = asked.placement if placement is None and "placement" in url else placement or now.strategy
    known = {endpoint.name: endpoint for endpoint in now.endpoints}
    like = now.endpoints[0]
    endpoints = []
    for each in asked.endpoints:
        endpoint = replace(
            like,
            name=each.name,
            weight=each.weight,
            host=each.host,
            port=each.port,
            path=each.path,
            master=each.master,
            sentinels=each.sentinels,
        )
        for option in ("db", "username", "password"):
            if getattr(each, option) not in (None, 0, getattr(like, option)):
                raise ConfigError(option, "***", "it is what the cache was opened with, for all shards")
        _check_place(endpoint, known.get(each.name))
        endpoints.append(endpoint)
    return shards_of(strategy, tuple(endpoints))


def _check_place(endpoint: Endpoint, before: Endpoint | None) -> None:
    if before is not None and before.address != endpoint.address:
        raise ConfigError(
            "shard_names",
            endpoint.name,
            f"it is at {before.address}, and to be at {endpoint.address}: give a server that takes over from a living "
            "one a name of its own; of a dead one, open the caches anew with the same name and the new address",
        )
