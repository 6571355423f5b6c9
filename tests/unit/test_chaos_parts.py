"""The pure parts of a chaos run: records, frames, the schedule, rules, figures and the figure in letters."""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from chaos import faults, figures, options, picture, starving
from chaos import records as r
from chaos.frames import FrameError, Splitter, frame_end, is_message
from chaos.job import TAGS, key_name, key_number, tag_name, tag_of, tags_of
from chaos.nemesis import Happening, network_rule
from chaos.proxy import DATA, DOWN, SUBSCRIPTION, UP, Route, Rule, to_json
from chaos.watched import is_refused

S = 1_000_000_000

# -- caches that have to be opened anew ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vouched", "last_error", "refused"),
    [
        (False, "the server replied 'NCTOPO 4-bdd1428ad635dedc'", True),
        (True, "the server replied 'NCTOPO 4-bdd1428ad635dedc'", False),  # it was, on its way to another list
        (False, "cannot connect", False),
    ],
)
def test_cache_on_a_list_that_was_left_is_told_from_one_that_is_dark(
    vouched: bool, last_error: str, refused: bool
) -> None:
    """Only the former is opened anew; of the latter it is to be judged whether it recovers."""
    shards = [SimpleNamespace(vouched=True, last_error=""), SimpleNamespace(vouched=vouched, last_error=last_error)]
    assert is_refused(SimpleNamespace(health=lambda: SimpleNamespace(shards=shards))) is refused


# -- records -----------------------------------------------------------------------------------------------------


def test_recorder_what_was_begun_is_in_the_file_at_once(tmp_path: Path) -> None:
    """A process that is killed in the middle of a write leaves the question behind; buffered reads may be lost."""
    recorder = r.Recorder(tmp_path, 7, 2)
    value = recorder.new_value()
    recorder.done(r.GET, r.OK, r.L1, 5, value, 10, 11)
    assert len(r.read_all(tmp_path)) == 0
    recorder.begin(r.SET, 5, value, 12, ttl_ms=99)
    assert r.read_all(tmp_path)["op"].tolist() == [r.GET, r.SET]
    recorder.done(r.SET, r.OK, r.UNKNOWN, 5, value, 12, 13)
    recorder.close()
    last = r.read_all(tmp_path)[-1]
    assert (last["process"], last["thread"], last["key"], last["value"], last["to_ns"]) == (7, 2, 5, value, 13)


def test_read_all_half_a_record_is_left_out(tmp_path: Path) -> None:
    """A kill may come in the middle of a write to the file."""
    recorder = r.Recorder(tmp_path, 1, 0)
    recorder.begin(r.SET, 1, 1, 1)
    recorder.close()
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes() + b"half")
    assert len(r.read_all(tmp_path)) == 1


def test_payload_of_any_size_is_read_back_and_damage_is_seen() -> None:
    """A value names itself and its key; a torn, mixed or foreign one is no value."""
    value = r.value_id(300, 5, 12)
    assert r.maker(value) == 300
    for size in (0, 1, 9_000):
        data = r.payload(value, 17, size)
        assert r.read_payload(data, 17) == value
        assert r.read_payload(data, 18) is None
    assert r.read_payload(data[:-1] + b"?", 17) is None
    assert r.read_payload(data[:5], 17) is None
    assert r.read_payload("text", 17) is None


