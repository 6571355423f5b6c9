"""Tokens: what one process has done and seen, in a few dozen characters that another process can be given.

A token names for each lane an epoch and a number. A process that has applied everything up to there cannot serve from
L1 what is older than what the token's maker had done or seen. (Shi et al., "FlightTracker", OSDI 2020, calls it a
ticket.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_FORM: Final = re.compile(r"1(?:r\d{1,18})?(?:\.\d{1,5}-[0-9a-f]{1,16}-[0-9a-f]{1,16}){0,256}", re.ASCII)


def pack_token(positions: Mapping[int, tuple[int, int]], version: int = 1) -> str:
    """Return the token of these positions: lane -> epoch and number. Letters, digits, ``.`` and ``-`` only.

    Args:
        version: Of the list of shards, which says what a lane's number means.
    """
    lanes = "".join(f".{lane}-{epoch:x}-{seq:x}" for lane, (epoch, seq) in sorted(positions.items()))
    return f"1{'' if version == 1 else f'r{version}'}{lanes}"


def parse_token(token: str) -> dict[int, tuple[int, int]]:
    """Return the positions that :func:`pack_token` was given.

    Raises:
        ValueError: It is no token.
    """
    parts = [part.split("-") for part in _checked(token).split(".")[1:]]
    positions = {int(lane): (int(epoch, 16), int(seq, 16)) for lane, epoch, seq in parts}
    if len(positions) != len(parts):
        raise _refusal(token)  # two that were joined, say
    return positions


def version_of(token: str) -> int:
    """Return the version of the list of shards that a token was made under.

    Raises:
        ValueError: It is no token.
    """
    return int(_checked(token).split(".", 1)[0][2:] or 1)


def _checked(token: str) -> str:
    if not isinstance(token, str) or not _FORM.fullmatch(token):
        raise _refusal(token)
    return token


def _refusal(token: object) -> ValueError:
    # It may come from a browser, and be as long as that likes.
    return ValueError(f"token={token!r:.100}: give what token() of a cache of this namespace returned")
