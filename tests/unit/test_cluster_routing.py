"""The course of exchanges through a cluster, against nodes that answer as they are told; no network, no time."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.errors import ServerReplyError, ShardUnavailableError
from nearcache.l2 import Exchange, Reply, load_script
from nearcache.l2.clustermap import NOWHERE
from nearcache.l2.routing import Pause, Refresh
from support.courses import READ, SECOND, WRITE, Scene, replies


def test_exchanges_of_one_node_go_in_one_batch() -> None:
    """However many lanes there are; each gets its own share of the answers."""
    scene = Scene(["a", "b", "a"], lambda host, command: (host, command[1]))
    found = replies(scene.run(Exchange(0, [(b"GET", b"x")]), Exchange(1, [(b"GET", b"y")]), Exchange(2, READ)))
    assert sorted(scene.sent) == [("a", [b"GET", b"PTTL", b"GET"]), ("b", [b"GET"])]
    assert [reply.values for reply in found] == [[("a", b"x")], [("b", b"y")], [("a", b"k"), ("a", b"k")]]
    assert [reply.identity for reply in found] == [100, 101, 100]


def test_quick_nodes_answers_are_told_before_the_others_have_answered() -> None:
    """Each once, by its place, as it is in the end."""
    scene = Scene(["a", "b", "a"], lambda host, command: host.encode())
    told: list[tuple[int, Any, int]] = []
    found = scene.run(
        Exchange(0, READ), Exchange(1, READ), Exchange(2, READ),
        on_reply=lambda place, reply: told.append((place, reply, len(scene.sent))),
    )  # fmt: skip
    assert told == [(0, found[0], 1), (2, found[2], 1), (1, found[1], 2)]


def test_answer_that_leads_elsewhere_is_not_told_until_it_is_followed() -> None:
    """What is told is final and whole: a piece of it, which comes by ASK, is waited for."""

    def answer(host: str, command: Any) -> Any:
        if host == "a":
            return "MOVED 0 b:7000"
        if host == "c" and command[0] == b"GET":
            return "ASK 1 d:7000"
        return host.encode()

    scene = Scene(["a", "c", "d"], answer)
    told: list[tuple[int, Any]] = []
    found = scene.run(
        Exchange(0, READ), Exchange(1, READ), Exchange(2, READ),
        on_reply=lambda place, reply: told.append((place, reply)),
    )  # fmt: skip
    assert [place for place, _ in told] == [0, 1, 2]
    assert all(reply == found[place] for place, reply in told)
    assert [reply.values for reply in replies(found)] == [[b"b", b"b"], [b"c", b"d"], [b"d", b"d"]]


def test_failure_is_told_only_when_nobody_else_can_answer() -> None:
    """A lane whose node is gone may have found another by the time the rest has answered."""
    gone = ShardUnavailableError("a", "refused")
    scene = Scene(["a", "b"], lambda host, command: gone if host == "a" else host.encode())
    scene.after_refresh = ["c", "b"]
    told: list[tuple[int, Any]] = []
    found = replies(scene.run(Exchange(0, READ), Exchange(1, READ), on_reply=lambda *each: told.append(each)))
    assert [place for place, _ in told] == [1, 0]
    assert found[0].values == [b"c", b"c"]


def test_moved_is_followed_and_remembered() -> None:
    """All of it is asked for anew, so that it has the identity of one server."""
    scene = Scene(["a"], lambda host, command: "MOVED 0 b:7000" if host == "a" else b"v")
    (reply,) = replies(scene.run(Exchange(0, READ)))
    assert (reply.values, reply.identity) == ([b"v", b"v"], 101)
    assert scene.nodes[scene.map.places[0]].host == "b"
    assert scene.pauses == []


CHAINS = {
    "MOVED twice": {"a": "MOVED 0 b:7000", "b": "MOVED 0 c:7000"},
    "MOVED, then ASK": {"a": "MOVED 0 b:7000", "b": "ASK 0 c:7000"},
    "ASK twice": {"a": "ASK 0 b:7000", "b": "ASK 0 c:7000"},
    "ASK, then MOVED": {"a": "ASK 0 b:7000", "b": "MOVED 0 c:7000"},
    "five times": {host: f"MOVED 0 {chr(ord(host) + 1)}:7000" for host in "abcde"},
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("others", [[], ["z"]])
def test_chain_of_redirections_is_followed_to_its_end(name: str, others: list[str]) -> None:
    """At once, without a pause, and while a node that has nothing to do with it is still waited for."""
    chain = CHAINS[name]
    end = "f" if len(chain) > 2 else "c"

    def answer(host: str, command: Any) -> Any:
        return b"OK" if command[0] == b"ASKING" else chain.get(host, host.encode())

    scene = Scene(["a", *others], answer)
    told: list[int] = []
    exchanges = [Exchange(lane, READ) for lane in range(1 + len(others))]
    reply, *_ = replies(scene.run(*exchanges, on_reply=lambda place, _: told.append(place)))
    assert reply.values == [end.encode()] * 2
    assert [host for host, _ in scene.sent] == [*chain, end, *others]
    assert scene.pauses == []
    assert told == list(range(1 + len(others)))


def test_chain_beside_others_is_not_followed_for_ever() -> None:
    """Five times; then the others are waited for, and the nodes are asked who has what."""

    def answer(host: str, command: Any) -> Any:
        return host.encode() if host == "z" else f"MOVED 0 {'b' if host == 'a' else 'a'}:7000"

    scene = Scene(["a", "z"], answer)
    error, other = scene.run(Exchange(0, WRITE), Exchange(1, READ))
    assert isinstance(error, ShardUnavailableError)
    assert isinstance(other, Reply)
    assert [host for host, _ in scene.sent[:7]] == ["a", "b", "a", "b", "a", "b", "z"]
    assert scene.refreshed > 0


def test_script_is_led_on_by_moved_alone() -> None:
    """It names several keys, which ASK cannot follow: it waits until the slot has arrived."""
    chain = {"a": "MOVED 0 b:7000", "b": "MOVED 0 c:7000"}
    scene = Scene(["a", "z"], lambda host, _: chain.get(host, host.encode()))
    found = replies(scene.run(Exchange(0, WRITE), Exchange(1, READ)))
    assert [reply.values[0] for reply in found] == [b"c", b"z"]
    assert [host for host, _ in scene.sent] == ["a", "b", "c", "z"]


def test_moved_without_a_host_by_who_was_asked_once_is_at_that_one() -> None:
    """The answer is about the node that gave it, not about the one that had led there."""

    def answer(host: str, command: Any) -> Any:
        if command[0] == b"ASKING":
            return b"OK"
        answers = {("a", 7000): "ASK 0 b:7000", ("b", 7000): "MOVED 0 :7001"}
        return answers.get((host, 7000), b"v") if len(scene.sent) < 3 else b"v"

    scene = Scene(["a"], answer)
    replies(scene.run(Exchange(0, READ)))
    assert scene.map.place_at("b", 7001) == scene.map.places[0]


def test_moved_without_a_host_is_at_the_node_that_says_so() -> None:
    """As nodes answer that do not know their own address."""
    scene = Scene(["a"], lambda host, command: "MOVED 0 :7001" if len(scene.sent) == 1 else b"v")
    replies(scene.run(Exchange(0, READ)))
    assert scene.map.place_at("a", 7001) == scene.map.places[0]


def test_moved_in_a_circle_ends() -> None:
    """Two nodes that each name the other are left alone after a second, with an error that says so."""
    scene = Scene(["a"], lambda host, command: f"MOVED 0 {'b' if host == 'a' else 'a'}:7000")
    (error,) = scene.run(Exchange(0, WRITE))
    assert isinstance(error, ShardUnavailableError)
    assert "MOVED" in str(error)
    assert not error.sent
    assert sum(scene.pauses) <= 1.0


def test_ask_is_followed_by_reads_once_and_keeps_no_identity() -> None:
    """L1 must not keep what came from a server that is not the lane's."""

    def answer(host: str, command: Any) -> Any:
        return b"OK" if command[0] == b"ASKING" else b"v" if host == "b" or command[0] == b"PTTL" else "ASK 0 b:7000"

    scene = Scene(["a"], answer)
    (reply,) = replies(scene.run(Exchange(0, READ)))
    assert (reply.values, reply.identity) == ([b"v", b"v"], 0)
    assert scene.sent == [("a", [b"PTTL", b"GET"]), ("b", [b"ASKING", b"GET"])]
    assert scene.nodes[scene.map.places[0]].host == "a"


