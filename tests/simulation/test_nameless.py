"""Servers that do not say who they are, as behind a proxy that forbids INFO: what L1 promises is kept all the same."""

from __future__ import annotations

from typing import Any, Final

import pytest

from nearcache.coherence import CHAINED
from nearcache.l2 import Reply
from nearcache.loading import bulk_reading, proof, reading
from simulation import network
from simulation.runs import Plan, simulate
from simulation.shrink import kind_of

#: Events of the long run.
EVENTS: Final = 40_000
#: What is not promised there: that a change is made up for which went to a primary that had been replaced.
NOT_PROMISED: Final = {"I8", "I9"}
#: What happens when primaries are replaced.
CHANGES: Final = ("zombie", "failover", "proxied failover")


@pytest.fixture(autouse=True)
def nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection has an identity."""
    real = network.Link.__init__

    def init(self: network.Link, *arguments: Any) -> None:
        real(self, *arguments)
        self.identity = 0

    monkeypatch.setattr(network.Link, "__init__", init)


@pytest.mark.slow
def test_nameless_servers_many_seeds_serve_nothing_stale() -> None:
    """Zombies, failovers, proxies that move connections in silence, and everything else: no hit is older than B."""
    events, seed, hits = 0, 1_600_000, 0
    while events < EVENTS:
        outcome = simulate(Plan.of(seed))
        assert not outcome.failed or kind_of(outcome) in NOT_PROMISED, (seed, outcome.violation or outcome.crash)
        events += outcome.events
        hits += outcome.counts.get("I1", 0)
        seed += 1
    assert hits > 500  # L1 does keep what is read


def test_nameless_servers_without_the_proof_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking every read for one of the server whose messages are heard breaks the bound."""

    def believed(tier: Any, given: proof.Proof | None, reply: Reply) -> Reply:
        return proof.proven(tier, given, reply)._replace(identity=CHAINED if given else 0)

    monkeypatch.setattr(reading, "proven", believed)
    monkeypatch.setattr(bulk_reading, "proven", believed)
    kinds = (kind_of(outcome) for outcome in (simulate(Plan.under(seed, CHANGES)) for seed in range(27, 90)))
    assert next((kind for kind in kinds if kind and kind not in NOT_PROMISED), "") in ("I1", "I3", "I4")
