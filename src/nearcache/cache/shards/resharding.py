"""Changing the list of shards: what every cache says of it."""

from __future__ import annotations

from collections.abc import Sequence

from ...choices import Seconds
from ...errors import ConfigError
from ..report import Resharded


class Reshardable:
    """A cache, as far as its shards are concerned."""

    __slots__ = ()

    def reshard(
        self,
        url: str,
        *,
        shard_names: Sequence[str] | None = None,  # noqa: ARG002
        shard_weights: Sequence[int] | None = None,  # noqa: ARG002
        placement: str | None = None,  # noqa: ARG002
        pause: Seconds | None = None,  # noqa: ARG002
    ) -> Resharded:
        """Change the list of shards of the namespace, for all processes, while they work.

        One process calls it and the others follow; or each calls it, at about the same time. Keys that get another
        shard start cold there; no reader sees anything older than ``max_staleness`` meanwhile, and no invalidation is
        lost. It takes three steps, with a pause before each but the first so that the others can follow. If it
        fails, or its process dies, all go on as things stand; calling it again, anywhere, with the same list finishes
        it.

        Args:
            url: The new list, as for :func:`nearcache.open`. User, password, TLS and database stay what they are.
            shard_names, shard_weights: As for :func:`nearcache.open`.
            placement: The same; ``None``: what it is now.
            pause: Seconds; ``None``: ``max_staleness``, long enough for two heartbeats. It makes the change smooth;
                safe it is without.
        Returns:
            The version of the list, the shards' names, and which part of the keys has moved.
        Raises:
            ConfigError: The list is none, or the cache has no client-side shards.
            ReshardError: A shard did not answer, or a change to another list is under way or was made since this one
                began, or a server has two names, or a new one is in another list of the namespace. A server that stays
                keeps its name, unless it has been the only one.
        Cost: some ten round trips per shard, and the pauses; a shard that gains keys and had some before is
            scanned (SCAN) for old ones. Operations in processes that are slow to follow may fail once in between.
        """
        raise ConfigError("url", url, "only a cache with client-side shards, as of redis://a,b, can be resharded")
