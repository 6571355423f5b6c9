"""Passwords that end: a function is asked for one whenever a connection is made.

Services that give tokens of minutes or hours in place of passwords look at them at the beginning of a connection only.
What is connected already goes on, or the server ends it when its token does; the next connection asks anew.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..clocks import Clock
from ..coroutines import good_again
from ..errors import AuthenticationFailedError, ShardUnavailableError
from ..options import Endpoint


class NoPasswordError(ShardUnavailableError):
    """Nobody says the password, which says nothing of the server, nor of the connections that there are."""


def logged_in(endpoint: Endpoint, deadline_ns: int, clock: Clock) -> Endpoint:
    """Return the endpoint with what its function says in place of the function; itself if its password is a text.

    Runs the function, which may take its time and use the network: not to be called in an event loop. No error holds
    what it returned, nor the text of what it raised, which may quote a secret.

    Raises:
        NoPasswordError: It raised (``__cause__``), or used up the time.
        AuthenticationFailedError: It returned no password.
    """
    ask = endpoint.password
    if ask is None or isinstance(ask, str):
        return endpoint
    # Not its repr(), where a bound method shows its object, and a partial its arguments.
    who = f"the function given as password, {getattr(ask, '__qualname__', type(ask).__qualname__)},"
    begun = clock()
    try:
        said: Any = ask()
    except Exception as error:
        raise NoPasswordError(endpoint.name, f"{who} raised {type(error).__qualname__}") from error
    parts = said if isinstance(said, (tuple, list)) else (said,)  # a pair is what redis-py's providers return
    if not 1 <= len(parts) <= 2 or not all(isinstance(part, str) for part in parts):
        with suppress(TypeError):
            good_again(who, said)  # it is closed: nobody will await it
        text = f"{who} returned {type(said).__qualname__}: it is to return the password, or user name and password"
        raise AuthenticationFailedError(endpoint.name, text)
    if clock() >= deadline_ns:
        remedy = "have it keep what it returns until that ends, or raise connect_timeout"
        raise NoPasswordError(endpoint.name, f"{who} took {(clock() - begun) / 1e9:.3g} s: {remedy}")
    return replace(endpoint, username=parts[0] if len(parts) == 2 else endpoint.username, password=parts[-1])
