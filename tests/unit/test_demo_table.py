"""What the demo shows: numbers, tables, summary and verdict."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from demo import board as layout
from demo import histogram, summary, table, wording
from demo.job import NEARCACHE, NO_CACHE, REDIS
from demo.reading import ChangerReading, Evidence, PhaseReading, WorkerReading
from demo.screen import Screen

KEYS = ["json", "http.client"]


def durations(*pairs: tuple[int, int]) -> list[int]:
    """Return a histogram of (duration, how often)."""
    counts = [0] * histogram.SIZE
    for duration_ns, times in pairs:
        counts[histogram.bucket_of(duration_ns)] += times
    return counts


def worker(l1: int = 0, l2: int = 0, loader: int = 0) -> WorkerReading:
    """Return a worker that was answered so often by each tier."""
    tiers = [durations((300, l1)), durations((150_000, l2)), durations((30_000_000, loader))]
    return WorkerReading(tiers=tiers, loads=loader)


def phase(name: str, *workers: WorkerReading, seconds: float = 10.0) -> PhaseReading:
    """Return a phase with some workers."""
    return PhaseReading(name, seconds, list(workers), ChangerReading(12, 0, 0, 0, False, durations((200_000, 12))))


def too_old() -> WorkerReading:
    """Return a worker with a read that broke the promise."""
    late = Evidence(page=1, version=4, current=6, began_ns=15_500_000_000, superseded_ns=12_000_000_000)
    return replace(worker(100), outdated=3, too_old=1, oldest_ns=3_500_000_000, evidence=[late])


@pytest.mark.parametrize(
    ("ns", "text"),
    [(None, "-"), (0, "0.0 us"), (432, "0.4 us"), (12_345, "12 us"), (999_600, "1.0 ms"), (1_250_000, "1.2 ms"),
     (999_400_000, "999 ms"), (1_340_000_000, "1.3 s"), (75_000_000_000, "75 s")],
)  # fmt: skip
def test_duration_has_the_unit_that_fits(ns: int | None, text: str) -> None:
    """Durations are short and carry their unit."""
    assert wording.duration(ns) == text


@pytest.mark.parametrize(
    ("part", "text"),
    [(None, "-"), (0, "0 %"), (1, "100 %"), (0.5, "50.00 %"), (0.999999, "99.99 %"), (0.0000001, "0.01 %")],
)
def test_percent_is_never_rounded_to_all_or_nothing(part: float | None, text: str) -> None:
    """Only what is complete is 100 %, only nothing is 0 %."""
    assert wording.percent(part) == text


def test_columns_line_up() -> None:
    """The first column is left-aligned, the others right-aligned."""
    assert wording.columns([("a", "requests"), ("worker 1", "7")]) == ["a         requests", "worker 1         7"]


def test_live_table_shows_processes_and_tiers() -> None:
    """Each worker, all of them together, and each tier have a row; nothing is wider than 100 columns."""
    busy = replace(
        worker(12_345_678, 1_234_567, 12_345), lag=durations((900_000_000, 5)), outdated=9_999_999,
        too_old=123_456, oldest_ns=3_900_000_000, wrong=123, errors=123,
    )  # fmt: skip
    lines = table.live(phase(NEARCACHE, busy, busy), 3, 3, 30.0, ["12.0 s  shard 0 killed"])
    text = "\n".join(lines)
    assert max(len(line) for line in lines) <= wording.WIDTH
    for expected in ("Phase 3 of 3", "worker 1", "worker 2", "all  ", "L1,", "L2,", "the loader", "shard 0 killed"):
        assert expected in text
    assert "24,691,356" in text


def test_live_table_on_a_narrow_terminal_leaves_columns_out() -> None:
    """On 80 columns the table still fits, without columns that other lines make up for."""
    busy = replace(worker(1_234_567, 123_456, 1_234), lag=durations((900_000_000, 5)), outdated=12, oldest_ns=10**9)
    lines = table.live(phase(NEARCACHE, busy, busy), 3, 3, 30.0, (), 79)
    assert max(len(line) for line in lines) <= 79
    (head,) = (line for line in lines if line.startswith("process"))
    assert "lag p99" in head
    assert "oldest" not in head


def test_live_table_of_a_phase_that_has_not_begun_is_empty() -> None:
    """Before the first request there are no ratios and no percentiles, and no error."""
    text = "\n".join(table.live(phase(NO_CACHE, worker(), seconds=0.0), 1, 3, 9.0, ()))
    assert "worker 1" in text
    assert "L1, a worker's memory" not in text


def test_plain_line_tells_the_state_of_a_phase() -> None:
    """Where there is no terminal, one line says it all."""
    line = table.plain(phase(REDIS, worker(l2=90, loader=10)), 21.0)
    assert "100 requests" in line
    assert "hits 90.00 %" in line
    assert len(line) <= 110


def test_summary_puts_the_phases_side_by_side() -> None:
    """One column for each phase; what a phase has no part in is a dash."""
    phases = [
        phase(NO_CACHE, worker(loader=10)),
        phase(REDIS, worker(l2=900, loader=100)),
        phase(NEARCACHE, worker(9_999)),
    ]
    lines = summary.comparison(phases, 2.0)
    by_title = {line.strip().split("  ")[0]: line for line in lines}
    assert by_title["requests"].split()[1:] == ["10", "1,000", "9,999"]
    assert (
        by_title["answered by L1"].split()[-3:] == ["-", "-", ["100", "%"][0]] or "100 %" in by_title["answered by L1"]
    )
    assert len({len(line) for line in lines[1:]}) == 1
    assert summary.gain(phases) == [
        "nearcache answered 1,000 times as many requests per second as no cache.",
        "nearcache answered 10 times as many requests per second as Redis alone.",
    ]


def test_verdict_without_a_late_read_is_passed() -> None:
    """All is well when no read broke the bound, also when some were outdated within it."""
    kept, lines = summary.verdict(phase(NEARCACHE, replace(worker(100), outdated=1, oldest_ns=1_200_000)), KEYS, 2.0)
    assert kept
    assert lines[0].startswith("PASSED: all 100 reads")
    assert "1.2 ms" in lines[1]


def test_verdict_with_a_late_read_names_key_versions_and_times() -> None:
    """A failure says which page, which versions, when it began and when the version was superseded."""
    kept, lines = summary.verdict(phase(NEARCACHE, worker(5), too_old()), KEYS, 2.0)
    assert not kept
    assert lines[0].startswith("FAILED: 1 of 105 reads returned")
    text = "\n".join(lines)
    for expected in ("worker 2", "'http.client'", "version 4", "has 6", "12.000000 s", "15.500000 s", "3.5 s after"):
        assert expected in text
    assert max(len(line) for line in lines) <= wording.WIDTH


def test_verdict_with_a_wrong_page_is_a_failure() -> None:
    """A read of something that is not the page fails too."""
    odd = Evidence(page=0, version=0, current=2, began_ns=1, superseded_ns=0)
    kept, lines = summary.verdict(phase(NEARCACHE, replace(worker(5), wrong=1, evidence=[odd])), KEYS, 2.0)
    assert not kept
    assert "never was such a version" in lines[3]


def test_reading_of_a_slot_finds_every_field() -> None:
    """What a worker writes into its slot is what the parent reads."""
    slot = [0] * layout.SLOT_WORDS
    slot[layout.LOADS], slot[layout.ERRORS], slot[layout.OLDEST_NS] = 3, 2, 5
    slot[layout.histogram_start(layout.L2) + 40] = 9
    slot[layout.histogram_start(layout.LAG) + 41] = 4
    reading = WorkerReading.from_slot(slot)
    assert (reading.loads, reading.errors, reading.oldest_ns, reading.requests) == (3, 2, 5, 9)
    assert reading.answered_by(layout.L2) == 9
    assert histogram.total(reading.lag) == 4


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def test_screen_on_a_terminal_draws_over_what_it_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second table takes the place of the first, and lines that stay go above it."""
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    screen = Screen(terminal)
    screen.draw(["one", "two"])
    screen.draw(["three"])
    screen.say("stays")
    assert terminal.getvalue().count("\x1b[2A") == 1
    assert terminal.getvalue().endswith("stays\n\x1b[2Kthree\n\x1b[J")


def test_screen_elsewhere_writes_no_control_character() -> None:
    """Output to a file is plain."""
    stream = io.StringIO()
    Screen(stream).say("a line", bold=True)
    assert stream.getvalue() == "a line\n"


def test_screen_whose_reader_has_gone_is_broken_and_silent() -> None:
    """A closed pipe is noticed, and is no exception."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    screen = Screen(Closed())
    screen.say("a line")
    screen.say("another")
    assert screen.broken
