"""Strikes servers, workers and the network, and notes what that may have done to the data."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import hiredis
import redis

import nearcache
from nearcache.placement import CLUSTER_LANES, slot_of_lane

from . import watching
from .faults import NETWORK, Fault
from .ground import Span
from .job import NAMESPACE
from .proxy import DATA, DOWN, SUBSCRIPTION, UP, Rule
from .servers import Nodes, Plain, RedisServer
from .watched import open_any

#: After a server has come back with older data, processes may still repair it for so long: B and this.
_REPAIR_NS: Final = 5_000_000_000
_FORKS: Final = 6
_NOISE: Final = 4_000
#: How many lanes move at a time, and the longest pause after two keys of one.
_LANES_MOVED: Final = 6
_DAWDLE_S: Final = 0.05

now: Final = time.monotonic_ns


class Hands(Protocol):
    """What the conductor lends."""

    def kill(self, worker: int) -> None:
        """Kill a worker with SIGKILL."""

    def start(self, worker: int) -> None:
        """Start a worker again."""

    def signal(self, worker: int, which: signal.Signals) -> None:
        """Send a worker a signal."""

    def fork(self, worker: int, count: int) -> None:
        """Make a worker fork."""

    def reshard(self, worker: int, url: str, pause_s: float) -> None:
        """Have a worker lead everybody to another list of shards."""

    def rule(self, do: str, number: int, rule: Rule | None) -> None:
        """Tell the proxy."""

    def process_of(self, worker: int) -> int:
        """Return the number of the process that a worker is now."""


@dataclass
class Happening:
    """A fault that was carried out; times on the monotonic clock."""

    kind: str
    target: str
    from_ns: int
    to_ns: int = 0


@dataclass
class Effects:
    """What faults have done: see ``ground`` and ``check``."""

    happenings: list[Happening] = field(default_factory=list)
    resets: list[Span] = field(default_factory=list)
    erasures: list[Span] = field(default_factory=list)
    pauses: list[tuple[int, Span]] = field(default_factory=list)
    evictions: bool = False
    missed: list[str] = field(default_factory=list)


class Nemesis:
    """Carries out faults: each begins, and later ends.

    Args:
        servers: The servers.
        hands: For the workers and the proxy.
        seed: Of what the schedule leaves open.
        bound_s: B, from which lateness is chosen.
    """

    def __init__(self, servers: Plain | Nodes, hands: Hands, seed: int, bound_s: float) -> None:
        self.effects = Effects()
        self._servers = servers
        self._hands = hands
        self._seed = seed
        self._bound_s = bound_s
        self._open: dict[int, Happening] = {}

    def begin(self, fault: Fault) -> None:
        """Begin a fault."""
        choose = random.Random(f"{self._seed}/{fault.number}")
        target = f"{'worker' if fault.kind.track == 'workers' else 'server'} {fault.target}"
        self._open[fault.number] = Happening(fault.kind.name, target, now())
        if fault.kind.track == NETWORK:
            self._strike_network(fault, choose)
            return
        with self._noting(fault):
            _BEGIN[fault.kind.name](self, fault)

    def end(self, fault: Fault) -> None:
        """End a fault."""
        if fault.number not in self._open:
            return
        happening = self._open[fault.number]
        if fault.kind.track == NETWORK:
            self._hands.rule("set", fault.number, None)
        elif fault.kind.name in _END:
            with self._noting(fault):
                _END[fault.kind.name](self, fault, happening)
        if self._open.pop(fault.number, None) is not None:
            happening.to_ns = now()
            self.effects.happenings.append(happening)

    @contextlib.contextmanager
    def _noting(self, fault: Fault) -> Any:
        """A server that cannot be reached because of another fault is no trouble, but is told."""
        try:
            yield
        except (OSError, redis.RedisError, RuntimeError) as error:
            self.effects.missed.append(f"{fault.kind.name}: {type(error).__name__}: {error}")
            self._open.pop(fault.number, None)

    # -- network

    def _strike_network(self, fault: Fault, choose: random.Random) -> None:
        rule = network_rule(fault, choose, self._bound_s)
        if fault.kind.name == "connections cut":
            self._hands.rule("cut", fault.number, rule)
        else:
            self._hands.rule("set", fault.number, rule)

    # -- workers

    def kill_worker(self, fault: Fault) -> None:
        """``kill -9``."""
        self._hands.kill(fault.target)

    def start_worker(self, fault: Fault, _: Happening) -> None:
        """Start it again."""
        self._hands.start(fault.target)

    def stop_worker(self, fault: Fault) -> None:
        """SIGSTOP."""
        self._hands.signal(fault.target, signal.SIGSTOP)

    def continue_worker(self, fault: Fault, happening: Happening) -> None:
        """SIGCONT."""
        self._hands.signal(fault.target, signal.SIGCONT)
        span = Span(None, happening.from_ns, now())
        self.effects.pauses.append((self._hands.process_of(fault.target), span))

    def fork_worker(self, fault: Fault) -> None:
        """Fork."""
        self._hands.fork(fault.target, _FORKS)

    # -- the list of shards

    def change_shards(self, fault: Fault) -> None:
        """Have a worker begin, or finish, a change of the list; now and then two of them at once, each another one."""
        assert isinstance(self._servers, Plain)
        choose = random.Random(f"{self._seed}/{fault.number}")
        place = fault.number % len(self._servers.sizes)
        for leader in range(1 + (choose.random() < 0.4)):
            worker = (fault.target + leader) % 4
            url = self._servers.urls(worker)[(place + leader) % len(self._servers.sizes)]
            self._hands.reshard(worker, url, choose.choice([0.0, 0.1, self._bound_s]))

    def finish_changes(self) -> None:
        """Let the list be one that is not changing."""
        assert isinstance(self._servers, Plain)
        for url in self._servers.urls(None):
            # Another list may be in use, or another change under way, which is to be finished first. Whoever is opened
            # on the list that it leads to knows the way to all its shards; the lanes would tell that of a worker.
            with contextlib.suppress(nearcache.ReshardError, nearcache.ShardListError):
                with nearcache.open(url, namespace=NAMESPACE, timeout=5.0) as cache:
                    cache.reshard(url, pause=0.0)
                return

    # -- servers

    def _ask(self, fault: Fault, *command: Any) -> Any:
        server = self._servers.servers[fault.target]
        with server.client(socket_timeout=1.0) as client:
            return client.execute_command(*command)

    def stop_server(self, fault: Fault) -> None:
        """SIGSTOP."""
        self._servers.servers[fault.target].pause()

    def continue_server(self, fault: Fault, happening: Happening) -> None:
        """SIGCONT."""
        self._servers.servers[fault.target].resume()
        self.expect_failover(fault, happening)

    def outlast(self, fault: Fault, happening: Happening) -> None:
        """It answers again by itself."""
        self.expect_failover(fault, happening)

    @property
    def nodes(self) -> Nodes:
        """The servers, where they watch each other."""
        assert isinstance(self._servers, Nodes)
        return self._servers

    def name_target(self, fault: Fault, target: str) -> None:
        """Say what a fault has struck."""
        self._open[fault.number].target = target

    def strike_primary(self, fault: Fault) -> RedisServer:
        """Return a primary, and note that it is the target."""
        victim = self._node(fault)
        self.name_target(fault, f"server {victim}")
        return self._servers.servers[victim]

    def expect_failover(self, fault: Fault, happening: Happening) -> None:
        """Where others watch it, a silent primary may have been replaced meanwhile, with all that follows."""
        if isinstance(self._servers, Nodes):
            self._servers.await_primaries()
            self._reset_since(fault, happening.from_ns)

    def _reset_since(self, fault: Fault, from_ns: int) -> None:
        shard = fault.target if isinstance(self._servers, Plain) else None
        to_ns = now() + _REPAIR_NS + int(self._bound_s * 1e9)
        self.effects.resets.append(Span(shard, from_ns, to_ns))

    def empty_server(self, fault: Fault) -> None:
        """``kill -9``, all data gone."""
        self._servers.servers[fault.target].wipe()
        self._servers.servers[fault.target].kill()

    def start_server(self, fault: Fault, happening: Happening) -> None:
        """Start it again."""
        self._servers.servers[fault.target].start()
        self._reset_since(fault, happening.from_ns)

    def save_server(self, fault: Fault) -> None:
        """Take the snapshot that it will come back with."""
        self._servers.servers[fault.target].save()

    def roll_back_server(self, fault: Fault, happening: Happening) -> None:
        """``kill -9`` and start with the snapshot."""
        happening.from_ns = now()
        self._servers.servers[fault.target].kill()
        self._servers.servers[fault.target].start()
        self._reset_since(fault, happening.from_ns)
        self._servers.servers[fault.target].wipe()

    def restart_server(self, fault: Fault) -> None:
        """Save, kill, start."""
        self.save_server(fault)
        self.roll_back_server(fault, self._open[fault.number])

    def keep_server_busy(self, fault: Fault) -> None:
        """DEBUG SLEEP, without waiting for the answer."""
        server = self._servers.servers[fault.target]
        family = socket.AF_UNIX if server.transport == "unix" else socket.AF_INET
        with socket.socket(family) as link:
            link.connect(server.path if server.transport == "unix" else (server.host, server.port))
            link.sendall(hiredis.pack_command(("DEBUG", "SLEEP", f"{fault.for_s:.3f}")))
            # The server reads what was sent before it notices that nobody waits.

    def flush(self, fault: Fault) -> None:
        """FLUSHALL."""
        self._erase(fault, "FLUSHALL")

    def lose_lane(self, fault: Fault) -> None:
        """DEL of the lane's record: every value of its time is dead with it."""
        with self._servers.servers[fault.target].client() as client:
            records = list(client.scan_iter(match="nc:{" + NAMESPACE + ":*}:L", count=1_000))
        if records:
            self._erase(fault, "DEL", *records)

    def _erase(self, fault: Fault, *command: Any) -> None:
        before = now()
        self._ask(fault, *command)
        self.effects.erasures.append(Span(fault.target, before, now()))

    def start_evicting(self, fault: Fault) -> None:
        """Let there be too little memory by a little."""
        used = int(self._servers.servers[fault.target].cli("INFO", "memory")["used_memory"])
        self.effects.evictions = True
        self._ask(fault, "CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        self._ask(fault, "CONFIG", "SET", "maxmemory", used - 100_000)

    def refuse_writes(self, fault: Fault) -> None:
        """Let there be no memory at all."""
        self._ask(fault, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        self._ask(fault, "CONFIG", "SET", "maxmemory", 1)

    def free_memory(self, fault: Fault, _: Happening) -> None:
        """Let there be enough."""
        self._ask(fault, "CONFIG", "SET", "maxmemory", 0)

    def overflow(self, fault: Fault) -> None:
        """Keep subscribers from reading, and announce more than their buffers hold."""
        self._ask(fault, "CONFIG", "SET", "client-output-buffer-limit", "pubsub 32kb 16kb 1")
        rule = Rule(servers=(fault.target,), kinds=(SUBSCRIPTION,), directions=(DOWN,), silent=True)
        self._hands.rule("set", fault.number, rule)
        noise = [f"noise-{number}" for number in range(_NOISE)]
        urls = self._servers.urls(None)
        with open_any(urls, namespace=NAMESPACE, timeout=2.0) as cache, contextlib.suppress(nearcache.CacheError):
            for _ in range(4):
                cache.delete_many(noise)

    def let_read(self, fault: Fault, _: Happening) -> None:
        """Let subscribers read again."""
        self._hands.rule("set", fault.number, None)
        self._ask(fault, "CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60")

    def _node(self, fault: Fault) -> int:
        """Return the number of a primary; which one depends on the fault's target."""
        assert isinstance(self._servers, Nodes)
        primaries = self._servers.primaries()
        if not primaries:
            raise RuntimeError("no server says that it is a primary")
        return primaries[fault.target % len(primaries)]

    def fail_over(self, fault: Fault) -> None:
        """Let a replica take over, and wait until the old primary has become one."""
        assert isinstance(self._servers, Nodes)
        before, old = now(), self._node(fault)
        if self._servers.sentinels:
            self._servers.sentinels[0].cli("SENTINEL", "FAILOVER", "chaos")
        else:
            own = self._servers.servers[old].cli("CLUSTER", "MYID").decode()
            running = [server for server in self._servers.servers if server.running]
            next(server for server in running if _own_line(server)[3] == own).cli("CLUSTER", "FAILOVER")
        self._servers.until(lambda: old not in self._servers.primaries(), f"server {old} is a replica")
        self._servers.await_primaries()
        self._reset_since(fault, before)

    def kill_primary(self, fault: Fault) -> None:
        """``kill -9`` of a primary; it stays away for the fault's time."""
        self.strike_primary(fault).kill()

    def start_primary(self, fault: Fault, happening: Happening) -> None:
        """Start it again; when it has found its place, everybody follows one primary again."""
        assert isinstance(self._servers, Nodes)
        victim = int(happening.target.split()[1])
        self._servers.servers[victim].start()
        self._servers.await_primaries()
        self._reset_since(fault, happening.from_ns)

    def move_slots(self, fault: Fault) -> None:
        """Move the slots of some lanes to another primary, key by key, as redis-cli's reshard does."""
        assert isinstance(self._servers, Nodes)
        choose = random.Random(f"{self._seed}/{fault.number}")
        source, target = (self._servers.servers[each] for each in choose.sample(self._servers.primaries(), 2))
        ids = [server.cli("CLUSTER", "MYID").decode() for server in (source, target)]
        slots = _slots_of_lanes(_own_line(source)[8:])
        if not slots:
            raise RuntimeError("that primary has no lanes")
        with source.client() as giving, target.client() as taking:
            for slot in choose.sample(slots, min(_LANES_MOVED, len(slots))):
                taking.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
                giving.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
                while keys := giving.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 2):
                    giving.execute_command("MIGRATE", target.host, target.port, "", 0, 1_000, "KEYS", *keys)
                    time.sleep(choose.uniform(0, _DAWDLE_S))
                for client in (taking, giving):
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        # Nothing may be lost by that, so nothing is excused.


def _slots_of_lanes(words: list[str]) -> list[int]:
    """Return those of a node's slots in which lanes lie."""
    ranges = [word.partition("-") for word in words if not word.startswith("[")]
    owned = [(int(first), int(last or first)) for first, _, last in ranges]
    lanes = map(slot_of_lane, range(CLUSTER_LANES))
    return [slot for slot in lanes if any(first <= slot <= last for first, last in owned)]


def _own_line(server: RedisServer) -> list[str]:
    """Return what CLUSTER NODES says of the server itself, word by word: the id of its primary is the fourth."""
    # Over a bare socket, because redis-py makes something else of it.
    with socket.create_connection((server.host, server.port), 5) as link:
        link.sendall(b"CLUSTER NODES\r\n")
        text = link.recv(65_536).decode()
    return next(line.split() for line in text.splitlines() if "myself" in line)


def _asking(*words: str | int) -> Callable[[Nemesis, Fault], None]:
    def ask(nemesis: Nemesis, fault: Fault) -> None:
        nemesis._ask(fault, *words)

    return ask


def _put_back(*words: str | int) -> Callable[[Nemesis, Fault, Happening], None]:
    def ask(nemesis: Nemesis, fault: Fault, _: Happening) -> None:
        nemesis._ask(fault, *words)

    return ask


_BEGIN: Final[dict[str, Callable[[Nemesis, Fault], None]]] = {
    "worker killed": Nemesis.kill_worker,
    "worker stopped": Nemesis.stop_worker,
    "fork storm": Nemesis.fork_worker,
    "shards changed": Nemesis.change_shards,
    "server stopped": Nemesis.stop_server,
    "server emptied": Nemesis.empty_server,
    "server rolled back": Nemesis.save_server,
    "server restarted": Nemesis.restart_server,
    "server busy": Nemesis.keep_server_busy,
    "flush": Nemesis.flush,
    "eviction": Nemesis.start_evicting,
    "no memory": Nemesis.refuse_writes,
    "lazy expiry": _asking("DEBUG", "SET-ACTIVE-EXPIRE", 0),
    "lane record lost": Nemesis.lose_lane,
    "scripts lost": _asking("SCRIPT", "FLUSH"),
    "data killed": _asking("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
    "subscribers killed": _asking("CLIENT", "KILL", "TYPE", "pubsub"),
    "buffer overflow": Nemesis.overflow,
    "failover": Nemesis.fail_over,
    "primary killed": Nemesis.kill_primary,
    "slots moved": Nemesis.move_slots,
    **watching.BEGIN,
}
_END: Final[dict[str, Callable[[Nemesis, Fault, Happening], None]]] = {
    "worker killed": Nemesis.start_worker,
    "worker stopped": Nemesis.continue_worker,
    "server stopped": Nemesis.continue_server,
    "server busy": Nemesis.outlast,
    "server emptied": Nemesis.start_server,
    "server rolled back": Nemesis.roll_back_server,
    "eviction": Nemesis.free_memory,
    "no memory": Nemesis.free_memory,
    "lazy expiry": _put_back("DEBUG", "SET-ACTIVE-EXPIRE", 1),
    "buffer overflow": Nemesis.let_read,
    "primary killed": Nemesis.start_primary,
    **watching.END,
}


def network_rule(fault: Fault, choose: random.Random, bound_s: float) -> Rule:
    """Return what the proxy is told for a network fault."""
    servers = (fault.target,)
    late_s = choose.uniform(0.02, 0.8 * bound_s)
    made: dict[str, dict[str, Any]] = {
        "delay": {"delay_s": late_s / 4},
        "jitter": {"jitter_s": late_s / 2},
        "bandwidth": {"bytes_per_s": choose.randrange(5_000, 100_000)},
        "slow bytes": {"piece": choose.randrange(1, 40)},
        "connections cut": {"reset": choose.random() < 0.5},
        "answers cut": {
            "directions": (DOWN,),
            "cut_after": choose.randrange(1, 20_000),
            "reset": choose.random() < 0.5,
        },
        "half-open up": {"directions": (UP,), "silent": True, "doomed": True, "kinds": _some_kind(choose)},
        "half-open down": {"directions": (DOWN,), "silent": True, "doomed": True, "kinds": _some_kind(choose)},
        "partition": {"silent": True},
        "messages late": {"kinds": (SUBSCRIPTION,), "directions": (DOWN,), "delay_s": late_s},
        "messages held": {"kinds": (SUBSCRIPTION,), "directions": (DOWN,), "silent": True},
        "answers late": {"kinds": (DATA,), "directions": (DOWN,), "delay_s": late_s / 3},
        "messages lost": {"lose": choose.uniform(0.05, 0.5)},
        "messages repeated": {"repeat": choose.uniform(0.05, 0.5)},
        "messages swapped": {"swap": choose.uniform(0.05, 0.5)},
    }
    # One worker of four is another one each time; "wide" faults strike all of them.
    workers = () if fault.wide else (choose.randrange(4),)
    return Rule(servers=servers, workers=workers, **made[fault.kind.name])


def _some_kind(choose: random.Random) -> tuple[str, ...]:
    return choose.choice([(), (DATA,), (SUBSCRIPTION,)])
