"""Promises beyond the sixth one: tags, tokens, changes of what is there, old copies, absence. See ``checkers``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nearcache.codecs import peek_tags
from nearcache.errors import ShardError
from nearcache.loading.tagging import tag_key, tags_named
from simulation.exclusion import Exclusion
from simulation.history import History
from simulation.world import MS

if TYPE_CHECKING:
    from simulation.client import Client
    from simulation.process import Process
    from simulation.server import Server
    from simulation.workload import Profile
    from simulation.world import World

Floor = tuple["Server", int]

#: Values of counters are numbers from here on: what they count is added.
COUNTED: Final = 1 << 600


class LoaderFailed(Exception):
    """What a simulated loader raises."""


class WriterFailed(Exception):
    """What a simulated writer raises."""


class Promises(Exclusion):
    """The part of the checker that knows of tags, tokens and changes.

    Attributes:
        stated: Value -> hash and generation of each of its tags.
        mail: Tokens, each with what its process had done when it was made: key -> server and count.
    """

    world: World
    profile: Profile

    def __init__(self) -> None:
        super().__init__()
        self.stated: dict[int, tuple[tuple[int, int], ...]] = {}
        self.mail: list[tuple[str, dict[Any, Floor]]] = []
        self.bits = 0
        self._tag_versions: dict[int, dict[bytes, int]] = {}
        self._written: dict[tuple[Process, Any], Floor] = {}
        self._promised: dict[tuple[Process, Any], Floor] = {}
        self._lanes: dict[tuple[Process, int], Floor] = {}
        self._made_ns: dict[int, int] = {}
        self._taken: dict[int, Server] = {}
        self._given_by: dict[tuple[Process, int], Server] = {}  # who has answered with a value
        self._absent: dict[bytes, list[int]] = {}

    # What the whole checker has.
    def fail(self, rule: str, text: str) -> None:
        raise NotImplementedError

    def count(self, rule: str) -> None:
        raise NotImplementedError

    def followed(self, process: Process, lane: int) -> Server:
        raise NotImplementedError

    def raise_floor(self, process: Process, key: Any, server: Server, sequence: int, *, own: bool = False) -> None:
        raise NotImplementedError

    def answerer(self, client: Client, lane: int) -> Server | None:
        """Who has answered last, to this client or to one that it waited for; None: nobody was asked."""
        return client.seen[lane][0] if lane in client.seen else client.told.get(lane)

    def believed(self, process: Process, lane: int) -> Server:
        """Who has vouched for what L1 serves: the server that is heard, and for B after its end, if nobody has told."""
        bus = process.buses[lane]
        if bus is not None and bus.server.stopped_ns >= self.world.now - self.profile.bound_ns:
            return bus.server
        return self.followed(process, lane)

    def new_bit(self) -> int:
        """A number that has not been given to anybody yet, from 1 on."""
        self.bits += 1
        return self.bits

    def may_fail(self, error: Exception) -> bool:
        """Whether something in the background may end like this."""
        return isinstance(error, (ShardError, LoaderFailed, KeyError))

    # -- tags

    def tag_floors(self, process: Process) -> dict[Any, Floor]:
        """What a read that begins now must not fall below, by encoded key of a tag's record."""
        floors: dict[tuple[Process, Any], Floor] = self._floors  # type: ignore[attr-defined]  # the checker's
        return {key: floor for (owner, key), floor in floors.items() if owner is process and key.__class__ is bytes}

    def states(self, server: Server, encoded: bytes, number: int, envelope: bytes) -> None:
        """A value is in L2 with these tags. What is older than a tag's change must not state its generation."""
        if number == COUNTED or number not in self._made_ns:  # zero is loaded, and every time it is the same
            self._made_ns[number] = self.world.now
        stated = self.stated[number] = peek_tags(envelope)
        version = self._version(number)
        for _, generation in stated if version is not None else ():
            self.count("I7")
            least = self._tag_versions.get(generation, {}).get(encoded, 0)
            if version is not None and version < least:
                self.fail(
                    "I7", f"{server.name} takes {number} of version {version} with a tag that was changed for {least}"
                )

    def tag_changed(self, server: Server, generation: int) -> None:
        """A tag's record has been written."""
        versions = getattr(server.cause, "versions", None)
        if versions:
            self._tag_versions[generation] = dict(versions)

    def tags_hit(self, process: Process, key: str, number: int) -> None:
        """L1 has answered with a value that has tags."""
        for hashed, generation in self.stated.get(number, ()):
            encoded = tag_key(hashed)
            lane = process.tier.lane_of(encoded)
            server, believed = self.followed(process, lane), self.believed(process, lane)
            self._tag_within(process, key, number, believed, generation, self.world.now - self.profile.bound_ns)
            self._tag_not_below(process, key, number, server, generation, self._floor_of(process, encoded))

    def tags_read(
        self, client: Client, key: str, number: int, since_ns: int, floors: dict[Any, Floor], *, is_old: bool
    ) -> None:
        """L2 has answered with a value that has tags."""
        process = client.process
        for hashed, generation in self.stated.get(number, ()):
            encoded = tag_key(hashed)
            lane = client.tier.lane_of(encoded)
            server = self.answerer(client, lane) or self.followed(process, lane)
            if self._is_believed(process, lane, generation, self.world.now):
                continue
            oldest_ns = since_ns - self.profile.bound_ns
            # Until B after a replaced primary has stopped, L1 may go by what it had told.
            was_believed = self._is_believed(process, lane, generation, oldest_ns)
            if not is_old and not client.joined_load and not was_believed:
                self._tag_within(process, key, number, server, generation, oldest_ns)
            self._tag_not_below(process, key, number, server, generation, floors.get(encoded))

    def _is_believed(self, process: Process, lane: int, generation: int, then_ns: int) -> bool:
        """Whether a primary that was replaced, and that a process may still have heard then, has this generation."""
        shard = process.shards[lane]
        return any(
            server.stopped_ns > then_ns
            and server is not shard.primary
            and generation in server.history.born
            and server.history.killed.get(generation, (then_ns,))[0] >= then_ns
            for server in shard.servers
        )

    def tags_alive(self, process: Process, key: str, number: int) -> None:
        """At the end, what L1 holds depends on no generation that is over."""
        for hashed, generation in self.stated.get(number, ()):
            server = process.shards[process.tier.lane_of(tag_key(hashed))].primary
            if generation in server.history.killed:
                self.fail("I5", f"{process} still holds {key}={number}, whose tag has changed on {server.name}")

    def tag_dead(self, process: Process, tier: Any, number: int) -> bool:
        """Whether a tag of the value has another generation somewhere, or the process owes it another.

        Args:
            tier: With what the process asks: while the list of shards changes the record of a tag may have moved from
                where some look to where others do, and what moves starts anew.
        """
        if any(
            process.tier.is_owed(process.tier.lane_of(tag_key(hashed)), tag_key(hashed))
            for hashed, _ in self.stated.get(number, ())
        ):
            return True
        return any(
            generation not in server.history.alive.get(tag_key(hashed), ())
            for hashed, generation in self.stated.get(number, ())
            for lane in {each.lane_of(tag_key(hashed)) for each in (tier, process.tier)}
            for server in process.shards[lane].servers
        )

    def _tag_within(
        self, process: Process, key: str, number: int, server: Server, generation: int, oldest_ns: int
    ) -> None:
        killed = server.history.killed.get(generation)
        self.count("I1")
        if killed is not None and killed[0] < oldest_ns:
            late = (self.world.now - killed[0]) / MS
            self.fail("I1", f"{process} has {key}={number}, of which a tag changed on {server.name} {late:.3f} ms ago")

    def _tag_not_below(
        self, process: Process, key: str, number: int, server: Server, generation: int, floor: Floor | None
    ) -> None:
        killed = server.history.killed.get(generation)
        self.count("I9")
        if floor is not None and floor[0] is server and killed is not None and killed[1] <= floor[1]:
            rule = "I14" if floor in (self._promised.get((process, each)) for each in self._tag_keys()) else "I9"
            self.fail(rule, f"{process} reads {key}={number}, of which it had changed a tag on {server.name}")

    def _tag_keys(self) -> list[bytes]:
        return [tag_key(hashed) for stated in self.stated.values() for hashed, _ in stated]

    def _floor_of(self, process: Process, key: Any) -> Floor | None:
        floors: dict[tuple[Process, Any], Floor] = self._floors  # type: ignore[attr-defined]  # the checker's
        return floors.get((process, key))

    def tags_invalidated(self, client: Client, names: tuple[str, ...]) -> None:
        """A process has changed tags."""
        for tag in tags_named(client.tier, names):
            server, sequence = client.seen[tag.lane]
            self.raise_floor(client.process, tag.key, server, sequence, own=True)

    # -- tokens

    def post(self, process: Process, token: str) -> None:
        """A process has made a token."""
        known = {key: floor for (owner, key), floor in self._written.items() if owner is process}
        self.mail.append((token, known))

    def applied(self, process: Process, known: dict[Any, Floor]) -> None:
        """A process has waited for a token."""
        for key, (server, sequence) in known.items():
            self.count("I14")
            before = self._floor_of(process, key)
            self.raise_floor(process, key, server, sequence)
            if self._floor_of(process, key) != before:
                self._promised[process, key] = (server, sequence)

    def forked(self, process: Process) -> None:
        """The child has changed nothing yet."""
        for known in [known for known in self._written if known[0] is process]:
            del self._written[known]

    # -- the order of all that a lane tells

    def observed(self, client: Client) -> None:
        """A process is told what this client's servers have answered."""
        process = client.process
        for lane, (server, sequence) in client.seen.items() if process.profile.ordered else ():
            held = self._lanes.get((process, lane))
            if held is None or held[0] is not server or held[1] < sequence:
                self._lanes[process, lane] = (server, sequence)

    def lane_floors(self, process: Process) -> dict[int, Floor]:
        """What a process has seen of each lane by now."""
        return {lane: floor for (other, lane), floor in self._lanes.items() if other is process}

    def in_order(self, client: Client, key: str, number: int, since_ns: int, floors: dict[int, Floor]) -> None:
        """A value that L2 has answered must not be older than what had been seen of its lane when it was asked for."""
        process = client.process
        lane = process.tier.place(key)[0]
        if lane in floors and process.old_served.get(number, 0) < since_ns:
            given_by = self.answerer(client, lane) or self._given_by.get((process, number))
            server = given_by or self.followed(process, lane)
            self.not_before(process, key, number, floors[lane], server)

    def not_before(self, process: Process, key: str, number: int, floor: Floor | None, server: Server) -> None:
        """A value must not have ended before what had been seen of its lane, unless a failover has set that back."""
        if floor is None or floor[0] is not server or number in server.history.lost:
            return
        self.count("I17")
        killed = server.history.killed.get(number)
        if killed is not None and killed[1] <= floor[1]:
            ended = f"ended by change {killed[1]}"
            self.fail("I17", f"{process} reads {key}={number}, {ended}, after it had seen the lane at {floor[1]}")

    # -- changes of what is there

    def replaces(self, server: Server, encoded: bytes, number: int, before: int | None) -> None:
        """A value takes the place of another one. Where it was made of one, it must be that."""
        self.stored_over(server, encoded, number)
        cause = server.cause
        made_of = getattr(cause, "made_of", None)
        if made_of is None or number not in made_of or encoded not in cause.encoded:
            return
        self.count("I13")
        expected = made_of[number]
        is_nothing = (
            before is None
            or before in self._absent.get(encoded, ())
            or self.tag_dead(cause.process, cause.tier, before)
        )
        if expected != before and not (expected is None and is_nothing):
            self.fail("I13", f"{server.name} takes {number}, which {cause} made of {expected}, in place of {before}")

    def taken(self, client: Client, number: int, server: Server) -> None:
        """A value has been taken away by somebody, and by nobody else."""
        if number == COUNTED:  # loaded, and every time it is the same
            return
        self.count("I13")
        if self._taken.get(number) is server:
            self.fail("I13", f"{client} is given {number} by {server.name}, which has given it to somebody before")
        self._taken[number] = server

    # -- absence

    def is_absence(self, encoded: bytes, number: int) -> None:
        """This value says that there is none."""
        self._absent.setdefault(encoded, []).append(number)

    def absent(self, client: Client, key: str, encoded: bytes, since_ns: int) -> None:
        """L2 has answered that there is no value: that must have been stored, and not long ago have been true."""
        self.count("I1")
        if client.loading_ns or client.joined or client.joined_load:
            return
        lane = client.tier.lane_of(encoded)
        seen = client.seen.get(lane)
        history = seen[0].history if seen is not None else self.followed(client.process, lane).history
        oldest_ns = since_ns - self.profile.bound_ns
        if not any(
            number in history.born and history.killed.get(number, (since_ns,))[0] >= oldest_ns
            for number in self._absent.get(encoded, ())
        ):
            self.fail("I1", f"{client} is told that {key} has no value, which has not been so")

    # -- growing old

    def old_copy(self, process: Process, key: str, value: Any) -> None:
        """L1 serves a copy because nobody can be asked: it was vouched for until not too long ago."""
        number = self.number(key, value)
        self.count("I15")
        now, bound_ns = self.world.now, self.profile.bound_ns
        process.old_served[number] = now
        lane = process.tier.place(key)[0]
        history = self.followed(process, lane).history
        killed, end_ns = history.killed.get(number), history.ends.get(number)
        if killed is not None and now - killed[0] > bound_ns + self.profile.stale_ns + process.slept_ns:
            self.fail("I15", f"{process} serves {key}={number}, dead for {(now - killed[0]) / MS:.3f} ms")
        if end_ns is not None and now > end_ns + process.slept_ns and not self._is_shortened(history, number):
            self.fail("I15", f"{process} serves {key}={number} {(now - end_ns) / MS:.3f} ms after its expiry")

    def _is_shortened(self, history: History, number: int) -> bool:
        """Whether word of a shorter life may be on its way."""
        when = history.shortened.get(number)
        return when is not None and self.world.now - when <= self.profile.bound_ns

    def not_older(self, process: Process, key: str, number: int, limit_ns: int, since_ns: int | None = None) -> None:
        """What was asked for with ``max_age``, then or now, is not older than that; or is stored nowhere yet."""
        made_ns = self._made_ns.get(number)
        if made_ns is None:
            return
        self.count("I18")
        age_ns = (self.world.now if since_ns is None else since_ns) - made_ns
        if age_ns > limit_ns:
            self.fail("I18", f"{process} has {key}={number}, {age_ns / MS:.3f} ms old, not {limit_ns / MS:.3f} at most")

    def not_overdue(self, process: Process, key: str, number: int, history: History) -> None:
        """From its soft end on L1 keeps a value for the life of a lease, and asks again."""
        soft_ns = history.soft_ends.get(number)
        if soft_ns is None or self.world.now <= soft_ns:
            return
        self.count("I15")
        if process.clock() > process.store.kept_ns.get(key, 0) + self.profile.lease_ms * MS:
            late = (self.world.now - soft_ns) / MS
            self.fail("I15", f"{process} serves {key}={number}, due since {late:.3f} ms, without having asked")

    def number(self, key: str, value: Any) -> int:
        raise NotImplementedError

    def _version(self, number: int) -> int | None:
        raise NotImplementedError
