"""Checks of single choices: each takes an option's name and the value, and returns the value as it is used."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from .errors import ConfigError

NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: What the envelope's 32 bits of milliseconds can say: 49.7 days.
MAX_TTL_S: Final = 4_294_967.0

Check = Callable[[str, Any], Any]


def is_none(value: Any) -> bool:
    """Return whether a value, or the text in a URL that stands for it, is ``None``."""
    return value is None or (isinstance(value, str) and value.lower() == "none")


def integer(low: int, high: int, *, none: bool = False) -> Callable[[str, Any], Any]:
    """Return a check that admits whole numbers."""
    allowed = f"give a whole number from {low} to {high}" + (", or None for no bound" if none else "")

    def check(option: str, value: Any) -> Any:
        if none and is_none(value):
            return None
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(option, value, allowed)
        return value

    return check


def seconds(low: float, high: float, *, none: str = "") -> Callable[[str, Any], Any]:
    """Return a check that admits lifetimes and durations."""
    return number(low, high, none=none, kind="seconds")


def number(low: float, high: float, *, none: str = "", kind: str = "a number") -> Callable[[str, Any], Any]:
    """Return a check that admits numbers, which it makes floats."""
    allowed = f"give {kind} from {low:g} to {high:g}" + (f", or None for {none}" if none else "")

    def check(option: str, value: Any) -> Any:
        if none and is_none(value):
            return None
        given = value
        if isinstance(value, str):
            try:
                given = float(value)
            except ValueError:
                raise ConfigError(option, value, allowed) from None
        if not isinstance(given, (int, float)) or isinstance(given, bool):
            raise ConfigError(option, value, allowed)
        if not low <= given <= high:  # NaN is in no range
            raise ConfigError(option, value, allowed)
        return float(given)

    return check


#: A lifetime in seconds; None: no expiry.
ttl_seconds: Final = seconds(0.001, MAX_TTL_S, none="no expiry")


def lifetime(option: str, value: Any) -> Any:
    """Check that a value is a lifetime, or a function that returns one."""
    return value if callable(value) else ttl_seconds(option, value)


def function(option: str, value: Any) -> Any:
    """Check that a value is a function, or None."""
    if value is not None and not callable(value):
        raise ConfigError(option, value, "give a function, or None")
    return value


def name(option: str, value: Any) -> Any:
    """Check that a value is a name."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ConfigError(option, value, "give 1 to 64 characters out of A-Z a-z 0-9 _ . -")
    return value


def classes(option: str, value: Any) -> Any:
    """Check that a value is a sequence of classes."""
    if isinstance(value, type) or not hasattr(value, "__iter__") or not all(isinstance(c, type) for c in value):
        raise ConfigError(option, value, "give a sequence of classes")
    return tuple(value)


def names(option: str, value: Any) -> Any:
    """Check that a value is names, one per shard."""
    given = value.split(",") if isinstance(value, str) else value
    if given is None:
        return None
    if not hasattr(given, "__iter__"):
        raise ConfigError(option, value, "give one name per shard")
    checked = tuple(name(option, one) for one in given)
    if len(set(checked)) != len(checked):
        raise ConfigError(option, value, "give every shard a name of its own")
    return checked


def boolean(option: str, value: Any) -> Any:
    """Check that a value is a truth value."""
    if isinstance(value, str) and value.lower() in ("true", "1", "yes", "false", "0", "no"):
        return value.lower() in ("true", "1", "yes")
    if not isinstance(value, bool):
        raise ConfigError(option, value, "give True or False")
    return value
