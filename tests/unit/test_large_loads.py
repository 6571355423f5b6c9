"""Loads of very many keys, driven by hand: how their leases are asked for and renewed, and what is stored. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from nearcache.errors import ShardUnavailableError
from nearcache.flights import Load
from nearcache.l2 import Reply
from nearcache.loading import Upkeep, gathering
from nearcache.loading.claims import Leased
from nearcache.loading.gathering import Gathering, gather
from nearcache.loading.steps import Call
from nearcache.loading.tier import LEASE_LONGEST_NS, LEASE_UNHEARD_MS, Tier, hex_id
from support.steps import EPOCH, GENERATION, IDENTITY, World
from support.tiers import tier_of


def hold(tier: Tier, count: int, *, lane: int = 0, since_ns: int = 0) -> None:
    """Let a process hold so many leases more."""
    for number in range(len(tier.leases), len(tier.leases) + count):
        token, encoded = hex_id(number), b"i%d" % number
        tier.leases[token] = Leased(lane, encoded, token, since_ns, Load(number))


def renewed(tier: Tier, now_ns: int = 0) -> Iterator[tuple[int, bytes, bytes]]:
    """Return lane, key and token of each lease that is renewed."""
    for lane, script, keys, (*tokens, lasting) in tier.renewals(now_ns):
        assert script.name == "renew"
        assert lasting == b"%d" % tier.lasting_ms
        yield from ((lane, key, token) for key, token in zip(keys, tokens, strict=True))


def test_renewals_name_many_leases_of_a_lane_in_one_call() -> None:
    """Else the heartbeats, which go the same way, would stand behind as many calls as a load has keys."""
    tier = tier_of("a", "b")
    hold(tier, 300)
    hold(tier, 200, lane=1)
    hold(tier, 5, since_ns=-LEASE_LONGEST_NS)  # whose loader is taken to hang
    calls = tier.renewals(0)
    assert [(lane, len(keys)) for lane, _, keys, _ in calls] == [(0, 128), (0, 128), (0, 44), (1, 128), (1, 72)]
    assert list(renewed(tier)) == [
        (lease.lane, tier.names[lease.lane].lease(lease.encoded), token)
        for token, lease in tier.leases.items()
        if lease.since_ns == 0
    ]


def test_leases_last_longer_the_more_are_held() -> None:
    """And are renewed as much more rarely. Those that are being asked for meanwhile see the next renewals all the
    same: in one step a term is never more than doubled, and never over what it is where nobody listens."""
    world = World(lease_ms=2_000)
    upkeep = Upkeep(world.tier, None)  # type: ignore[arg-type]  # nothing is paid
    hold(world.tier, 10_000)
    terms = []
    for more in (0, 5_000, 90_000, 0, 0):
        hold(world.tier, more)
        assert len(list(renewed(world.tier))) == len(world.tier.leases)
        assert upkeep.renew_every_ns == world.tier.lasting_ms * 300_000
        assert world.tier.lease_ms_on(0) == world.tier.lasting_ms
        terms.append(world.tier.lasting_ms)
    assert terms == [2_000, 3_000, 6_000, LEASE_UNHEARD_MS, LEASE_UNHEARD_MS]
    world.tier.leases.clear()
    assert not world.tier.renewals(0)
    assert world.tier.lease_ms_on(0) == 2_000


def test_longer_lease_of_the_options_stays_as_long() -> None:
    """However many are held."""
    tier = tier_of(lease_ms=30_000)
    hold(tier, 200_000)
    tier.renewals(0)
    assert tier.lasting_ms == 30_000


NAMES: Final = ("a", "b", "c", "d", "e")


def looked(world: World) -> tuple[Any, Any]:
    """Return the steps of a load of all names, when L2 has said that it has none of them, and what they ask then."""
    steps = gather(world.tier, world.store, Gathering({name: name for name in NAMES}, dict.fromkeys, 60_000))
    next(steps)
    return steps, steps.send([Reply([*[-2] * 5, [None] * 5, [hex_id(GENERATION), None]], IDENTITY)])


def test_large_load_is_leased_and_stored_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is renewed as soon as it is leased, however long it takes to lease the rest. The loader is called once."""
    monkeypatch.setattr(gathering, "_PORTION", 2)
    world = World()
    steps, request = looked(world)
    leased = []
    while not isinstance(request, Call):
        commands: Any = request[0].commands
        assert {command[0].name for command in commands} == {"lease"}
        assert len(world.tier.leases) == sum(leased)
        leased.append(len(commands))
        granted = [[0, hex_id(GENERATION), hex_id(sum(leased) + place)] for place in range(len(commands))]
        request = steps.send([Reply(granted, IDENTITY)])
    assert leased == [2, 2, 1]
    request = steps.send(dict.fromkeys(NAMES, 7))
    stored = []
    with pytest.raises(StopIteration) as stop:
        while True:
            stored.append(len(request[0].commands))
            answers = [[1, hex_id(GENERATION), hex_id(EPOCH), 0]] * stored[-1]
            request = steps.send([Reply(answers, IDENTITY)])
    assert stored == leased
    assert stop.value.value == dict.fromkeys(NAMES, 7)
    assert [world.store.peek(name) for name in NAMES] == [7] * 5


def test_shard_that_has_had_its_time_is_not_asked_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """That would be in vain, once for each portion, and count as an outage with others who ask that shard."""
    monkeypatch.setattr(gathering, "_PORTION", 2)
    world = World()
    steps, _ = looked(world)
    steps.send([Reply([[0, hex_id(GENERATION), hex_id(token)] for token in (1, 2)], IDENTITY)])
    late = ShardUnavailableError("a", "no answer in time", sent=True)
    late.__cause__ = TimeoutError()
    assert isinstance(steps.send([Reply([[0, hex_id(GENERATION), hex_id(3)], late], IDENTITY)]), Call)
    with pytest.raises(StopIteration) as stop:
        steps.send(dict.fromkeys(NAMES, 7))
    assert stop.value.value == dict.fromkeys(NAMES, 7)
    assert len(world.store) == len(world.tier.leases) == 0
