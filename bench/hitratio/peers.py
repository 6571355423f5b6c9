"""Policies of other libraries, asked as the store is: get, then put on a miss.

Those of libCacheSim are exact, theine's and moka-py's are as their users have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

#: By what the reference table calls them, what libCacheSim does.
_SIMULATED = {"ARC": "ARC", "LIRS": "LIRS", "S3-FIFO": "S3FIFO", "SIEVE": "Sieve", "2Q": "TwoQ"}
_SIMULATOR = "libcachesim"
_THEINE, _MOKA = "theine", "moka-py"
_MODULES = {**dict.fromkeys(_SIMULATED, _SIMULATOR), _THEINE: "theine", _MOKA: "moka_py"}
NAMES = tuple(_MODULES)


def installed() -> tuple[str, ...]:
    """Return the names of those that can be asked here."""
    return tuple(name for name, module in _MODULES.items() if find_spec(module) is not None)


def _simulated(keys: Sequence[int], size: int, policy: str) -> int:
    import libcachesim

    # By itself it begins with a table for 16 million entries, which takes longer to make than most replays.
    cache = getattr(libcachesim, policy)(cache_size=size, hashpower=size.bit_length() + 1)
    request = libcachesim.Request()
    request.obj_size = 1
    found = 0
    for key in keys:
        request.obj_id = key
        found += cache.get(request)
    return found


def _theine(keys: Sequence[int], size: int) -> int:
    import theine

    cache: theine.Cache[int, bool] = theine.Cache(size)
    found = 0
    for key in keys:
        if cache.get(key)[1]:
            found += 1
        else:
            cache.set(key, True)
    cache.close()
    return found


def _moka(keys: Sequence[int], size: int) -> int:
    import moka_py

    cache: moka_py.Moka[int, bool] = moka_py.Moka(size)
    found = 0
    for key in keys:
        if cache.get(key) is not None:
            found += 1
        else:
            cache.set(key, True)
    return found


_OWN: dict[str, Callable[[Sequence[int], int], int]] = {_THEINE: _theine, _MOKA: _moka}


def hits(keys: Sequence[int], size: int, name: str) -> int:
    """Return how many requests one of ``NAMES`` with so many entries answers."""
    if name in _SIMULATED:
        return _simulated(keys, size, _SIMULATED[name])
    return _OWN[name](keys, size)
