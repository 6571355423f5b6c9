"""Connections heard together: messages about writes of one's own, heard while a call waits for them."""

from __future__ import annotations

import errno
import os
import resource
import socket
from typing import Any

import pytest

from nearcache._hearing import Inbox
from nearcache._store import Store
from nearcache._watching import Echoes, Watch
from nearcache.keys import decode_key
from support.hearsay import ear_of, message


class Watched:
    """A connection that a :class:`Watch` hears, and what it noted."""

    def __init__(self, ours: socket.socket) -> None:
        self.store: Store[Any, Any] = Store(10)
        self.echoes = Echoes()
        self.watch = Watch(lambda: self.store, self.echoes)
        self.ear = ear_of()
        self.inbox = Inbox([self.ear], b"SFI", decode_key, {})
        self.noted: list[tuple[int, int, int, int]] = []
        self.inbox.feed(b":1\r\n")  # it has had something, so there is room in it
        assert self.inbox.take() == b":1\r\n"
        self.watch.add(ours.fileno(), self.inbox, lambda ears: self.noted.extend(ear.take() for ear in ears))


def test_watch_hears_echoes_without_anything_else_coming() -> None:
    """They wait for each other, not for ever: all of them are heard within one call."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        heard = Watched(ours)
        for number in range(3):
            heard.echoes.expect(0x11 + number)
            theirs.sendall(message(number))
        assert heard.watch.wait(20) == []
        assert heard.noted == [(7, 0x13, 3, 0)]


def test_watch_hears_an_echo_before_the_message_behind_it() -> None:
    """In the order in which they came, and both at once."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        heard = Watched(ours)
        heard.echoes.expect(0x11)
        theirs.sendall(message(0) + message(1))
        assert heard.watch.wait(20) == []
        assert heard.noted == [(6, 0x12, 2, 0)]


def test_watch_gives_others_what_follows_an_echo_and_is_for_them() -> None:
    """A reply, half a message, the end of the stream: the echo before it has been heard."""
    for rest in (b"*1\r\n:1\r\n", message(1)[:20], b""):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            heard = Watched(ours)
            heard.echoes.expect(0x11)
            theirs.sendall(message(0) + rest)
            theirs.shutdown(socket.SHUT_WR)
            assert heard.watch.wait(10_000) == [ours.fileno()]
            assert heard.noted == [(5, 0x11, 1, 0)]
            assert len(heard.inbox) == len(rest)


def test_watch_with_more_writes_than_it_remembers_hears_all_of_them() -> None:
    """An echo that is not known as one is a message like others."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        heard = Watched(ours)
        for number in range(200):
            heard.echoes.expect(0x11 + number)
        for number in range(200):
            theirs.sendall(message(number))
        assert heard.watch.wait(20) == []
        assert sum(each[2] for each in heard.noted) == 200


def test_watch_that_cannot_wait_says_so_and_believes_nothing_of_the_turn_before() -> None:
    """Whoever asks tries again, instead of being told of what was seen to long ago."""
    ours, theirs = socket.socketpair()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ours, theirs:
        heard = Watched(ours)
        theirs.sendall(b"*1\r\n:1\r\n")
        assert heard.watch.wait(10_000) == [ours.fileno()]
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # no descriptor may be waited for
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
                heard.watch.wait(10_000)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert heard.watch.wait(0) == []


def test_watch_initialised_again_watches_nothing() -> None:
    """Neither the connections of before, nor what was noted with them."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        heard = Watched(ours)
        theirs.send(b":1\r\n")
        Watch.__init__(heard.watch, lambda: heard.store, heard.echoes)
        assert heard.watch.wait(0) == []
        with pytest.raises(ValueError, match="not watched"):
            heard.watch.remove(ours.fileno())
