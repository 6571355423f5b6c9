"""Rules about changes of the list of shards, switched off one at a time. See ``mutants``."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache._store import Store
from nearcache.cache.membership import Membership
from nearcache.cache.moving import Placed
from nearcache.loading.tier import Tier
from nearcache.loading.upkeep import Upkeep


def left_lanes_trusted(patch: pytest.MonkeyPatch) -> None:
    """What L1 holds of a lane goes on being served, whatever has moved from there."""
    patch.setattr(Placed, "finish", lambda self, *rest, **more: Store.finish(self, *rest, **more))
    patch.setattr(Placed, "confirm", lambda self, *rest, **more: Store.confirm(self, *rest, **more))
    real = Membership._switch

    def switch(self: Membership, ring: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Tier, "suspect", lambda *_: None)
            real(self, ring)

    patch.setattr(Membership, "_switch", switch)


def nobody_follows(patch: pytest.MonkeyPatch) -> None:
    """A process that is behind stays there."""
    patch.setattr(Membership, "outdated", lambda self: None)
    patch.setattr(Upkeep, "refused", lambda self, lane: None)
