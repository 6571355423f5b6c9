"""The nemesis: faults drawn from the seed, each with parameters of its own, so that any may be left out of a run."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from nearcache import _store
from simulation.history import NAMES
from simulation.network import BusLink, DataLink
from simulation.process import Process
from simulation.server import TAIL, Departure, Server, Shard

if TYPE_CHECKING:
    from simulation.runs import Simulation


class Fault(NamedTuple):
    """One fault.

    Attributes:
        at_ns: When, from the start of the run.
        kind: A name in :data:`KINDS`.
        shard, process: Which are concerned, modulo how many there are.
        strength: 0 to 1: how long, or how much.
        choice: A number to draw further choices from.
    """

    at_ns: int
    kind: str
    shard: int
    process: int
    strength: float
    choice: int


def draw(rng: random.Random, count: int, length_ns: int, *, later: bool = True) -> list[Fault]:
    """Draw faults; one kind in three is absent from a run. ``later``: of all kinds, or of the first ones only."""
    known = [kind for kind in KINDS if later or kind not in LATER]
    kinds = [kind for kind in known if rng.random() < 0.66] or known
    return _some(rng, kinds, count, length_ns)


def draw_newest(rng: random.Random, length_ns: int) -> list[Fault]:
    """Draw faults of the newest kinds, in some runs."""
    return _some(rng, ["forgetful zombie"], rng.choice([0, 0, 0, 1, 2]), length_ns)


def draw_strays(rng: random.Random, length_ns: int) -> list[Fault]:
    """Draw addresses that lead elsewhere for a while, in some runs."""
    return _some(rng, ["led astray"], rng.choice([0, 0, 1, 2]), length_ns)


def draw_losses(rng: random.Random, length_ns: int) -> list[Fault]:
    """Draw many answers that do not arrive."""
    return _some(rng, ["lost answer", "lost answer", "lost request"], rng.choice([10, 20, 40]), length_ns)


def _some(rng: random.Random, kinds: list[str], count: int, length_ns: int) -> list[Fault]:
    faults = [
        Fault(
            int(rng.random() * length_ns),
            rng.choice(kinds),
            rng.randrange(6),
            rng.randrange(12),
            rng.random(),
            rng.getrandbits(32),
        )
        for _ in range(count)
    ]
    return sorted(faults)


def inflict(simulation: Simulation, fault: Fault) -> None:
    """Let it happen."""
    simulation.world.say(f"== {fault.kind} (shard {fault.shard}, process {fault.process}, {fault.strength:.2f})")
    if fault.kind in FORGETTING and simulation.operator.is_left(_shard(simulation, fault)):
        return
    (KINDS.get(fault.kind) or MOVES.get(fault.kind) or NEWEST[fault.kind])(simulation, fault)


# -- who is concerned


def _shard(simulation: Simulation, fault: Fault) -> Shard:
    return simulation.shards[fault.shard % len(simulation.shards)]


def _process(simulation: Simulation, fault: Fault) -> Process:
    return simulation.processes[fault.process % len(simulation.processes)]


def _bus(simulation: Simulation, fault: Fault) -> BusLink | None:
    process = _process(simulation, fault)
    lane = process.lane_of(_shard(simulation, fault))
    return None if lane is None else process.buses[lane]


def _data(simulation: Simulation, fault: Fault) -> list[DataLink]:
    number = _shard(simulation, fault).number
    return [link for link in _process(simulation, fault).data_links() if link.shard.number == number]


def _span(simulation: Simulation, fault: Fault, bounds: float = 2.0) -> int:
    return 1 + int(fault.strength**2 * bounds * simulation.profile.bound_ns)


# -- the network


def _lose_messages(simulation: Simulation, fault: Fault) -> None:
    bus = _bus(simulation, fault)
    if bus is not None:
        bus.lose += 1 + int(fault.strength * 3)


def _slow_bus(simulation: Simulation, fault: Fault) -> None:
    bus = _bus(simulation, fault)
    if bus is not None:
        bus.slow_until = simulation.world.now + _span(simulation, fault)


def _slow_data(simulation: Simulation, fault: Fault) -> None:
    for link in _data(simulation, fault):
        link.slow_until = simulation.world.now + _span(simulation, fault)


def _half_open_bus(simulation: Simulation, fault: Fault) -> None:
    bus = _bus(simulation, fault)
    if bus is not None:
        bus.deaf = True


def _half_open_data(simulation: Simulation, fault: Fault) -> None:
    for link in _data(simulation, fault):
        link.deaf = True


def _reset_bus(simulation: Simulation, fault: Fault) -> None:
    bus = _bus(simulation, fault)
    if bus is not None:
        bus.reset()


def _reset_data(simulation: Simulation, fault: Fault) -> None:
    for link in _data(simulation, fault):
        link.reset()


def _lose_request(simulation: Simulation, fault: Fault) -> None:
    for link in _data(simulation, fault):
        link.lose_request = True


def _lose_answer(simulation: Simulation, fault: Fault) -> None:
    for link in _data(simulation, fault):
        link.lose_answer = True


def _partition(simulation: Simulation, fault: Fault) -> None:
    """Nobody reaches the shard for a while, and nobody is told."""
    shard = _shard(simulation, fault)
    shard.unreachable = True
    for link in list(shard.primary.links):
        link.deaf = True
    simulation.later(_span(simulation, fault), setattr, shard, "unreachable", False)


def _cut_off(simulation: Simulation, fault: Fault) -> None:
    """One process does not reach the shard for a while; the others do, and go on changing what is there."""
    shard, process = _shard(simulation, fault), _process(simulation, fault)
    shard.cut_off.add(process.number)
    for server in shard.servers:
        for link in list(server.links):
            link.deaf = link.deaf or link.process is process
    simulation.later(_span(simulation, fault, 6), shard.cut_off.discard, process.number)


# -- servers


def _part(simulation: Simulation, server: Server, chance: float, rng: random.Random) -> None:
    """Connections end as they do with a server that has gone: some are told, some are not."""
    for link in list(server.links):
        if rng.random() < chance:
            link.reset()
        else:
            link.deaf = True


def _lag(fault: Fault) -> int:
    return int(fault.strength**2 * TAIL)


def _fail_over(simulation: Simulation, fault: Fault) -> None:
    old, _, _ = _shard(simulation, fault).fail_over(_lag(fault))
    old.stop()
    _part(simulation, old, 0.7, random.Random(fault.choice))


def _zombie(simulation: Simulation, fault: Fault) -> None:
    """The old primary goes on for some of its connections, until it learns what has happened."""
    shard = _shard(simulation, fault)
    if shard.zombie is not None:
        return
    rng = random.Random(fault.choice)
    old, _, _ = shard.fail_over(_lag(fault))
    shard.zombie = old
    shard.misled = {
        (process.number, kind) for process in simulation.processes for kind in ("data", "bus") if rng.random() < 0.5
    }
    for link in list(old.links):
        if (link.process.number, link.kind) not in shard.misled:
            link.reset()
    simulation.later(_span(simulation, fault, 4), _end_zombie, simulation, shard)


def _forgetful_zombie(simulation: Simulation, fault: Fault) -> None:
    """The same, and the old primary loses the lane's record: who talks to it begins an epoch of its own there."""
    shard = _shard(simulation, fault)
    _zombie(simulation, fault)
    if shard.zombie is not None:
        shard.zombie.evict([key for key in shard.zombie.database.data if key.endswith(b":L")])


