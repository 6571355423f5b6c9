"""What can be chosen about values, and the checks of single choices. For ``options``, which holds the tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

from .coroutines import is_coroutine_function
from .errors import CacheError, ConfigError

T = TypeVar("T")

#: How values become bytes, by name; an object with ``codec_id``, ``encode`` and ``decode`` does as well.
CodecName = Literal["safe", "json", "raw", "msgspec", "pickle"]
Compression = Literal["zlib", "lz4", "zstd"]
DEFAULT_COMPRESS_ABOVE: Final = 1024
#: What a hit may contradict: nothing read of its key before, or of any key of its lane.
Consistency = Literal["key", "lane"]
#: How keys are given to client-side shards.
Strategy = Literal["rendezvous", "ring", "modulo", "round_robin"]
#: A time span: a number of seconds, or a ``timedelta``.
Seconds: TypeAlias = float | timedelta
#: What the envelope's 32 bits of milliseconds can say: 49.7 days.
MAX_TTL_S: Final = 4_294_967.0
LEAST_TTL_S: Final = 0.001
#: Whether readers share the object that L1 holds, or each get their own.
Isolation = Literal["shared", "copy"]


class Idle:
    """A lifetime that begins anew whenever the value is read: ``ttl=nearcache.Idle(600)``. See docs/freshness.md.

    Args:
        seconds: A value lives for so long after it was last read, and at most half as long again.
    Raises:
        ConfigError: Not 0.001 to 2,000,000 seconds, as a number or a ``timedelta``.
    """

    __slots__ = ("seconds",)

    def __init__(self, seconds: Seconds) -> None:
        self.seconds: float = _idle_seconds("idle", seconds)

    def __repr__(self) -> str:
        return f"Idle({self.seconds:g})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Idle) and other.seconds == self.seconds

    def __hash__(self) -> int:
        return hash((Idle, self.seconds))


class Secrets:
    """Keys as they were given, in a wrapping that shows none of them."""

    __slots__ = ("_given",)

    def __init__(self, given: Any) -> None:
        self._given = given

    def reveal(self) -> Any:
        """Return what was given."""
        return self._given

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> Any:
        raise TypeError("keys are neither pickled nor copied")


def is_none(value: Any) -> bool:
    """Return whether a value, or the text in a URL that stands for it, is ``None``."""
    return value is None or (isinstance(value, str) and value.lower() == "none")


def one_of(names: tuple[str, ...], *, none: str = "") -> Callable[[str, Any], Any]:
    """Return a check that admits these names, and ``None`` if it is said what that stands for."""
    allowed = f"give one of {', '.join(map(repr, names))}" + (f", or None for {none}" if none else "")

    def check(option: str, value: Any) -> Any:
        if none and is_none(value):
            return None
        if not isinstance(value, str) or value not in names:
            raise ConfigError(option, value, allowed)
        return value

    return check


def boolean(option: str, value: Any) -> Any:
    """Check that a value is a truth value, or the text of one."""
    if isinstance(value, str) and value.lower() in ("true", "1", "yes", "false", "0", "no"):
        return value.lower() in ("true", "1", "yes")
    if not isinstance(value, bool):
        raise ConfigError(option, value, "give True or False")
    return value


def integer(low: int, high: int, *, none: bool = False) -> Callable[[str, Any], Any]:
    """Return a check that admits whole numbers of this range, as numbers or text."""
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


def plain_seconds(value: T | timedelta) -> T | float:
    """Return a ``timedelta`` in seconds, and anything else as it is."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def seconds(low: float, high: float, *, none: str = "") -> Callable[[str, Any], Any]:
    """Return a check that admits seconds of this range, and ``None`` if it is said what for."""
    check = number(low, high, none=none, kind="seconds")

    def checked(option: str, value: Any) -> Any:
        return check(option, plain_seconds(value))

    return checked


def seconds_or_part(low: float, high: float, *, none: str = "") -> Callable[[str, Any], Any]:
    """Return a check that admits seconds of this range, or a fraction, which below 1 a number is taken for."""
    check = seconds(low, high, none=none)

    def checked(option: str, value: Any) -> Any:
        if isinstance(value, timedelta) and 0 < value.total_seconds() < 1:
            raise ConfigError(option, value, "give a second or more, or a fraction as a number")
        return check(option, value)

    return checked