def half_moved(host: str, command: Any) -> Any:
    """Answer as in the middle of moving a slot from a to b: the odd keys are at b."""
    if command[0] == b"ASKING":
        return b"OK"
    there = [int(name) % 2 for name in command[1:]] if command[0] != b"HMGET" else [0]
    if len(set(there)) > 1:
        return "TRYAGAIN some keys are elsewhere"
    if (host == "b") != there[0]:
        return "ASK 0 b:7000"
    if command[1] == b"4":
        return "WRONGTYPE of somebody else"
    return command[0] if command[0] == b"HMGET" else b"%b at %b" % (command[1], host.encode())


def test_reading_of_keys_at_two_nodes_is_taken_apart() -> None:
    """Nobody has to wait until the last key has arrived. What stands behind it is still asked behind it."""
    scene = Scene(["a", "a"], half_moved)
    commands = [(b"PTTL", b"1"), (b"MGET", b"1", b"2", b"3", b"4"), (b"HMGET", b"L", b"g")]
    bulk, other = replies(scene.run(Exchange(0, commands), Exchange(1, [(b"GET", b"2")])))
    assert bulk.values == [b"1 at b", [b"1 at b", b"2 at a", b"3 at b", None], b"HMGET"]
    assert bulk.identity == 0
    assert (other.values, other.identity) == ([b"2 at a"], 100)
    assert [words for _, words in scene.sent[1:3]] == [[b"GET"] * 4 + [b"HMGET"], [b"ASKING", b"PTTL"]]
    assert scene.sent[3:] == [("a", [b"HMGET"]), ("b", [b"ASKING", b"GET"] * 2)]


