"""What is promised of all servers together, where keys move from one to another. See ``checkers``.

A server's history knows nothing of what happened to a key on another server. So here is noted what ended a value
wherever that was: a change of its key that began after the value had last been stored anywhere, and that has returned.
From B after that on nobody is to be given the value, by L1 or by L2, whichever list of shards he knows.

A failover that loses changes makes what is noted of their keys void: then only the servers' histories count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from simulation.history import value_key
from simulation.world import MS

if TYPE_CHECKING:
    from simulation.client import Client
    from simulation.process import Process
    from simulation.server import Server, Shard
    from simulation.workload import Profile, Running
    from simulation.world import World


class Everywhere:
    """The part of the checker that looks beyond single servers, in runs whose list of shards changes."""

    world: World
    profile: Profile
    encoded: dict[str, bytes]
    stated: dict[int, tuple[tuple[int, int], ...]]
    shards: list[Shard]

    def __init__(self) -> None:
        self._stored_ns: dict[str, dict[int, int]] = {}
        self._died_ns: dict[int, int] = {}
        self._untagged_ns: dict[int, int] = {}  # the same by a change of a tag: L2 may hold them yet
        self._told: dict[str, tuple[int, int]] = {}  # newest version whose invalidation has returned, and when
        self._owed: dict[str, dict[tuple[Process, int], int]] = {}  # newest version, by process and its incarnation
        self._owed_itself: dict[str, dict[tuple[Process, int], int]] = {}  # the same: not by a tag
        self._void_ns: dict[str, int] = {}
        self._forgetful: set[Server] = set()
        self._brought_back: dict[Shard, tuple[Process, int]] = {}  # by whom the shard had been emptied

    # What the whole checker has.
    def fail(self, rule: str, text: str) -> None:
        raise NotImplementedError

    def count(self, rule: str) -> None:
        raise NotImplementedError

    def _version(self, number: int) -> int | None:
        raise NotImplementedError

    def followed(self, process: Process, lane: int) -> Server:
        raise NotImplementedError

    def in_l2(self, server: Server, process: Process, encoded: bytes) -> int | None:
        raise NotImplementedError

    def tag_dead(self, process: Process, tier: Any, number: int) -> bool:
        raise NotImplementedError

    # -- what happens

    def stored_somewhere(self, key: str, number: int, server: Server) -> None:
        """A value has been stored: whoever was told anything of it, none of a version that is over by then.

        A server that has forgotten which list of shards is in use may let those for whom it is over.
        """
        version, (announced, _) = self._version(number), self._told.get(key, (0, 0))
        if version is not None and announced and not self.profile.lag_ns and self._remembers(server):
            self.count("I7")
            if version < announced:
                self.fail("I7", f"{server.name} takes {key}={number} of version {version}, {announced} was told")
        self._stored_ns.setdefault(key, {})[number] = self.world.now
        self._died_ns.pop(number, None)
        self._untagged_ns.pop(number, None)

    def _remembers(self, server: Server) -> bool:
        """Whether a shard has all that it was ever told: no other server took over, and the record was never lost."""
        return server not in self._forgetful and any(shard.servers == [server] for shard in self.shards)

    def recorded(self, server: Server, *, is_there: bool) -> None:
        """A lane's record has been changed, or is no more."""
        server.history.take_generation(server.database.data, self.world.now)
        if not is_there:
            self._forgetful.add(server)

    def ended_everywhere(self, running: Running, client: Client) -> None:
        """A change of keys, or of all that has a tag, has returned."""
        if any(server is not client.process.shards[lane].primary for lane, (server, _) in client.seen.items()):
            return  # by one who has been replaced, and whose word counts for nothing
        now, begun = self.world.now, running.begun_ns
        # One that has forgotten the list may have let in somebody with another one, who then told nobody else.
        is_told = all(self._remembers(server) for server, _ in client.seen.values())
        tag = getattr(running, "tag_hash", None)
        for key in running.ends:
            if begun < self._void_ns.get(key, 0):
                continue
            for number, stored in self._stored_ns.get(key, {}).items():
                if stored < begun and (tag is None or any(hashed == tag for hashed, _ in self.stated.get(number, ()))):
                    (self._died_ns if tag is None else self._untagged_ns).setdefault(number, now)
            version = running.versions.get(self.encoded[key])
            if is_told and version is not None and tag is None and version > self._told.get(key, (0, 0))[0]:
                self._told[key] = (version, now)

    def owed_everywhere(self, running: Running, client: Client) -> None:
        """An invalidation has failed: it is owed, wherever the key is by now."""
        who = (client.process, client.process.incarnation)
        for key in running.ends:
            version = running.versions.get(self.encoded[key])
            if version is not None and running.begun_ns >= self._void_ns.get(key, 0):
                for known in (self._owed, self._owed_itself)[: 1 if hasattr(running, "tag_hash") else 2]:
                    owed = known.setdefault(key, {})
                    owed[who] = max(version, owed.get(who, 0))

    def lost_somewhere(self, encoded: set[bytes]) -> None:
        """A failover has lost changes of these keys."""
        for key, each in self.encoded.items():
            if each in encoded:
                self._void_ns[key] = self.world.now
                self._told.pop(key, None)
                self._owed.pop(key, None)
                self._owed_itself.pop(key, None)
                for number in self._stored_ns.pop(key, {}):
                    self._died_ns.pop(number, None)
                    self._untagged_ns.pop(number, None)

    # -- shards that are emptied before they gain keys

    def emptied(self, server: Server) -> None:
        """Perhaps by the last command: where it is one of a replaced primary's, the shard has what was there before."""
        shard = self._shard_with(server)
        if server is not shard.primary:
            self.emptied_in_vain(server, server.cause, server.script, server.database.dirty)
        elif server.script == "clear":
            self._brought_back.pop(shard, None)

    def emptied_in_vain(self, server: Server, cause: Any, script: str, names: Iterable[bytes]) -> None:
        """A server's shard does not have a change; if it was emptied by that, it will be again by the same process."""
        client = getattr(cause, "client", None)
        if client is not None and not client.observes and (script == "clear" or any(map(value_key, names))):
            self._brought_back[self._shard_with(server)] = (client.process, cause.incarnation)

    def _shard_with(self, server: Server) -> Shard:
        return next(shard for shard in self.shards if server in shard.servers)

    def _is_brought_back(self, server: Server) -> bool:
        """Whether a server has, for the time being, what it was rid of."""
        return self._shard_with(server) in self._brought_back

    def _forgive_the_dead(self) -> None:
        """What has been brought back stays, if the process that knows of it has died since, or forked."""
        for shard, (process, incarnation) in list(self._brought_back.items()):
            if process.incarnation != incarnation:
                del self._brought_back[shard]
                self.lost_somewhere(set(self.encoded.values()))

    # -- what is promised

    def current_somewhere(self, process: Process, key: str, number: int, server: Server, since_ns: int) -> None:
        """A process has been given a value, as of an instant not before B before this one."""
        if all(server is not shard.primary for shard in process.checker.shards):
            return
        self._forgive_the_dead()
        if self._is_brought_back(server):
            return
        self.count("I1")
        oldest = since_ns - self.profile.bound_ns
        died = min(self._died_ns.get(number, since_ns), self._untagged_ns.get(number, since_ns))
        if died < oldest:
            self.fail("I1", f"{process} has {key}={number}, ended elsewhere {(since_ns - died) / MS:.3f} ms before")
        announced, version = self._told.get(key), self._version(number)
        if version is None or self.profile.lag_ns:
            return
        if announced is not None and version < announced[0] and announced[1] < oldest:
            late = (since_ns - announced[1]) / MS
            self.fail("I1", f"{process} has {key}={number} of {version}, {announced[0]} was told {late:.3f} ms before")
        self._paid_where_it_counts(key)

    def _paid_where_it_counts(self, key: str) -> None:
        """What somebody owes no more, where he looks, has been invalidated there: whatever is there came later."""
        encoded = self.encoded[key]
        for (process, incarnation), owed in self._owed_itself.get(key, {}).items():
            lane = process.tier.lane_of(encoded)
            if process.incarnation != incarnation or process.tier.is_owed(lane, encoded):
                continue
            server = process.shards[lane].primary
            number = self.in_l2(server, process, encoded) if self._remembers(server) else None
            version = None if number is None else self._version(number)
            self.count("I8")
            if version is not None and version < owed:
                self.fail("I8", f"{server.name} holds {key}={number} of {version}, and {process} owes {owed} no more")

    def settled_everywhere(self, processes: list[Process]) -> None:
        """At the end all use one list of shards, and what has ended is nowhere that anybody looks."""
        rings = {process.tier.ring for process in processes}
        self.count("I5")
        if len(rings) > 1 or processes[0].tier.other is not None:
            self.fail("I5", f"the processes use different lists of shards: {rings}")
        process = processes[0]
        self._forgive_the_dead()
        for key, encoded in self.encoded.items():
            server = process.shards[process.tier.lane_of(encoded)].primary
            number = self.in_l2(server, process, encoded)
            if number is None:
                continue
            version = self._version(number)
            self.count("I8")
            if number in self._died_ns:
                self.fail("I8", f"{server.name} holds {key}={number}, which was ended elsewhere")
            if version is None or self.profile.lag_ns:
                continue
            if version < self._told.get(key, (0, 0))[0]:
                self.fail("I8", f"{server.name} holds {key}={number} of version {version}: newer ones were told")
            itself = self._owed_itself.get(key, {})
            for (owner, incarnation), owed in self._owed.get(key, {}).items():
                if owner.incarnation != incarnation or version >= owed:
                    continue
                # By a tag it is over where it stands, for the tag has another generation.
                if version < itself.get((owner, incarnation), 0) or not self.tag_dead(process, process.tier, number):
                    self.fail("I8", f"{server.name} holds {key}={number} of {version}, for {owner} owed {owed}")
