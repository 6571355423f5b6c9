"""Faults that only Sentinel's topology has: what befalls the primary it watches, a replica, or a Sentinel.

To cut a primary off without privileges, Sentinels and replicas log in as users of their own: those are locked out of
it, and their connections ended, while clients go on reaching it. It does not learn that another one was promoted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .servers import ALLIES, Nodes, RedisServer

if TYPE_CHECKING:
    from .faults import Fault
    from .nemesis import Happening, Nemesis


def victim_of(nemesis: Nemesis, happening: Happening) -> RedisServer:
    """Return the server that a fault has struck."""
    return nemesis.nodes.servers[int(happening.target.split()[1])]


def stop_primary(nemesis: Nemesis, fault: Fault) -> None:
    """SIGSTOP."""
    nemesis.strike_primary(fault).pause()


def continue_primary(nemesis: Nemesis, fault: Fault, happening: Happening) -> None:
    """SIGCONT: it wakes as a primary, whatever has happened meanwhile."""
    victim_of(nemesis, happening).resume()
    nemesis.expect_failover(fault, happening)


def cut_off_primary(nemesis: Nemesis, fault: Fault) -> None:
    """Lock its allies out. Every other time it goes on taking writes without them, as most are configured to."""
    with nemesis.strike_primary(fault).client(socket_timeout=1.0) as client:
        if fault.wide:
            client.config_set("min-replicas-to-write", 0)
        for user in ALLIES:
            client.execute_command("ACL", "SETUSER", user, "off")
            client.execute_command("CLIENT", "KILL", "USER", user)


def let_allies_in(nemesis: Nemesis, fault: Fault, happening: Happening) -> None:
    """Let them in again: Sentinels make a replica of it, if there is another primary."""
    with victim_of(nemesis, happening).client(socket_timeout=1.0) as client:
        for user in ALLIES:
            client.execute_command("ACL", "SETUSER", user, "on")
        client.config_set("min-replicas-to-write", 1)
    nemesis.expect_failover(fault, happening)


def kill_replica(nemesis: Nemesis, fault: Fault) -> None:
    """``kill -9`` of one that follows the primary."""
    nodes: Nodes = nemesis.nodes
    primaries = nodes.primaries()
    replicas = [n for n, server in enumerate(nodes.servers) if server.running and n not in primaries]
    if not replicas:
        raise RuntimeError("no replica is there")
    number = replicas[fault.target % len(replicas)]
    nemesis.name_target(fault, f"server {number}")
    nodes.servers[number].kill()


def start_replica(nemesis: Nemesis, fault: Fault, happening: Happening) -> None:
    """Start it again. It may believe at first in a primary that has been replaced."""
    victim_of(nemesis, happening).start()
    nemesis.expect_failover(fault, happening)


def kill_sentinel(nemesis: Nemesis, fault: Fault) -> None:
    """``kill -9``: the other two can still agree."""
    sentinels = nemesis.nodes.sentinels
    number = fault.target % len(sentinels)
    nemesis.name_target(fault, f"sentinel {number}")
    sentinels[number].kill()


def start_sentinel(nemesis: Nemesis, _: Fault, happening: Happening) -> None:
    """Start it again, with what it knew."""
    nemesis.nodes.sentinels[int(happening.target.split()[1])].start()


BEGIN: Final[dict[str, Callable[[Any, Any], None]]] = {
    "primary stopped": stop_primary,
    "primary cut off": cut_off_primary,
    "replica killed": kill_replica,
    "sentinel killed": kill_sentinel,
}
END: Final[dict[str, Callable[[Any, Any, Any], None]]] = {
    "primary stopped": continue_primary,
    "primary cut off": let_allies_in,
    "replica killed": start_replica,
    "sentinel killed": start_sentinel,
}