def test_reading_that_was_taken_apart_begins_anew_when_the_slot_has_arrived() -> None:
    """As a whole, with an identity."""

    def answer(host: str, command: Any) -> Any:
        if len(scene.sent) < 2:
            return half_moved(host, command)
        return "MOVED 0 b:7000" if host == "a" else [b"v"] * (len(command) - 1)

    scene = Scene(["a"], answer)
    (reply,) = replies(scene.run(Exchange(0, [(b"MGET", b"1", b"2"), (b"HMGET", b"L", b"g")])))
    assert (reply.values, reply.identity) == ([[b"v", b"v"], [b"v", b"v"]], 101)


def test_reading_that_was_taken_apart_reports_what_fails() -> None:
    """Of the keys as of one command; what was answered beside it is known."""

    def answer(host: str, command: Any) -> Any:
        if host == "b" and command[0] != b"ASKING":
            return failure
        return half_moved(host, command)

    scene = Scene(["a"], answer)
    failure: Any = "NOPERM here"
    (reply,) = replies(scene.run(Exchange(0, [(b"PTTL", b"2"), (b"MGET", b"1", b"2")])))
    assert reply.values[0] == b"2 at a"
    assert isinstance(reply.values[1], ServerReplyError)
    assert len(reply.values) == 2
    failure = ShardUnavailableError("b", "out")
    assert scene.run(Exchange(0, [(b"PTTL", b"2"), (b"MGET", b"1", b"2")])) == [failure]