def test_starving_longest_wait_of_one_thread_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads come and go; one that is new has not waited yet. Where the kernel does not count, nobody waits."""

    def wait(**delays: int) -> None:
        for thread, delay_ns in delays.items():
            (tmp_path / thread).mkdir(exist_ok=True)
            (tmp_path / thread / "schedstat").write_text(f"100 {delay_ns} 3\n")

    monkeypatch.setattr(starving, "_TASKS", tmp_path)
    (tmp_path / "ended").mkdir()
    assert starving.Starving().most_ns() == 0
    wait(one=1_000, other=5_000)
    clock = starving.Starving()
    wait(one=1_700, other=5_100, late=9_000)
    assert clock.most_ns() == 700
    assert clock.most_ns() == 0
    wait(late=9_050)
    assert clock.most_ns() == 50


def test_tag_name_keys_have_one_or_none_and_every_tag_has_keys() -> None:
    """And the record of one is told from that of a key and of all keys."""
    found = {tag_of(key) for key in range(400)}
    assert found == {-1, *range(TAGS)}
    assert all(tags_of(key) == ([] if tag_of(key) < 0 else [tag_name(tag_of(key))]) for key in range(400))
    wide = [r.tagged(tag) for tag in range(TAGS)] + [r.ALL_KEYS]
    assert r.is_wide(np.array([0, 399, *wide])).tolist() == [False, False] + [True] * len(wide)
    assert len(set(wide)) == len(wide)


def test_key_name_every_number_comes_back() -> None:
    """Names and numbers are one to one."""
    assert [key_number(key_name(key)) for key in (0, 9, 400)] == [0, 9, 400]


# -- frames ------------------------------------------------------------------------------------------------------

MESSAGE = b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$5\r\na\r\nbc\r\n"
FRAMES = [
    b"+OK\r\n", b":12\r\n", b"-ERR no\r\n", b"_\r\n", b"$-1\r\n", b"$0\r\n\r\n", b"*0\r\n", b"*-1\r\n", MESSAGE,
    b"*2\r\n*2\r\n:1\r\n$2\r\nab\r\n+x\r\n", b"%1\r\n+key\r\n~1\r\n#t\r\n", b",1.5\r\n", b"=7\r\ntxt:abc\r\n",
]  # fmt: skip


def test_splitter_any_division_gives_the_same_frames() -> None:
    """However the bytes come, whole frames go out, each once and in order."""
    choose = random.Random(5)
    for _ in range(300):
        chosen = choose.choices(FRAMES, k=12)
        data, splitter, found = b"".join(chosen), Splitter(), []
        while data:
            size = choose.randrange(1, 30)
            found += splitter.feed(data[:size])
            data = data[size:]
        assert found == chosen


def test_frame_end_what_begins_no_frame_is_refused() -> None:
    """A rule may come in the middle of a frame: that must show."""
    for data in (b"bc\r\n$3", b"*x\r\n"):
        with pytest.raises(FrameError):
            frame_end(data)


def test_is_message_only_what_was_published() -> None:
    """Answers, and the confirmation of a subscription, are none."""
    assert is_message(MESSAGE)
    assert not any(is_message(frame) for frame in FRAMES if frame is not MESSAGE)
    assert not is_message(b">3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n")


# -- the schedule ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", faults.TOPOLOGIES)
def test_schedule_same_seed_gives_the_same_faults_and_another_others(topology: str) -> None:
    """A run can be repeated from the seed that it printed."""
    first, again, other = (faults.schedule(seed, 300, topology, 3, 4, 2.5) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("topology", faults.TOPOLOGIES)
def test_schedule_long_run_has_every_kind_and_no_track_overlaps(topology: str) -> None:
    """In peace first; every kind there is; what strikes the same thing comes one after the other."""
    drawn = faults.schedule(3, 900, topology, 3, 4, 2.5)
    assert {fault.kind.name for fault in drawn} == {k.name for k in faults.KINDS if topology in k.topologies}
    assert min(fault.at_s for fault in drawn) >= 5
    assert max(fault.at_s + fault.for_s for fault in drawn) <= 900
    for track in faults.TRACKS:
        mine = [fault for fault in drawn if fault.kind.track == track]
        assert all(one.at_s + one.for_s <= two.at_s for one, two in itertools.pairwise(mine))


def test_schedule_only_some_kinds_gives_those() -> None:
    """One kind alone can be looked at."""
    drawn = faults.schedule(1, 60, faults.SINGLE, 1, 4, 2.5, only=["flush"])
    assert {fault.kind.name for fault in drawn} == {"flush"}


def test_network_rule_every_kind_of_network_fault_has_one_that_travels() -> None:
    """A rule goes to the proxy as JSON and is the same there."""
    for number, kind in enumerate(kind for kind in faults.KINDS if kind.track == faults.NETWORK):
        fault = faults.Fault(number, kind, 0.0, 1.0, 2, wide=True)
        rule = network_rule(fault, random.Random(number), 1.0)
        assert rule.servers == (2,)
        assert Rule.from_dict(json.loads(json.dumps(to_json(rule)))) == rule


def test_rule_empty_conditions_concern_everybody() -> None:
    """And each condition narrows it."""
    route = Route(server=1, worker=2, listen="", target="")
    assert Rule().concerns(route, DATA, UP)
    narrow = Rule(servers=(1,), workers=(2,), kinds=(SUBSCRIPTION,), directions=(DOWN,))
    assert narrow.concerns(route, SUBSCRIPTION, DOWN)
    assert not narrow.concerns(route, DATA, DOWN)
    assert not narrow.concerns(route, SUBSCRIPTION, UP)
    assert not Rule(servers=(0,)).concerns(route, DATA, UP)


@pytest.mark.parametrize("words", ["--seconds 0", "--workers 0", "--max-staleness 0.01", "--mute --topology cluster"])
def test_options_that_make_no_sense_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With status 2 and what is allowed."""
    with pytest.raises(SystemExit) as refused:
        options.parse(words.split())
    assert refused.value.code == 2
    assert "error:" in capsys.readouterr().err