def _end_zombie(simulation: Simulation, shard: Shard) -> None:
    old, shard.zombie, shard.misled = shard.zombie, None, set()
    if old is not None:
        old.stop()
        for link in list(old.links):
            link.reset()


def _proxied(simulation: Simulation, fault: Fault) -> None:
    """A proxy goes over to the new primary and keeps the connections of its clients open.

    Nobody meets the new primary by a handshake then, so that L2 may keep what a lost invalidation had ended, until its
    expiry: a documented limit. It may also bring back what an earlier failover had lost and other faults had removed,
    under numbers that the epoch gives out again. What L1 may serve is checked all the same.
    """
    if simulation.profile.behind is not None:  # in a queue that would stay, as nobody notices: a documented limit, too
        _fail_over(simulation, fault)
        return
    shard, lost = _shard(simulation, fault), simulation.checker.lost
    old, new, _ = shard.fail_over(_lag(fault))
    lost[:] = [each for each in lost if each[0].shards[each[0].tier.lane_of(each[2])] is not shard]
    old.stop()
    channels = {channel: list(links) for channel, links in old.subscribers.items()}
    for link in list(old.links):
        link.move(new)
    for channel, links in channels.items():
        new.subscribers[channel] = links


def _restart_empty(simulation: Simulation, fault: Fault) -> None:
    shard = _shard(simulation, fault)
    old, new, _ = shard.fail_over(0)
    old.stop()
    new.known.clear()
    new.evict(list(new.database.data))
    _part(simulation, old, 1, random.Random(fault.choice))


def _lead_astray(simulation: Simulation, fault: Fault) -> None:
    """The address leads to an empty server for a while, and back to the one before, which has stood still.

    Who has known the first one's record is to make up for what it changed at the other. Not inflicted on queues, which
    would be there twice, nor while the list of shards changes, which both servers had to be told of.
    """
    shard = _shard(simulation, fault)
    if shard.left is not None or simulation.profile.behind is not None or simulation.profile.moves:
        return
    record = shard.primary.database.data.get(NAMES.lane_key, {})
    old, new, _ = shard.fail_over(0)
    old.stop()
    new.known.clear()
    new.evict(list(new.database.data))
    new.changes = []
    _part(simulation, old, 1, random.Random(fault.choice))
    known = {
        (process, process.incarnation)
        for process in simulation.processes
        if process.tier.lanes[shard.number].epoch == int(record.get(b"e", b"0"), 16)
    }
    shard.left = Departure(old, new, known)
    simulation.later(_span(simulation, fault, 4), _lead_back, simulation, shard)


