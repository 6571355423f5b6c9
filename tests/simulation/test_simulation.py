"""The simulation itself: a million events without a broken promise, and seeds that once found something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from simulation import campaign, faults
from simulation.mutants import MUTANTS, Mutant, switched_off
from simulation.runs import BEHIND, FLUSHING_FROM, FULLER_FROM, NEWEST_FROM, STRAYING_FROM, Plan, simulate
from simulation.shrink import Shrunk, kind_of, places_in

#: Events for each number of shards; with those of the fullest and the newest seeds a million together.
EVENTS: Final = 275_000
#: Most seeds that finding a mutant may take, from where it was found last.
SEEDS: Final = 60

#: Seed -> what it found in the code, when it was mended.
FOUND: Final = {
    9: "a load joined one that began before this process' own invalidation",
    18: "setdefault returned a value of L2 and left an older one in L1",
    20: "a read joined one that was older than the bound, where no message came to tell",
    70: "a load joined one that began before this process had read something newer",
    205: "get_many raised what one shard raised while it asked for a generation again",
    2_000_000: "a shard that had been left could not come back with the next change of the list",
    2_000_120: "a change of the list that others had finished meanwhile ended in an assertion",
    10_000_649: "what was owed was paid to a replaced primary, without a pause and without an end",
    10_001_057: "values of one server were judged by the generation of the replaced one that was heard",
    30_000_336: "a child read what its parent had failed to invalidate",
    30_003_031: "a change was made of a value that a failover had brought back, and stored as if there were none",
    30_005_469: "a value of one server was judged by the generation of another, which was asked for once more",
    30_003_208: "a shard that was left and had forgotten that kept a process from following for ever",
    40_000_944: "a shard that was left had been told as a replaced primary, and who knew of no other one stayed there",
    20_000_019: "nothing counted any more in an epoch that a failover behind a proxy had brought back",
    100_000_305: "a load of what is of no greater age was joined by who came when its value was stored already",
    100_001_347: "a replaced primary that had lost its record began an epoch of its own, and took a payment for good",
    120_002_496: "what was written through was stored over a later one whose hold a failover had lost",
    100_001_220: "a lost record was not told again where the thread that is to do so was about something else",
    500_003_776: "a failover behind a proxy set back what a shard was told of the list, and who came later was refused",
    1_000_006_452: "a failover brought back to a shard what it had been rid of before it gained keys, for good",
    1_000_010_806: "who made a tag's record anew went on serving what others took for absent",
    1_500_004_779: "a value of one server was judged by the generation of another, which a proxy had led to meanwhile",
    400_002_132: "after an owed clear was paid, a value from before it was read until the message came",
}

#: Seed -> what the simulation itself took for a broken promise.
MISTAKEN: Final = {
    3_100_000_100: "a list of shards was waited for that somebody who had been asked earlier had put back meanwhile",
    220_002_095: "what another client had asked a new primary for was judged by the one before",
    900_000_904: "who had been let in by a server that had forgotten the list of shards counted as having told all",
    800_000_384: "what was invalidated at the other owner when a tag had got a record was to be kept by a replica",
    200_003_268: "a process had gone to fewer shards when it turned out that nobody listened at one of the old",
    200_000_287: "what a zombie had given was judged by its successor, because the zombie ended it a little later",
    120_004_171: "a tag's record, which takes its values along when it is lost, counted as a change that a replica had",
    60_000_056: "a tag whose record had moved was alive for those who looked where it had been",
    60_000_452: "zero was a value like others, though a loader brings it again and again",
    60_001_832: "copies that may be served of shards that are out were kept for the first shards only",
    30_000_262: "a failover behind a proxy had brought back what had been lost before",
    30_002_432: "a shard that somebody had left forgot that, and one who was behind knew no better",
    30_004_507: "what a WAIT answers counted as seen of the lane",
    60_001_093: "a value that was given a longer life was due as early as before",
    60_001_775: "a value that one server had returned was judged by the next one, which was asked about it",
    60_001_850: "word of a reset came too late, and no deadline before it",
    60_002_080: "commands were carried out twice whose scripts were all unknown to the server",
    60_003_812: "a change that took long was looked for where it had begun",
    60_004_636: "who looked for the list of shards had seen the keys",
    60_002_388: "a process with a list of shards that was over was not started anew",
    40_001_390: "a load went by a tag's generation on a primary that had just stopped, as it may for B",
    40_003_015: "a hit was judged by who took over from a primary that had just stopped, and that was heard still",
    20_001_037: "a read that was waited for was judged by another server than the one that had answered it",
    1_000_002_074: "what waited in a queue when a load asked was judged by when who joined it did",
    1_000_004_634: "who gave a lock back to a server that had just taken over was taken to have told it of the change",
    1_000_005_668: "what was written to the source, and owed to the cache, was to be kept by a replica of the cache",
    1_000_005_846: "a change that had left its queue, and was brought back by a failover, counted as one that waits",
    1_500_001_623: "whether a lock had ended was asked of the server that had given it, and that was replaced",
    1_500_002_259: "what a replaced primary had been told, once the writer had failed, counted as told to the next one",
    1_500_006_645: "what a failover lost along with its burial was to be ended by who had buried it",
    2_000_001_903: "a lock that was lost with the server that had given it, in the middle of one request, had ended",
    2_000_004_457: "what somebody else's reading of many had brought was judged by the server that is heard",
    2_000_005_600: "what was evicted for a loaded value was taken for loaded without a lease",
    500_004_053: "a lane's record, made anew before a tag's, counted as a change that a replica had",
    3_000_000_131: "renewals did nothing where the server knew their script by its hash from a call",
    100_001_339: "what a verb pays before it does anything was taken for its own change, which a replica had confirmed",
}


def kept(first: int, events: int, shards: int | None = None) -> campaign.Totals:
    """Run seeds from the first one on, each of which has to keep every promise, and return what they came to."""
    totals = campaign.run(first, events, shards=shards)
    print(totals)
    for seed, _ in totals.failed[:1]:
        pytest.fail(campaign.explain(seed, shards))
    return totals


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_simulation_many_seeds_keep_every_promise(shards: int) -> None:
    """No seed breaks a promise, whatever the faults; a failure is shrunk and says how to see it again."""
    totals = kept(shards * 1_000_000, EVENTS, shards)
    assert totals.events >= EVENTS
    assert {f"I{number}" for number in (1, 3, 4, 5, 6, 7, 8, 12)} <= set(totals.rules)
    assert set(totals.faults) - {"reshard"} == set(faults.KINDS)


@pytest.mark.slow
def test_simulation_fullest_seeds_keep_every_promise() -> None:
    """The same of those that do everything."""
    totals = kept(FULLER_FROM, EVENTS // 3)
    assert {"I7", "I13", "I18"} <= set(totals.rules)


@pytest.mark.slow
def test_simulation_newest_seeds_keep_every_promise() -> None:
    """The same of those with locks, writing behind the cache, and confirmation while the list of shards changes."""
    totals = kept(NEWEST_FROM, EVENTS // 6)
    assert {"I6", "I13", "I16", "W1", "W2", "W3"} <= set(totals.rules)
    assert "forgetful zombie" in totals.faults


@pytest.mark.slow
def test_simulation_flushing_seeds_keep_every_promise() -> None:
    """The same of those that flush, put dead letters back, and do not always renew leases and locks."""
    totals = kept(FLUSHING_FROM, EVENTS // 6)
    assert {"I6", "W1", "W4", "W5"} <= set(totals.rules)


@pytest.mark.slow
def test_simulation_straying_seeds_keep_every_promise() -> None:
    """The same of those in which an address leads to an empty server for a while."""
    totals = kept(STRAYING_FROM, EVENTS // 6)
    assert {"I1", "I4", "I5", "I8"} <= set(totals.rules)
    assert "led astray" in totals.faults


@pytest.mark.parametrize("seed", [*FOUND, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MISTAKEN)])
def test_simulation_seed_that_found_something_keeps_every_promise(seed: int) -> None:
    """What was found once does not come back."""
    outcome = simulate(Plan.of(seed))
    assert not outcome.failed, campaign.explain(seed)


@pytest.mark.parametrize("seed", [300_000_028, 300_000_063, 300_000_357])
def test_simulation_load_that_was_stopped_may_be_joined_by_who_comes_then(seed: int) -> None:
    """It was given a value that waits to be written; the simulation took that for too old, where it takes no other."""
    outcome = simulate(Plan.under(seed, ("paused",), (BEHIND,)))
    assert not outcome.failed, outcome.violation or outcome.crash


def test_simulation_failover_that_loses_a_repayment_is_repaired() -> None:
    """What a failover lost is invalidated again, and again if the next failover loses that."""
    plan = Plan.under(27, ("zombie", "failover"))
    outcome = simulate(plan)
    assert not outcome.failed, outcome.violation or outcome.crash


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_simulation_rule_switched_off_is_noticed(mutant: Mutant) -> None:
    """Without the rule, one of the promises that rest on it is broken within a few seeds."""
    with switched_off(mutant):
        for seed in range(mutant.first, mutant.first + SEEDS):
            outcome = simulate(Plan.under(seed, mutant.faults, mutant.busy))
            if outcome.failed:
                break
    print(f"seed {seed}: {outcome.violation or outcome.crash!r}")
    assert kind_of(outcome) in mutant.rules.split(), outcome.crash or outcome.violation
    assert not simulate(Plan.under(seed, mutant.faults, mutant.busy)).failed, "it fails with the rule, too"


REPLAY: Final = """
import sys
import time
time.clock_getres = lambda clock: {resolution}
sys.path[:0] = {paths!r}
from simulation.runs import Plan, simulate
print(*(simulate(Plan.of(seed)).digest for seed in {seeds}))
"""
#: Of the last one the list of shards changes, which the shards are told in some order.
REPLAYED: Final = (3, 107, 300_000_008)


def test_simulation_same_seed_other_interpreter_does_the_same() -> None:
    """A run depends on its seed alone: not on an interpreter's hashes, or the machine's clock and its resolution."""
    here = " ".join(str(simulate(Plan.of(seed)).digest) for seed in REPLAYED)
    for hashes, resolution in (("1", 0.001), ("2", 0.004)):
        code = REPLAY.format(paths=[str(Path(__file__).parents[1])], resolution=resolution, seeds=REPLAYED)
        environment = os.environ | {"PYTHONHASHSEED": hashes}
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=120
        )
        assert result.stdout.strip() == here


def test_shrink_failing_run_stays_failing_and_gets_small() -> None:
    """What is left breaks the same rule, and is a fraction of what the seed had."""
    mutant = next(each for each in MUTANTS if each.name == "messages drop nothing")
    with switched_off(mutant):
        plan = next(
            plan
            for plan in (Plan.under(seed, mutant.faults) for seed in range(mutant.first, mutant.first + SEEDS))
            if simulate(plan).failed
        )
        whole = simulate(plan)
        shrunk = Shrunk(plan, whole, budget=60)
        assert kind_of(shrunk.outcome) == kind_of(whole)
        assert len(shrunk.operations) < len(plan.operations) / 4
        command = shrunk.command()
        operations = places_in(command.split("--operations ")[1].split(" ")[0])
        again = simulate(plan.only(operations, places_in(command.split("--faults ")[1])))
    assert again.digest == shrunk.outcome.digest
    assert any("is violated" in line for line in shrunk.outcome.lines)


def test_places_listed_are_read_back() -> None:
    """Ranges and single numbers, and the sign for nothing."""
    assert places_in("3,7-9,12") == {3, 7, 8, 9, 12}
    assert places_in("-") == set()
