"""Rules about changes of the list of shards, switched off one at a time. See ``mutants``."""

from __future__ import annotations

from typing import Any, Final

import pytest

from nearcache._store import Store
from nearcache.cache.shards.moving import Placed
from nearcache.l2 import Exchange, Script, load_script
from nearcache.loading.moving import Spread
from nearcache.loading.shards.emptying import Emptying
from nearcache.loading.shards.membership import Membership
from nearcache.loading.tier import Tier
from nearcache.loading.upkeep import Upkeep
from nearcache.loading.versions import Versions
from simulation.edited_scripts import edit, edited

_REFUSED: Final = b"if refused then return nil"
_PASSED: Final = b"if false then return nil"


def left_lanes_trusted(patch: pytest.MonkeyPatch) -> None:
    """What L1 holds of a lane goes on being served, whatever has moved from there."""
    patch.setattr(Placed, "l1_finish", lambda self, *rest, **more: Store.l1_finish(self, *rest, **more))
    patch.setattr(Placed, "l1_confirm", lambda self, *rest, **more: Store.l1_confirm(self, *rest, **more))
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


def debts_left_behind(patch: pytest.MonkeyPatch) -> None:
    """What is owed stays owed where it came to be, whoever looks there by now."""
    patch.setattr(Versions, "owe_on", lambda self, lanes: None)


def debts_not_passed_on(patch: pytest.MonkeyPatch) -> None:
    """What comes to be owed after a change of the list, by who began before it, is owed where nobody looks any more."""
    patch.setattr(Versions, "pass_on_debts", lambda self: None)


def other_owner_untold(patch: pytest.MonkeyPatch) -> None:
    """While a key moves, only the owner where it is read hears of what changes it."""
    patch.setattr(Spread, "_add", lambda *_: None)


def other_replica_unheeded(patch: pytest.MonkeyPatch) -> None:
    """While a key moves, whether a replica of its other owner has heard of a change is all the same."""
    patch.setattr(Spread, "_confirmed", lambda self, extra, own, others: own)


def fills_of_any_version(patch: pytest.MonkeyPatch) -> None:
    """A loaded value is taken whatever list of shards its reader had when the load began."""
    edit(patch, "fill", _REFUSED, _PASSED)


def gained_unswept(patch: pytest.MonkeyPatch) -> None:
    """A shard keeps what it had, of the slots that come back to it."""
    patch.setattr(Membership, "_prepare", lambda self, ring: None)


def emptying_unnoted(patch: pytest.MonkeyPatch) -> None:
    """What a failover brings back to a shard that had been emptied is there to stay."""

    def change(self: Emptying, exchange: Exchange, *, settles: bool) -> int:
        reply = self._driver.execute([exchange])[0]
        self._demand(reply)
        return reply.identity

    patch.setattr(Emptying, "_change", change)


def any_version_admitted(patch: pytest.MonkeyPatch) -> None:
    """Servers let everybody go on, whatever list of shards he has."""
    patch.setattr("nearcache.loading.tier.load_script", _lenient)
    patch.setattr("simulation.process.load_script", _lenient)
    patch.setattr("nearcache.loading.versions.admits", lambda mine, seen: True)


def _lenient(name: str) -> Script:
    script = load_script(name)
    return edited(script, _REFUSED, _PASSED) if _REFUSED in script.source else script