def number(low: float, high: float, *, none: str = "", kind: str = "a number") -> Callable[[str, Any], Any]:
    """Return a check that admits numbers of this range, as numbers or text, and ``None`` if it is said what for."""
    highest = f"{high:.0f} ({high / 86_400:.1f} days)" if kind == "seconds" and high > 86_400 else f"{high:g}"
    allowed = f"give {kind} from {low:g} to {highest}" + (f", or None for {none}" if none else "")

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


def codec(option: str, value: Any) -> Any:
    """Check that a value is the name of a codec, or may be one; which objects are is checked where it is used."""
    names = get_args(CodecName)
    if value is None or isinstance(value, type) or (isinstance(value, str) and value not in names):
        raise ConfigError(option, value, f"give one of {', '.join(map(repr, names))}, or an object that is a codec")
    return value


def secrets(_: str, value: Any) -> Secrets | None:
    """Wrap keys. They are looked at where they are used, so that no check here can show them."""
    return None if value is None else Secrets(value)


def weights(option: str, value: Any) -> tuple[int, ...] | None:
    """Return whole numbers, given as numbers or as text with commas; their range is checked with the shards' names."""
    if is_none(value):
        return None
    given = value.split(",") if isinstance(value, str) else value
    if not hasattr(given, "__iter__"):
        raise ConfigError(option, value, "give one weight per shard, as in shard_weights=(2, 1, 1)")
    return tuple(integer(1, 100)(option, weight) for weight in given)


_idle_seconds: Final = seconds(0.001, 2_000_000.0)
_timeout: Final = seconds(0.0, MAX_TTL_S)
#: A lifetime in seconds; None: no expiry.
ttl_seconds: Final = seconds(LEAST_TTL_S, MAX_TTL_S, none="no expiry")


def lifetime(option: str, value: Any) -> Any:
    """Check that a value is a lifetime, or a function that returns one."""
    return value if is_function(value) or isinstance(value, Idle) else ttl_seconds(option, value)


def is_function(ttl: Any) -> bool:
    """Whether a lifetime is a function that returns one. A class is none: ``Idle`` itself says no seconds."""
    return callable(ttl) and not isinstance(ttl, type)


def timeout_to_s(timeout: Seconds) -> float:
    """Check how long a call may wait; return seconds.

    Raises:
        ConfigError: It is no time, or out of range.
    """
    checked: float = _timeout("timeout", timeout)
    return checked


_error_seconds: Final = seconds(0.001, MAX_TTL_S)


def error_lifetimes(option: str, value: Any) -> Any:
    """Check that a value says for classes of exceptions how long they are kept."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigError(option, value, "give a dict of exception classes and seconds, as in {NotFound: 5.0}")
    for cls in value:
        if not isinstance(cls, type) or not issubclass(cls, Exception):
            raise ConfigError(option, cls, "the keys are classes of exceptions")
        if cls is Exception or issubclass(cls, CacheError):
            raise ConfigError(option, cls, "give classes that say something about the key, such as your own")
    return {cls: _error_seconds(option, kept) for cls, kept in value.items()}


def password(option: str, value: Any) -> Any:
    """Check a password: a text, or a function that returns it."""
    if callable(value) and is_coroutine_function(value):
        raise ConfigError(
            option, "***", "it is a coroutine function: give a plain one; it may block, for it runs in threads"
        )
    if value is not None and not isinstance(value, str) and not callable(value):
        raise ConfigError(option, "***", "give a text, or a function without arguments that returns it, or None")
    return value


#: Every option about values and their freshness that is not checked elsewhere.
CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "codec": codec,
    "type": lambda _, value: value,
    "compress": one_of(get_args(Compression), none="no compression"),
    "signing_keys": secrets,
    "encryption_keys": secrets,
    "isolation": one_of(get_args(Isolation)),
    "placement": one_of(get_args(Strategy)),
    "consistency": one_of(get_args(Consistency)),
    "ttl": lifetime,
    "jitter": seconds_or_part(0.0, MAX_TTL_S),
    "soft_ttl": seconds_or_part(0.001, MAX_TTL_S, none="never"),
    "beta": number(0.0, 100.0),
    "negative_ttl": seconds(0.001, MAX_TTL_S, none="absence is not kept"),
    "error_ttl": error_lifetimes,
    "loader_timeout": seconds(0.001, MAX_TTL_S, none="as long as it takes"),
}