# -- figures -----------------------------------------------------------------------------------------------------


def test_percentiles_are_values_that_were_seen() -> None:
    """The smallest value that so many do not exceed; nothing gives zeros."""
    assert figures.percentiles(np.arange(1, 1_001)) == (500, 990, 999, 1_000)
    assert figures.percentiles(np.array([7])) == (7, 7, 7, 7)
    assert figures.percentiles(np.array([])) == (0, 0, 0, 0)


def test_united_spans_do_not_overlap_and_cover_the_same() -> None:
    """An instant is inside if it was inside any."""
    spans = figures.united([(5, 9), (0, 3), (8, 12), (3, 4)])
    assert spans == [(0, 4), (5, 12)]
    assert figures.inside(np.array([0, 3, 4, 5, 11, 12]), spans).tolist() == [True, True, False, True, True, False]


def history(*rows: tuple[int, ...]) -> np.ndarray:
    """Records of ``(op, tier, process, key, value, from_s)`` that ended well and took no time."""
    return np.array(
        [(op, r.OK, tier, 0, key, process, 0, value, at * S, at * S) for op, tier, process, key, value, at in rows],
        r.RECORD,
    )


def test_rows_reads_are_counted_where_they_fall() -> None:
    """In peace, or while a fault was there or still felt; a hit's staleness goes the same way."""
    told = history(*[(r.GET, r.L1, 2, 0, 1, at) for at in range(10)], (r.GET, r.BELOW, 2, 0, 1, 5))
    hits = told[:10]
    stale = np.array([0, 0, 0, 0, 0, 6 * S, 0, 0, 0, 0])
    peace, fault = figures.rows(told, hits, stale, [Happening("flush", "server 0", 5 * S, 6 * S)], 0, 10 * S, 1 * S)
    assert (peace.kind, peace.reads, peace.hits, peace.stale_hits, peace.hit_ratio) == (figures.PEACE, 8, 8, 0, 1.0)
    assert (fault.kind, fault.reads, fault.hits, fault.stale_hits, fault.stale_ns[-1]) == ("flush", 3, 2, 1, 6 * S)
    assert fault.calls_per_s == 1.5


def test_darkness_first_dark_and_last_back_are_measured_from_the_faults_ends() -> None:
    """A process that has just started and is not vouched for yet has not been darkened."""
    changes = figures.health_changes(
        history(
            (r.HEALTH, 0, 2, 0, 1, 0), (r.HEALTH, 0, 3, 0, 1, 0), (r.HEALTH, 0, 9, 0, 0, 10),
            (r.HEALTH, 0, 2, 0, 0, 12), (r.HEALTH, 0, 3, 0, 0, 13), (r.HEALTH, 0, 9, 0, 1, 14),
            (r.HEALTH, 0, 2, 0, 1, 20), (r.HEALTH, 0, 3, 0, 1, 22),
        )
    )  # fmt: skip
    assert figures.darkness(changes, Happening("x", "", 10 * S, 19 * S), 5 * S) == (2 * S, 3 * S)
    assert figures.darkness(changes, Happening("x", "", 30 * S, 31 * S), 5 * S) == (None, None)


def test_text_figure_shows_height_bound_and_faults() -> None:
    """What is over B stands above its line; digits count the faults of each moment."""
    times, stale = np.array([1, 5, 9]) * S, np.array([0.1, 1.0, 1.3]) * S
    lines = picture.text(times, stale.astype(np.int64), [Happening("x", "", 5 * S, 6 * S)], 0, 10 * S, S, width=10)
    assert lines[0] == " over B |         !"
    assert lines[1] == "      B |-----#---#"
    assert lines[8] == "      0 | #   #   #"
    assert lines[9] == " faults |.....11..."


def test_worst_outside_the_run_is_not_drawn() -> None:
    """Reads before the faults and after them belong to nobody's bucket."""
    found = picture.worst(np.array([-1, 0, 5, 10]), np.array([9, 1, 2, 9]), 0, 10, 2)
    assert found.tolist() == [1, 2]


def test_draw_without_matplotlib_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes with an extra; a run goes on without the picture."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="matplotlib"):
        picture.draw(tmp_path / "figure.png", "title", np.array([S]), np.array([S]), [], 0, 2 * S, S)
    assert list(tmp_path.iterdir()) == []
