"""Holds: two-phase invalidation around a transaction (section 2.8; rows 31, 32).

A writer holds the key, commits to the database, and releases the hold with a plain invalidation. In between fills are
refused, so that neither a loader that read an old snapshot nor the death of the writer leaves an old value::

    writer   hold ------- commit ------- release            nc_inval(hold)   database   nc_inval
    L2       H<token>, or H* if there was another's           fills LOST, misses answered HOLD
    database    version n        | version n + 1
    replicas    version n                | ... catch up later: the lag

Loaders read a replica, or a snapshot opened earlier, so they may get the version before. Assumptions that only the
user can see to, and that the bounds can drop: a hold lasts longer than the transaction and the lag (``hasty`` False).

Properties: once every writer is done and every hold over, L2 holds no version older than the newest committed one.
While a hold is on, there is no value in L2 at all (I7). L1 is not modelled: it holds what L2 did, and every change
there publishes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from .engine import Case, Label, Model, Mutant, put

WAITING, HOLDING, COMMITTED, DONE, DEAD = "waiting", "holding", "committed", "done", "dead"
IDLE, LOADING, READ = "idle", "loading", "read"


class Bounds(NamedTuple):
    """How much may happen.

    Attributes:
        lagging: The database has replicas that catch up after the commit.
        hasty: A hold may end before its writer has committed; then writers must not die.
    """

    writers: int = 0
    loads: int = 0
    deaths: int = 0
    sets: int = 0
    lagging: bool = False
    hasty: bool = False


class Writer(NamedTuple):
    """One transaction. Its hold's token is its place, from 1."""

    step: str = WAITING
    version: int = 0


class Loader(NamedTuple):
    """One process that reads through. ``token`` 0: it was answered HOLD and will not fill."""

    step: str = IDLE
    token: int = 0
    version: int = 0


class State(NamedTuple):
    """Everything. ``mark``: None, ("L", token), or ("H", token) with 0 for ``H*``; ``kept``: a hold after release."""

    committed: int
    replica: int
    value: int
    mark: tuple[str, int] | None
    writers: tuple[Writer, ...]
    loaders: tuple[Loader, ...]
    tokens: int
    left: Bounds


Steps = Iterator[tuple[Label, State]]
SHARED, KEPT = 0, -3


