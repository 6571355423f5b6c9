"""How far the lane model is searched, and how each of its rules is found to be needed."""

from __future__ import annotations

from .engine import Case, Mutant
from .lane_state import Bounds

WARM = Bounds(writes=1, beats=1, warm=True)
COLD = Bounds(writes=1, reads=1, beats=1)
PROXIED = Bounds(writes=2, losses=1, failovers=1, beats=1, proxied=True)
CASES = (
    Case("two reads", COLD._replace(reads=2)),
    Case("a read and a lost message", COLD._replace(losses=1)),
    Case("two writes, a lost message", WARM._replace(writes=2, losses=1)),
    Case("two writes, as specified first", WARM._replace(writes=2, announced=False)),
    Case("a disconnect", WARM._replace(reads=1, cuts=1)),
    Case("a failover", WARM._replace(failovers=1, others=1)),
    Case("a stray write, an eviction", WARM._replace(timeouts=1, evictions=1)),
    Case("a proxied failover and a lost message", PROXIED._replace(writes=1, others=1)),
)
LONG_CASES = (
    Case("a read, a lost message, another key", COLD._replace(losses=1, others=1)),
    Case("two writes, a proxied failover and a lost message", PROXIED),
    Case("two writes, two reads", COLD._replace(writes=2, reads=2)),
    Case("two writes, a read, a lost message", COLD._replace(writes=2, losses=1)),
    Case("two writes, a read, a lost message, as specified first", COLD._replace(writes=2, losses=1, announced=False)),
    Case("two threads write", COLD._replace(writes=2, losses=1, threads=2)),
    Case("a disconnect and two heartbeats", COLD._replace(cuts=1, beats=2, losses=1, others=1)),
    Case("a failover, a read", WARM._replace(reads=1, failovers=1)),
    Case("a failover, a read, another key", COLD._replace(failovers=1, others=1)),
    Case("two writes, a failover", COLD._replace(writes=2, failovers=1)),
    Case("two failovers", WARM._replace(failovers=2, reads=1, beats=2)),
    Case("a proxied failover and a read", COLD._replace(writes=2, failovers=1, proxied=True)),
    Case("three writes", WARM._replace(writes=3, others=1)),
)
LARGE = Bounds(writes=6, reads=5, losses=2, cuts=2, failovers=2, beats=6, timeouts=1, others=2, evictions=1, threads=2)
WALKS = (
    Case("many", LARGE),
    Case("many, proxied", LARGE._replace(proxied=True)),
    Case("many, as specified first", LARGE._replace(announced=False)),
)
MUTANTS = (
    Mutant("poison", COLD),
    Mutant("hear_own", WARM._replace(timeouts=1)),
    Mutant("stamp_on_reconnect", WARM._replace(cuts=1)),
    Mutant("chain", WARM._replace(others=1, losses=1, failovers=1, proxied=True)),
    Mutant("no_tolerance", WARM._replace(others=1, losses=1)),
    Mutant("compare_heartbeat", WARM._replace(losses=1)),
    Mutant("primary_reads", COLD),
    Mutant("store_after_ack", WARM),
    Mutant("disagreement", Bounds(writes=2, reads=2)),
    Mutant("completion", COLD._replace(reads=2)),
    Mutant("flight_stamp", COLD._replace(losses=1)),
    Mutant("write_stamp", WARM._replace(writes=2, losses=1)),
    Mutant("write_poison", COLD),
    Mutant("joinable", COLD._replace(reads=2)),
    Mutant("identity", COLD._replace(failovers=1)),
    Mutant("always_announce", WARM._replace(evictions=1)),
    Mutant("write_heeds", WARM._replace(writes=2)),
    Mutant("heard_ends_sparing", WARM._replace(writes=2)),
    Mutant("fence_ends_sparing", PROXIED),
    Mutant("compare_wid", WARM._replace(reads=1, cuts=1)),
    Mutant("refresh_marks", WARM._replace(reads=1, cuts=1)),
)
