"""What the log is told of a shard at which no more connections can be made: what is news, once."""

from __future__ import annotations

import logging

import pytest

from nearcache.errors import ServerReplyError
from nearcache.l2.shortage import Shortage

SECOND = 1_000_000_000


def test_reason_is_told_once_until_connections_can_be_made_again(caplog: pytest.LogCaptureFixture) -> None:
    """However long it lasts; another reason is news, and so is the same one the next time."""
    caplog.set_level(logging.INFO, "nearcache")
    now = [0]
    shortage = Shortage("shop", "a", lambda: now[0])

    def refuse(*reasons: str) -> None:
        for reason in reasons:
            now[0] += 2 * SECOND
            shortage.begin(ServerReplyError("a", reason), 3)
            assert reason in shortage.reason

    refuse("ERR full", "ERR full", "ERR full", "NOAUTH no", "NOAUTH no")
    shortage.end()
    shortage.end()
    refuse("NOAUTH no", "NOAUTH no")
    assert [line.split("shard a: ")[1][:33] for line in caplog.messages] == [
        "no more connections can be made, ",
        "no more connections can be made, ",
        "connections can be made again",
        "no more connections can be made, ",
    ]