def test_several_scripts_only_the_refused_one_is_sent_again() -> None:
    """What was executed must not be executed twice."""
    first, second = (load_script("take").call([key], [b"1"]) for key in (b"one", b"two"))
    scene = Scene(["a"], lambda host, command: "MOVED 0 b:7000" if host == "a" and command is second else host.encode())
    (reply,) = replies(scene.run(Exchange(0, [first, second])))
    assert (reply.values, reply.identity) == ([b"a", b"b"], 0)
    assert [len(commands) for _, commands in scene.sent] == [2, 1]


def test_cluster_down_is_told_at_once() -> None:
    """As a server that is away; reads need not wait for an election."""
    scene = Scene(["a"], lambda host, command: "CLUSTERDOWN Hash slot not served")
    (reply,) = replies(scene.run(Exchange(0, READ)))
    assert all(isinstance(value, ShardUnavailableError) for value in reply.values)
    assert all("the server replied 'CLUSTERDOWN Hash slot not served'" in str(value) for value in reply.values)
    assert scene.pauses == []


def test_node_away_its_successor_is_asked_for() -> None:
    """What it did not get is sent to whoever has the slot now; if that is nobody new, the caller is told."""
    gone = ShardUnavailableError("a", "refused")
    scene = Scene(["a"], lambda host, command: gone if host == "a" else b"v")
    assert scene.run(Exchange(0, WRITE)) == [gone]
    scene.after_refresh = ["b"]
    (reply,) = replies(scene.run(Exchange(0, WRITE)))
    assert (reply.values, reply.identity) == ([b"v"], 101)


@pytest.mark.parametrize(("commands", "again"), [(READ, True), ([load_script("take").call([b"L"], [b"1"])], False)])
def test_node_lost_in_the_middle_only_what_is_harmless_is_repeated(commands: list[Any], again: bool) -> None:
    """A script that may have been executed is not."""
    lost = ShardUnavailableError("a", "hung up", sent=True)
    scene = Scene(["a"], lambda host, command: lost if host == "a" else b"v")
    scene.after_refresh = ["b"]
    (result,) = scene.run(Exchange(0, commands))
    assert isinstance(result, Reply) is again
    if not again:
        assert result is lost


def test_node_lost_after_a_part_was_executed_that_part_is_not_repeated() -> None:
    """What was answered is told, and the rest has the error."""
    first, second = (load_script("take").call([key], [b"1"]) for key in (b"one", b"two"))
    lost = ShardUnavailableError("b", "refused")

    def answer(host: str, command: Any) -> Any:
        return lost if host == "b" else "MOVED 0 b:7000" if command is second else b"done"

    scene = Scene(["a"], answer)
    scene.after_refresh = ["a"]
    (reply,) = replies(scene.run(Exchange(0, [first, second])))
    assert (reply.values, reply.identity) == ([b"done", lost], 0)
    assert [len(commands) for _, commands in scene.sent] == [2, 1]


def test_invalidation_that_may_have_been_made_is_not_reported_as_certainly_not_made() -> None:
    """Even if the last try did not get so far."""
    errors = {"a": ShardUnavailableError("a", "hung up", sent=True), "b": ShardUnavailableError("b", "refused")}
    scene = Scene(["a"], lambda host, command: errors[host])
    scene.after_refresh = ["b"]
    (error,) = scene.run(Exchange(0, WRITE))
    assert error is errors["b"]
    assert errors["b"].sent


def test_slot_of_nobody_is_looked_for_and_then_told() -> None:
    """Nothing is sent anywhere."""
    scene = Scene([""], lambda host, command: b"v")
    (error,) = scene.run(Exchange(0, READ))
    assert isinstance(error, ShardUnavailableError)
    assert (scene.refreshed, scene.sent) == (1, [])
    scene.after_refresh = ["a"]
    assert replies(scene.run(Exchange(0, READ)))[0].values == [b"v", b"v"]


