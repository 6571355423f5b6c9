"""When a simulated process does what it has to do: at once, or when it goes on after it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulation.world import MS, TICK_NS, World


class Turns:
    """Time and turns of a process: its clocks, and that it can be stopped, as by SIGSTOP, and go on later."""

    world: World
    store: Any
    tier: Any
    followers: list[Any]
    keeper: Any
    paused: bool
    slept_ns: int
    stopped_ns: int
    _pauses: int
    _paused_ns: int
    _is_asleep: bool
    _held_back: list[tuple[Callable[..., None], tuple[Any, ...]]]
    _until_ns: dict[Any, int]
    _random: Any

    def _follow_up(self, lane: int) -> None:
        raise NotImplementedError

    def clock(self) -> int:
        """The precise monotonic clock of this machine."""
        return self.world.now - self.slept_ns

    def post(self, run: Callable[..., None], *arguments: Any) -> None:
        """Do this in the process, now, or when it goes on."""
        until_ns = self._until_ns.get(getattr(run, "__self__", None), 0)
        if self.world.now <= until_ns:  # what the same connection has brought before comes first
            self.world.at(until_ns, self._do, run, *arguments)
        else:
            self._do(run, *arguments)

    def _do(self, run: Callable[..., None], *arguments: Any) -> None:
        if self.paused:
            self._held_back.append((run, arguments))
            return
        self.set_clocks()
        run(*arguments)

    def set_clocks(self) -> None:
        """Let L1 read its coarse clock."""
        now = self.world.now - self.slept_ns
        now -= now % TICK_NS
        self.store.l1_set_clock(now)
        self.tier.tags.l1_set_clock(now)

    def pause(self, *, asleep: bool) -> int:
        """Stop; ``asleep``: with the whole machine, so that its clock stands still. Returns what to resume."""
        self.paused = True
        self._paused_ns = self.world.now
        self._pauses += 1
        self._is_asleep = asleep
        return self._pauses

    def resume(self, pause: int) -> None:
        """Go on: what has come meanwhile is dealt with by many threads, so in no particular order among them.

        After sleep the listener notices first of all here: that a hit may come before is a documented limit.
        """
        if not self.paused or pause != self._pauses:
            return
        self.paused = False
        stopped_ns = self.world.now - self._paused_ns
        self.stopped_ns += stopped_ns
        slept_ns = stopped_ns if self._is_asleep else 0
        self.slept_ns += slept_ns
        self.set_clocks()
        now = self.clock()
        if slept_ns:
            self.keeper.suspended(now)
            for follower in self.followers:
                follower.suspended(now)
            for lane in self.tier.active:
                self._follow_up(lane)
        held, self._held_back = self._held_back, []
        at_ns: dict[Any, int] = {}
        for run, arguments in held:
            # What one connection or timer has brought stays in its order.
            source = getattr(run, "__self__", None)
            at_ns[source] = max(at_ns.get(source, 0), self.world.now + int(self._random.random() * 2 * MS))
            self.world.at(at_ns[source], self._do, run, *arguments)
        self._until_ns = at_ns