class Hold(Model):
    """See the module."""

    RULES: ClassVar[dict[str, str]] = {
        "hold_first": "2.8: the hold comes before the commit (row 32)",
        "hold_voids": "2.4: a hold takes the place of a lease, so that its fill is LOST (row 31)",
        "hold_drops": "2.4: a hold unlinks the value",
        "refuse_misses": "2.4: a miss under a hold is answered HOLD, and is not filled (row 31)",
        "refuse_sets": "2.4: a set under a hold drops the value instead (nc_set)",
        "merge": "2.8: overlapping holds merge into H*, which nobody's release ends",
        "release_checks": "2.4: a release ends the hold only if the token is its own",
        "release_drops": "2.8: the release is an invalidation: it unlinks the value",
        "hold_off": "the release leaves a hold for as long as replicas and old snapshots may lag (row 31)",
    }
    EVENTS = frozenset({"hold", "commit", "release", "die", "hold ends", "catch up", "miss", "load", "fill", "set"})

    def initial(self) -> State:
        return State(1, 1, 0, None, (Writer(),) * self.bounds.writers, (Loader(),) * 2, 10, self.bounds)

    def canonical(self, state: State) -> State:
        return state._replace(loaders=tuple(sorted(state.loaders, key=hash)))

    def wrong(self, state: State) -> str | None:
        if state.mark is not None and state.mark[0] == "H" and state.value:
            return f"L2 holds version {state.value} under a hold"
        over = all(w.step in (WAITING, DONE, DEAD) for w in state.writers) and state.mark is None
        if over and 0 < state.value < state.committed:
            return f"L2 holds version {state.value}, every hold is over, and version {state.committed} is committed"
        return None

    def events(self, state: State) -> Steps:
        for index, writer in enumerate(state.writers):
            yield from self.hold(state, index, writer)
            yield from self.commit(state, index, writer)
            yield from self.release(state, index, writer)
            yield from self.die(state, index, writer)
        yield from self.end(state)
        yield from self.catch_up(state)
        yield from self.set(state)
        for index, loader in enumerate(state.loaders):
            yield from self.miss(state, index, loader)
            yield from self.load(state, index, loader)
            yield from self.fill(state, index, loader)

    @staticmethod
    def write(state: State, index: int, writer: Writer, **changes: object) -> State:
        """Return the state in which a writer has become this."""
        return state._replace(writers=put(state.writers, index, writer), **changes)

    @staticmethod
    def read(state: State, index: int, loader: Loader, **changes: object) -> State:
        """Return the state in which a loader has become this."""
        return state._replace(loaders=put(state.loaders, index, loader), **changes)

    # -- writers

    def hold(self, state: State, index: int, writer: Writer) -> Steps:
        """``nc_inval`` with a hold."""
        if writer.step != WAITING:
            return
        if "hold_first" not in self.on:
            yield ("hold", index), self.write(state, index, Writer(HOLDING))
            return
        mark, token = state.mark, index + 1
        if mark is not None and mark[0] == "H" and mark[1] != token and "merge" in self.on:
            token = SHARED
        new = mark if mark is not None and mark[0] == "L" and "hold_voids" not in self.on else ("H", token)
        value = 0 if "hold_drops" in self.on else state.value
        yield ("hold", index, new), self.write(state, index, Writer(HOLDING), mark=new, value=value)

    def commit(self, state: State, index: int, writer: Writer) -> Steps:
        """The database has a new version."""
        if writer.step == HOLDING:
            version = state.committed + 1
            replica = state.replica if self.bounds.lagging else version
            committed = Writer(COMMITTED, version)
            yield (
                ("commit", index, version),
                self.write(state, index, committed, committed=version, replica=replica),
            )

    def release(self, state: State, index: int, writer: Writer) -> Steps:
        """``nc_inval`` without a hold; or with one for the time of the lag."""
        if writer.step != COMMITTED:
            return
        mark, done = state.mark, Writer(DONE)
        value = 0 if "release_drops" in self.on else state.value
        foreign = mark is not None and mark[0] == "H" and mark[1] not in (index + 1, KEPT)
        if foreign and "release_checks" in self.on:
            pass
        elif self.bounds.lagging and "hold_off" in self.on:
            mark = ("H", KEPT)
        elif mark != ("H", KEPT):
            mark = None
        yield ("release", index, mark), self.write(state, index, done, mark=mark, value=value)

    def die(self, state: State, index: int, writer: Writer) -> Steps:
        """The writer's process is gone, whatever it has done."""
        if state.left.deaths and writer.step in (HOLDING, COMMITTED):
            left = state.left._replace(deaths=state.left.deaths - 1)
            yield ("die", index), self.write(state, index, Writer(DEAD), left=left)

    def end(self, state: State) -> Steps:
        """A hold runs out: not before its transactions and the lag are over, unless it was too short."""
        if state.mark is None:
            return
        if state.mark[0] == "L":
            return
        over = all(w.step != HOLDING for w in state.writers) and state.replica == state.committed
        if over or self.bounds.hasty:
            yield ("hold ends",), state._replace(mark=None)

    # -- the database

    def catch_up(self, state: State) -> Steps:
        """The replicas receive what was committed; snapshots of before are closed."""
        if state.replica < state.committed:
            yield ("catch up",), state._replace(replica=state.committed)

    # -- readers

    def miss(self, state: State, index: int, loader: Loader) -> Steps:
        """``nc_miss``. Of leases this model has only that a fill needs one; a second miss takes it over."""
        if loader.step != IDLE or not state.left.loads or state.value:
            return
        left = state.left._replace(loads=state.left.loads - 1)
        if state.mark is not None and state.mark[0] == "H" and "refuse_misses" in self.on:
            yield ("miss", index, "HOLD"), self.read(state, index, Loader(LOADING), left=left)
            return
        token = state.tokens + 1
        granted = Loader(LOADING, token)
        yield (
            ("miss", index, "LEASE"),
            self.read(state, index, granted, mark=("L", token), tokens=token, left=left),
        )

    def load(self, state: State, index: int, loader: Loader) -> Steps:
        """The loader reads: the newest version, or what the slowest replica has."""
        if loader.step == LOADING:
            for version in sorted({state.committed, state.replica}):
                read = loader._replace(step=READ, version=version)
                yield ("load", index, version), self.read(state, index, read)

    def fill(self, state: State, index: int, loader: Loader) -> Steps:
        """``nc_fill``: stored only under the live lease."""
        if loader.step == READ:
            mine = loader.token and state.mark == ("L", loader.token)
            filled = state._replace(value=loader.version, mark=None) if mine else state
            yield ("fill", index, loader.version if mine else "LOST"), self.read(filled, index, Loader())

    def set(self, state: State) -> Steps:
        """Somebody stores what he has read before: without a database behind it this would be the newest value."""
        if not state.left.sets:
            return
        left = state.left._replace(sets=state.left.sets - 1)
        held = state.mark is not None and state.mark[0] == "H"
        if held and "refuse_sets" in self.on:
            yield ("set", "refused"), state._replace(value=0, left=left)
        else:
            mark = state.mark if held else None
            yield ("set", state.committed), state._replace(value=state.committed, mark=mark, left=left)


Hold.CASES = (
    Case("two writers, one dies", Bounds(writers=2, loads=2, deaths=1, sets=1)),
    Case("replicas lag", Bounds(writers=2, loads=2, lagging=True, deaths=1)),
    Case("holds too short", Bounds(writers=2, loads=2, hasty=True)),
)
Hold.LONG_CASES = (
    Case("three writers", Bounds(writers=3, loads=3, deaths=2, sets=1, lagging=True)),
    Case("three writers, holds too short", Bounds(writers=3, loads=4, sets=1, hasty=True)),
)
Hold.WALKS = (
    Case("many", Bounds(writers=8, loads=12, deaths=3, sets=3, lagging=True)),
    Case("many, holds too short", Bounds(writers=8, loads=12, sets=3, hasty=True)),
)
Hold.MUTANTS = (
    Mutant("hold_first", Bounds(writers=1, loads=1, deaths=1)),
    Mutant("hold_voids", Bounds(writers=1, loads=1, deaths=1)),
    Mutant("hold_drops", Bounds(writers=1, loads=1)),
    Mutant("refuse_misses", Bounds(writers=1, loads=1, deaths=1)),
    Mutant("refuse_sets", Bounds(writers=1, sets=1)),
    Mutant("merge", Bounds(writers=2, loads=1, deaths=1)),
    Mutant("release_checks", Bounds(writers=2, loads=1, deaths=1)),
    Mutant("release_drops", Bounds(writers=1, loads=1, hasty=True)),
    Mutant("hold_off", Bounds(writers=1, loads=1, lagging=True)),
)