def test_slot_of_nobody_any_more_after_a_pause_is_looked_for() -> None:
    """Others take note of what the nodes say meanwhile."""
    scene = Scene(["a"], lambda host, command: "TRYAGAIN later")
    course = scene.router.course([Exchange(0, WRITE)], SECOND)
    request: Any = next(course)
    assert isinstance(course.send([scene._perform(batch) for batch in request.batches]), Pause)
    scene._place([""])
    assert isinstance(course.send(None), Refresh)


def test_lane_is_introduced_to_a_server_before_its_first_command_there() -> None:
    """Each lane once, in the same batch, in front; and again where it goes."""
    scene = Scene(["a", "a"], lambda host, command: b"v", introduced=False)
    assert scene.router.place_of(0) == NOWHERE
    found = replies(scene.run(Exchange(0, WRITE), Exchange(1, WRITE)))
    assert [reply.values for reply in found] == [[b"v"], [b"v"]]
    assert [word.name for word in scene.sent[0][1]] == ["adopt", "adopt", "clear", "clear"]
    assert scene.heard == [(0, 100), (1, 100)]
    scene.run(Exchange(0, WRITE))
    assert [word.name for word in scene.sent[1][1]] == ["clear"]
    scene._place(["b", "a"])
    scene.run(Exchange(0, WRITE))
    assert [word.name for word in scene.sent[2][1]] == ["adopt", "clear"]
    assert scene.router.place_of(0) == scene.map.places[0]


def test_lane_whose_introduction_failed_is_introduced_again() -> None:
    """It is not taken for known."""
    scene = Scene(["a"], lambda host, command: "NOPERM no" if command[0].name == "adopt" else b"v", introduced=False)
    replies(scene.run(Exchange(0, WRITE)))
    assert scene.heard == []
    replies(scene.run(Exchange(0, WRITE)))
    assert len(scene.sent[1][1]) == 2


def test_redirection_to_a_node_without_a_name_has_the_nodes_asked() -> None:
    """A cluster that prefers names, and a node that has none: MOVED and ASK say a question mark then."""
    scene = Scene(["a"], lambda host, command: "MOVED 0 ?:7000" if host == "a" else host.encode())
    scene.after_refresh = ["b"]
    assert replies(scene.run(Exchange(0, READ)))[0].values == [b"b", b"b"]
    assert (scene.refreshed, [node.host for node in scene.nodes]) == (1, ["a", "b"])
    assert scene.map.heed("ASK 0 ?:7000", "a") == NOWHERE
    assert scene.nodes[scene.map.places[0]].host == "b"


def test_wait_is_sent_again_with_the_command_that_it_stands_behind() -> None:
    """What it was answered before the script was executed speaks of nothing that the script changed."""
    confirmed = iter([1, 0])

    def answer(host: str, command: Any) -> Any:
        if command[0] == b"WAIT":
            return next(confirmed)
        return "TRYAGAIN later" if scene.now == 0 else b"done"

    scene = Scene(["a"], answer)
    (reply,) = replies(scene.run(Exchange(0, [*WRITE, (b"WAIT", b"1", b"50")])))
    assert (reply.values, reply.identity) == ([b"done", 0], 100)


def test_one_wait_does_for_all_lanes_of_a_node() -> None:
    """Where no replica answers, each would take its whole time, and they stand behind each other."""
    scene = Scene(["a", "b", "a"], lambda host, command: 1 if command[0] == b"WAIT" else b"v")
    wait = (b"WAIT", b"1", b"50")
    found = replies(scene.run(*(Exchange(lane, [(b"GET", b"x"), wait]) for lane in range(3)), Exchange(2, READ)))
    assert sorted(scene.sent) == [("a", [b"GET", b"GET", b"PTTL", b"GET", b"WAIT"]), ("b", [b"GET", b"WAIT"])]
    assert [reply.values for reply in found] == [[b"v", 1], [b"v", 1], [b"v", 1], [b"v", b"v"]]
    assert [reply.identity for reply in found] == [100, 101, 100, 100]
