"""Forks: the child makes connections of its own, and the parent's are as they were."""

from __future__ import annotations

from collections.abc import Callable

from support.redis import RedisServer
from support.worker import Worker

CODE = """
import json, os
from nearcache.l2 import Driver, Exchange, Reply
from nearcache.options import Endpoint

driver = Driver([Endpoint("a", path=PATH)], pool_size=2)

def echo(word):
    reply = driver.execute([Exchange(0, [("ECHO", word), ("CLIENT", "ID")])], timeout_s=20)[0]
    return [reply.values[0].decode(), reply.values[1]] if isinstance(reply, Reply) else [str(reply), 0]

def in_child(work):
    # What a child returns comes through a pipe, for it shares everything else with its parent.
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            driver.after_fork()
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(answer)

def fork_and_echo():
    before = echo("before")
    child = in_child(lambda: [echo("child") for _ in range(3)] + [driver.status(0).connections])
    return [before, child, echo("after")]

def fork_with_a_lock_held():
    driver._shards[0].pool._free.acquire()
    driver._shards[0].breaker._lock.acquire()
    try:
        return in_child(lambda: [echo("child"), driver.status(0).breaker])
    finally:
        driver._shards[0].pool._free.release()
        driver._shards[0].breaker._lock.release()

def fork_and_close():
    before = echo("before")
    in_child(lambda: driver.close())
    return [before, echo("after")]

def fork_inside_a_call():
    # A signal handler that forks is the one way to be a child in the middle of a call.
    import signal
    children = []
    def fork(*_):
        pid = os.fork()
        if pid == 0:
            driver.after_fork()
            children.append(0)
        else:
            children.append(pid)
    signal.signal(signal.SIGALRM, fork)
    echo("connected")  # else the handler might come in the middle of that
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    reply = driver.execute([Exchange(0, [("BLPOP", "nothing", "0.3"), ("ECHO", "mine")])], timeout_s=20)[0]
    if children[0] == 0:
        os._exit(0 if not isinstance(reply, Reply) or reply.values == [None, b"mine"] else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])
    return [status, reply.values[1].decode(), echo("after")[0]]
"""


def start(make_worker: Callable[..., Worker], server: RedisServer) -> Worker:
    """Return a process with a driver."""
    return make_worker(f"PATH = {server.path!r}\n{CODE}")


def test_child_gets_connections_of_its_own(make_worker: Callable[..., Worker], redis_server: RedisServer) -> None:
    """The child talks on a new connection, and the parent goes on with its old one, undisturbed."""
    worker = start(make_worker, redis_server)
    before, child, after = worker.call("fork_and_echo")
    assert before[0] == "before"
    assert [each[0] for each in child[:3]] == ["child"] * 3
    assert child[3] == 1
    assert child[0][1] != before[1]
    assert after == ["after", before[1]]


def test_child_of_a_thread_that_held_the_locks_can_go_on(
    make_worker: Callable[..., Worker], redis_server: RedisServer
) -> None:
    """The holder does not exist in the child, so the locks are made anew."""
    answer, breaker = start(make_worker, redis_server).call("fork_with_a_lock_held")
    assert answer[0] == "child"
    assert breaker == "closed"


def test_child_that_closes_leaves_the_parent_connected(
    make_worker: Callable[..., Worker], redis_server: RedisServer
) -> None:
    """Closing a descriptor says nothing to the server while the parent has it too."""
    before, after = start(make_worker, redis_server).call("fork_and_close")
    assert after == ["after", before[1]]


def test_child_made_in_the_middle_of_a_call_does_not_take_the_answer(
    make_worker: Callable[..., Worker], redis_server: RedisServer
) -> None:
    """The parent gets its own answers; the child gets an error, or repeats on a connection of its own."""
    status, mine, after = start(make_worker, redis_server).call("fork_inside_a_call")
    assert (status, mine, after) == (0, "mine", "after")
