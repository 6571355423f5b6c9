"""The circuit breaker, with a clock and a random source of the test's own."""

from __future__ import annotations

import pytest

from nearcache.bus import connection
from nearcache.l2.breaker import Breaker, BreakerSettings
from nearcache.options import parse

MS = 1_000_000


class Bench:
    """A breaker and what it depends on."""

    def __init__(self) -> None:
        self.now = 0
        self.draw = 1.0  # where in its range each delay falls: 0.5 to 1.0
        self.breaker = Breaker(BreakerSettings(), clock=lambda: self.now, uniform=self.uniform)

    def uniform(self, low: float, high: float) -> float:
        """Stand in for random.uniform."""
        assert (low, high) == (0.5, 1.0)
        return self.draw

    def admit(self) -> bool:
        """Ask for a call that takes at most a second."""
        return self.breaker.admit(1000 * MS)


@pytest.fixture
def bench() -> Bench:
    """A closed breaker at instant 0."""
    return Bench()


def test_breaker_at_the_start_is_closed_and_quiet(bench: Bench) -> None:
    """Calls pass, and nobody need even ask."""
    assert bench.breaker.quiet
    assert bench.breaker.state == "closed"
    assert bench.breaker.retry_in_ns() == 0
    assert bench.admit()


def test_breaker_after_one_certain_failure_opens(bench: Bench) -> None:
    """Nobody listens there: asking again at once is no use."""
    bench.breaker.fail(certain=True)
    assert bench.breaker.state == "open"
    assert not bench.breaker.quiet
    assert not bench.admit()
    assert bench.breaker.retry_in_ns() == 50 * MS


def test_breaker_after_one_lost_answer_stays_closed(bench: Bench) -> None:
    """It takes two in a row."""
    bench.breaker.fail(certain=False)
    assert bench.breaker.state == "closed"
    assert bench.admit()
    bench.breaker.fail(certain=False)
    assert bench.breaker.state == "open"


def test_breaker_between_two_lost_answers_a_success_counts(bench: Bench) -> None:
    """In a row means in a row."""
    bench.breaker.fail(certain=False)
    bench.breaker.succeed()
    assert bench.breaker.quiet
    bench.breaker.fail(certain=False)
    assert bench.breaker.state == "closed"


def test_breaker_after_its_delay_admits_one_probe(bench: Bench) -> None:
    """The others are refused until the probe has reported."""
    bench.breaker.fail(certain=True)
    bench.now = 50 * MS - 1
    assert not bench.admit()
    bench.now = 50 * MS
    assert bench.breaker.state == "half-open"
    assert bench.admit()
    assert bench.breaker.state == "half-open"
    assert not bench.admit()


def test_breaker_closes_when_the_probe_succeeds(bench: Bench) -> None:
    """All calls pass again, and the next delay begins small."""
    bench.breaker.fail(certain=True)
    bench.now = 50 * MS
    assert bench.admit()
    bench.breaker.succeed()
    assert bench.breaker.quiet
    assert bench.admit()
    bench.breaker.fail(certain=True)
    assert bench.breaker.retry_in_ns() == 50 * MS


def test_breaker_doubles_its_delay_up_to_the_longest(bench: Bench) -> None:
    """50 ms, 100, 200 ... 800 ms, 800 ms."""
    delays = []
    for _ in range(7):
        bench.breaker.fail(certain=False)
        bench.breaker.fail(certain=False)
        delays.append(bench.breaker.retry_in_ns() // MS)
        bench.now += bench.breaker.retry_in_ns()
        assert bench.admit()
    assert delays == [50, 100, 200, 400, 800, 800, 800]


def test_breaker_after_a_probe_that_was_lost_stays_open_for_several_times_as_long(bench: Bench) -> None:
    """A silent server costs each probe its time-out, however long that is."""
    bench.breaker.fail(certain=True)
    bench.now += bench.breaker.retry_in_ns()
    for took, pause in ((1000 * MS, 7000 * MS), (30_000 * MS, 7000 * MS), (0, 400 * MS)):
        assert bench.admit()
        bench.now += took
        bench.breaker.fail(certain=False)
        assert bench.breaker.retry_in_ns() == pause
        bench.now += pause


def test_longest_pause_and_one_attempt_are_over_in_two_seconds() -> None:
    """At worst a fault ends when an attempt has just been lost to it; the next one comes after that one and a pause."""
    attempt = parse("redis://a").connect_timeout
    assert attempt + BreakerSettings().longest_delay_ns / 1e9 < 2.0
    assert attempt + connection._BACKOFF_MOST_S < 2.0


def test_breaker_admits_no_probe_while_the_listener_goes_on_to_try_in_vain(bench: Bench) -> None:
    """Its next try is over before one would be due; without another one calls try again."""
    bench.breaker.fail(certain=True)
    for _ in range(5):
        bench.breaker.put_off(1000 * MS)
        assert bench.breaker.retry_in_ns() == 3600 * MS
        bench.now += 1800 * MS
        assert not bench.admit()
    bench.now += 1800 * MS
    assert bench.admit()


def test_breaker_that_is_closed_or_admits_later_is_not_put_off(bench: Bench) -> None:
    """One try says no more than one lost answer; nor is a probe due earlier because of it."""
    bench.breaker.put_off(1000 * MS)
    assert bench.admit()
    bench.breaker.fail(certain=True)
    bench.now += bench.breaker.retry_in_ns()
    assert bench.admit()
    bench.now += 1000 * MS
    bench.breaker.fail(certain=False)
    bench.breaker.put_off(1000 * MS)
    assert bench.breaker.retry_in_ns() == 7000 * MS


def test_breaker_delay_is_jittered_downwards(bench: Bench) -> None:
    """Between half and all of it, as the random source says."""
    bench.draw = 0.5
    bench.breaker.fail(certain=True)
    assert bench.breaker.retry_in_ns() == 25 * MS


def test_breaker_failures_while_open_change_nothing(bench: Bench) -> None:
    """Calls that began before it opened tell nothing new."""
    bench.breaker.fail(certain=True)
    bench.now = 10 * MS
    bench.breaker.fail(certain=True)
    assert bench.breaker.retry_in_ns() == 40 * MS


def test_breaker_success_while_open_closes_it(bench: Bench) -> None:
    """Whatever proves the server alive counts, such as the listener's reconnect."""
    bench.breaker.fail(certain=True)
    bench.breaker.succeed()
    assert bench.breaker.quiet


def test_breaker_whose_probe_never_reports_admits_another(bench: Bench) -> None:
    """A thread can be interrupted between asking and reporting."""
    bench.breaker.fail(certain=True)
    bench.now = 50 * MS
    assert bench.admit()
    bench.now += 1000 * MS - 1
    assert not bench.admit()
    bench.now += 1
    assert bench.admit()


def test_breaker_after_a_fork_admits_a_probe_of_the_child(bench: Bench) -> None:
    """The parent's probe does not report to the child."""
    bench.breaker.fail(certain=True)
    bench.now = 50 * MS
    assert bench.admit()
    bench.breaker.after_fork()
    assert bench.admit()
