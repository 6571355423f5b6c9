"""Cuts a stream of RESP3 into whole replies and pushes, without understanding them more than that needs."""

from __future__ import annotations

from typing import Final

_LINES: Final = b"+-:,#_("
_BULKS: Final = b"$=!"
_COUNTED: Final = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2}


class FrameError(ValueError):
    """Not RESP3."""


def frame_end(data: bytes | bytearray, at: int = 0) -> int | None:
    """Return where the frame that begins at ``at`` ends; None if it is not all there.

    Raises:
        FrameError: What stands there begins no frame.
    """
    wanted = 1
    while wanted:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        kind, line = data[at], data[at + 1 : end]
        at = end + 2
        wanted -= 1
        if kind in _LINES:
            continue
        try:
            count = int(line)
        except ValueError:
            raise FrameError(f"{bytes([kind])!r} {bytes(line[:20])!r}") from None
        if kind in _BULKS:
            at += count + 2 if count >= 0 else 0
            if at > len(data):
                return None
        elif kind in _COUNTED:
            wanted += max(count, 0) * _COUNTED[kind]
        else:
            raise FrameError(f"{bytes([kind])!r}")
    return at


def is_message(frame: bytes) -> bool:
    """Whether a frame is a published message: a push of three, the first of which says so."""
    return frame.startswith((b">3\r\n$7\r\nmessage\r\n", b">3\r\n$8\r\nsmessage\r\n"))


class Splitter:
    """Gathers bytes and gives out whole frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has come and return the frames that it completes."""
        self._data += data
        found, at = [], 0
        while (end := frame_end(self._data, at)) is not None:
            found.append(bytes(self._data[at:end]))
            at = end
            if at == len(self._data):
                break
        del self._data[:at]
        return found
