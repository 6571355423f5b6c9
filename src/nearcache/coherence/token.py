"""Tokens: what one process has done and seen, in a few dozen characters that another process can be given.

A token names for each lane an epoch and a number. A process that has applied everything up to there cannot serve from
L1 what is older than what the token's maker had done or seen. (Shi et al., "FlightTracker", OSDI 2020, calls it a
ticket.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_FORM: Final = re.compile(r"1(?:\.\d{1,5}-[0-9a-f]{1,16}-[0-9a-f]{1,16}){0,256}", re.ASCII)


def pack_token(positions: Mapping[int, tuple[int, int]]) -> str:
    """Return the token of these positions: lane -> epoch and number. Letters, digits, ``.`` and ``-`` only."""
    return "1" + "".join(f".{lane}-{epoch:x}-{seq:x}" for lane, (epoch, seq) in sorted(positions.items()))


def parse_token(token: str) -> dict[int, tuple[int, int]]:
    """Return what :func:`pack_token` was given.

    Raises:
        ValueError: It is no token.
    """
    if not isinstance(token, str) or not _FORM.fullmatch(token):
        raise ValueError(f"token={token!r}: give what token() of a cache of this namespace returned")
    parts = (part.split("-") for part in token.split(".")[1:])
    return {int(lane): (int(epoch, 16), int(seq, 16)) for lane, epoch, seq in parts}