def _lead_back(simulation: Simulation, shard: Shard) -> None:
    if shard.left is None:
        return
    (old, stray, known), shard.left = shard.left, None
    if shard.primary is not stray:
        return  # another has taken over meanwhile, and stays
    stray.stop()
    old.resume()
    shard.primary = old
    for link in list(stray.links):
        link.reset()
    owed = [
        change
        for change in stray.changes or ()
        if hasattr(change.cause, "incarnation") and (change.cause.client.process, change.cause.incarnation) in known
    ]
    alive = old.history.alive
    there = {key: value for key, value in old.history.current.items() if value in alive.get(key, ())}
    simulation.checker.owed_again(old, owed, there)


def _evict_values(simulation: Simulation, fault: Fault) -> None:
    server = _shard(simulation, fault).primary
    held = sorted(key for key in server.database.data if not key.endswith(b":L"))
    if simulation.profile.behind is not None:  # as servers are set up that have queues: what has no end stays
        held = [key for key in held if key in server.database.expires]
    rng = random.Random(fault.choice)
    server.evict([key for key in held if rng.random() < fault.strength])


def _evict_lane(simulation: Simulation, fault: Fault) -> None:
    server = _shard(simulation, fault).primary
    server.evict([key for key in server.database.data if key.endswith(b":L")])


def _flush(simulation: Simulation, fault: Fault) -> None:
    server = _shard(simulation, fault).primary
    server.evict(list(server.database.data))


def _forget_scripts(simulation: Simulation, fault: Fault) -> None:
    _shard(simulation, fault).primary.known.clear()


def _full(simulation: Simulation, fault: Fault) -> None:
    database = _shard(simulation, fault).primary.database
    database.full = True
    simulation.later(_span(simulation, fault), setattr, database, "full", False)


# -- processes


def _pause(simulation: Simulation, fault: Fault) -> None:
    _stop(simulation, fault, asleep=False)


def _sleep(simulation: Simulation, fault: Fault) -> None:
    """The machine of a process sleeps: its monotonic clock stands still."""
    _stop(simulation, fault, asleep=True)


def _stop(simulation: Simulation, fault: Fault, *, asleep: bool) -> None:
    process, span = _process(simulation, fault), _span(simulation, fault, 3)
    if not process.paused:
        simulation.later(span, process.resume, process.pause(asleep=asleep))


def _fork(simulation: Simulation, fault: Fault) -> None:
    _process(simulation, fault).fork()


def _kill(simulation: Simulation, fault: Fault) -> None:
    _process(simulation, fault).restart()


def _no_memory(simulation: Simulation, fault: Fault) -> None:
    """The next allocation of the compiled store fails, in the builds where allocations can be made to."""
    fail_after = getattr(_store, "_fail_allocation_after", None)
    if fail_after is not None:
        fail_after(int(fault.strength * 20))


def _reshard(simulation: Simulation, fault: Fault) -> None:
    simulation.operator.want(fault.choice)


def heal(simulation: Simulation) -> None:
    """End whatever is still going on."""
    fail_after = getattr(_store, "_fail_allocation_after", None)
    if fail_after is not None:
        fail_after(-1)
    for process in simulation.processes:
        process.renewing = 1.0
    for shard in simulation.shards:
        _end_zombie(simulation, shard)
        _lead_back(simulation, shard)
        shard.unreachable = False
        shard.cut_off.clear()
        shard.primary.database.full = False
        for link in shard.primary.links:
            link.slow_until = 0
            if isinstance(link, BusLink):
                link.lose = 0
            else:
                link.lose_request = link.lose_answer = False


KINDS: Final[dict[str, Callable[[Simulation, Fault], None]]] = {
    "lost messages": _lose_messages,
    "slow bus": _slow_bus,
    "slow data": _slow_data,
    "half-open bus": _half_open_bus,
    "half-open data": _half_open_data,
    "reset bus": _reset_bus,
    "reset data": _reset_data,
    "lost request": _lose_request,
    "lost answer": _lose_answer,
    "partition": _partition,
    "failover": _fail_over,
    "zombie": _zombie,
    "proxied failover": _proxied,
    "restart empty": _restart_empty,
    "evicted values": _evict_values,
    "evicted lane": _evict_lane,
    "flushall": _flush,
    "scripts forgotten": _forget_scripts,
    "full": _full,
    "paused": _pause,
    "asleep": _sleep,
    "fork": _fork,
    "killed": _kill,
    "no memory": _no_memory,
    "cut off": _cut_off,
}
#: What happens beside the faults, and is drawn apart from them.
MOVES: Final[dict[str, Callable[[Simulation, Fault], None]]] = {"reshard": _reshard}
#: Kinds that only the newest seeds know, where they are drawn apart from the others.
NEWEST: Final[dict[str, Callable[[Simulation, Fault], None]]] = {
    "forgetful zombie": _forgetful_zombie,
    "led astray": _lead_astray,
}
#: What may make a shard forget which list it has been told of.
FORGETTING: Final = frozenset({
    "failover", "zombie", "forgetful zombie", "proxied failover", "restart empty", "evicted lane", "flushall",
})  # fmt: skip
#: Kinds that the first seeds know nothing of.
LATER: Final = frozenset({"cut off"})
