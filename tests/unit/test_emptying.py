"""Shards that gain keys, and what they have of them from earlier times. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from nearcache._reads import Event
from nearcache.errors import ClosedError, ServerReplyError, ShardUnavailableError
from nearcache.keys import SLOTS, encode_key
from nearcache.l2 import Exchange, Reply
from nearcache.loading.shards.emptying import Emptying
from nearcache.loading.tier import hex_id
from support.steps import EPOCH, GENERATION, IDENTITY, World

ALL, NONE = [True] * SLOTS, [False] * SLOTS
KEYS = [encode_key(f"k{n}") for n in range(4)]


class Server:
    """Answers in the place of a driver.

    Attributes:
        pages: What each SCAN finds: encoded keys, or the error that it is answered with.
        identities: Who answers, one request after the other; the last of them goes on.
        gone: What it was rid of.
        changes: Names of the scripts it was sent.
    """

    def __init__(self, world: World, pages: Sequence[Any] = (), identities: Sequence[int] = (IDENTITY,)) -> None:
        self._prefix = world.tier.names[0].value_prefix
        self._pages = list(pages)
        self._identities = list(identities)
        self.gone: list[bytes] = []
        self.changes: list[str] = []

    def execute(self, exchanges: Sequence[Exchange]) -> list[Reply]:
        """As :meth:`nearcache.l2.Driver.execute`."""
        ((_, (command,)),) = exchanges
        identity = self._identities.pop(0) if len(self._identities) > 1 else self._identities[0]
        return [Reply([self._answer(command)], identity)]

    def _answer(self, command: tuple[Any, ...]) -> Any:
        if command[0] == b"SCAN":
            page = self._pages.pop(0)
            if isinstance(page, Exception):
                return page
            return [b"7" if self._pages else b"0", [self._prefix + key for key in page]]
        script, count, *keys = command[: 2 + command[1]]
        self.changes.append(script.name)
        self.gone += [key.removeprefix(self._prefix) for key in keys[: count // 2]]
        counted = [1] if script.name == "invalidate" else []
        return [1, hex_id(GENERATION), *counted, hex_id(EPOCH), b"5"]


def emptying(world: World, server: Server, stopping: Event | None = None) -> Emptying:
    """What rids the only lane of what it has."""

    def demand(reply: Any) -> Any:
        said = reply if isinstance(reply, Exception) else reply.values[0]
        if isinstance(said, Exception):
            raise said
        return said

    driver: Any = server
    return Emptying("t", world.tier, driver, 0, demand, stopping or Event())


@pytest.fixture
def world() -> World:
    """A lane that is in an epoch."""
    world = World()
    world.tier.journals[0].forked(EPOCH, {})
    return world


def test_shard_whose_clear_a_failover_loses_is_owed_another(world: World) -> None:
    """Else what it has from earlier times would be read there, which nobody has invalidated since."""
    server = Server(world)
    emptying(world, server).clear()
    assert server.changes == ["clear"]
    journal = world.tier.journals[0]
    assert not journal.owes
    journal.forked(EPOCH + 1, {EPOCH: 4})
    assert journal.owes_clear


def test_shard_whose_clear_survives_a_failover_is_owed_nothing(world: World) -> None:
    """The new primary has heard of it."""
    emptying(world, Server(world)).clear()
    world.tier.journals[0].forked(EPOCH + 1, {EPOCH: 5})
    assert not world.tier.journals[0].owes


def test_sweep_removes_what_is_gained_and_nothing_else(world: World) -> None:
    """Keys of other slots are in use there."""
    server = Server(world, [KEYS[:2], KEYS[2:]])
    assert emptying(world, server).sweep(ALL)
    assert server.gone == KEYS
    other = Server(world, [KEYS])
    assert emptying(world, other).sweep(NONE)
    assert (other.gone, other.changes) == ([], [])


def test_shard_whose_sweep_a_failover_loses_is_owed_a_clear(world: World) -> None:
    """It is as if everything had been changed there."""
    server = Server(world, [KEYS[:2], []])
    assert emptying(world, server).sweep(ALL)
    assert server.changes == ["invalidate"]
    world.tier.journals[0].forked(EPOCH + 1, {EPOCH: 4})
    assert world.tier.journals[0].owes_clear


def test_sweep_settles_no_debt(world: World) -> None:
    """An invalidation that is owed is of a key that the shard has had all the time, perhaps."""
    world.tier.journals[0].owe([KEYS[3]])
    assert emptying(world, Server(world, [KEYS[:1]])).sweep(ALL)
    assert world.tier.journals[0].owed_keys() == [KEYS[3]]


@pytest.mark.parametrize("place", [1, 2, 3])
def test_sweep_that_another_server_goes_on_with_is_no_sweep(world: World, place: int) -> None:
    """A failover in the middle of it: what the one before was rid of, the new one has perhaps."""
    server = Server(world, [KEYS[:1], KEYS[1:2]], [IDENTITY] * place + [IDENTITY + 1])
    assert not emptying(world, server).sweep(ALL)


def test_shard_that_may_not_be_scanned_is_not_swept(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A user without the right to SCAN; the caller clears it then, and somebody is told why it starts cold."""
    assert not emptying(world, Server(world, [ServerReplyError("a", "NOPERM no scan")])).sweep(ALL)
    assert "NOPERM no scan" in caplog.text
    assert "namespace t starts cold" in caplog.text


def test_shard_that_is_away_is_not_taken_for_a_swept_one(world: World) -> None:
    """The change of the list does not go on without it."""
    with pytest.raises(ShardUnavailableError):
        emptying(world, Server(world, [ShardUnavailableError("a", "away")])).sweep(ALL)


def test_emptying_by_a_server_that_was_replaced_is_refused(world: World) -> None:
    """It answers who has not heard of that yet, and what it says counts for nothing."""
    world.tier.journals[0].forked(EPOCH + 1, {EPOCH: 4})
    with pytest.raises(ShardUnavailableError, match="replaced"):
        emptying(world, Server(world)).clear()
    assert world.tier.journals[0].owes_clear


def test_sweep_ends_where_the_cache_is_closed(world: World) -> None:
    """However many keys there are."""
    stopping = Event()
    stopping.set()
    with pytest.raises(ClosedError):
        emptying(world, Server(world, [[], KEYS]), stopping).sweep(ALL)
