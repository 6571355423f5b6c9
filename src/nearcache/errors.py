"""Every exception that nearcache raises of its own accord.

One root, :class:`CacheError`. Data stands in attributes; the cause, where there is one, in ``__cause__``.
A miss is never one of these: it is ``KeyError`` or the caller's default, as with any mapping.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

E = TypeVar("E", bound=BaseException)

#: What stands before the hosts of a URL, up to the last @.
_USERINFO: Final = re.compile("://.*@", re.DOTALL)


class CacheError(Exception):
    """The root of nearcache's exceptions. All of them can be pickled and copied if their attributes can."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own would call the class with its finished message, which is not what __init__ takes here.
        return _restore, (type(self), self.args), self.__dict__


class ConfigError(CacheError, ValueError):
    """An option that is unknown, contradictory or out of range.

    Attributes:
        option: Name of the option.
        value: What was given. Never a password: secrets, and what was given for an option that does not exist, are
            replaced by ``'***'`` before they get here, and here what stands before the hosts of a URL that was given
            for something else.
        remedy: What to do.
    """

    def __init__(self, option: str, value: object, remedy: str) -> None:
        if isinstance(value, str):
            value = _USERINFO.sub("://***@", value)
        super().__init__(f"option {option}={_short(value, 200)}: {remedy}")
        self.option = option
        self.value = value
        self.remedy = remedy


class ClosedError(CacheError, RuntimeError):
    """The cache was closed, by ``close()``, ``with`` or ``async with cache.aio``; open a new one."""


# -- keys and values ---------------------------------------------------------------------------------------------


class UnencodableKeyError(CacheError, TypeError):
    """A key that cannot be written to L2.

    Attributes:
        key: The key.
        remedy: What is the matter with it, and what to do.
    """

    def __init__(self, key: object, remedy: str) -> None:
        super().__init__(f"key {_short(key)}: {remedy}")
        self.key = key
        self.remedy = remedy


class UnencodableValueError(CacheError, TypeError):
    """A value that the codec could write but would refuse to read back, or cannot write at all.

    Attributes:
        type_name: Qualified name of the offending class.
        key: What it was for; None: nothing says so.
    """

    key: object = None

    def __init__(self, type_name: str, remedy: str) -> None:
        super().__init__(f"value of {type_name}: {remedy}")
        self.type_name = type_name


class ValueTooLargeError(CacheError, ValueError):
    """A value above ``max_value`` (L2) or ``maxbytes`` (a ``memory://`` cache).

    Attributes:
        size_bytes: Size of the encoded value.
        limit_bytes: The limit.
        key: What it was for; None: nothing says so.
    """

    key: object = None

    def __init__(self, size_bytes: int, limit_bytes: int, option: str) -> None:
        super().__init__(f"value of {size_bytes} bytes is over {option}={limit_bytes}: store less, or raise {option}")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class DecodeError(CacheError):
    """Bytes from L2 that are torn, foreign, of a newer format or of another schema. Readers count it as a miss."""


class ForgedError(DecodeError):
    """Bytes from L2 that are not what a holder of the cache's keys wrote under this key: changed, moved from another
    key or namespace, or not protected at all. Readers count it as a miss, and apart from other damage."""


# -- loading -----------------------------------------------------------------------------------------------------


class LoadCycleError(CacheError, RuntimeError):
    """A loader asked, directly or through other threads' or tasks' loads, for the key that it is loading.

    Attributes:
        chain: The keys of the cycle, first one repeated at the end.
    """

    def __init__(self, chain: Iterable[object], *, same_thread: bool = False) -> None:
        self.chain: tuple[object, ...] = tuple(chain)
        way = " -> ".join(_short(key) for key in self.chain)
        if same_thread:
            message = f"this thread runs the event loop that is loading {way}: await it from cache.aio instead"
        else:
            message = f"loaders wait for each other: {way}"
        super().__init__(message)


class LoadTimeoutError(CacheError, TimeoutError):
    """A loader did not bring its value in time. It goes on, and what it brings is kept.

    Attributes:
        key: What is loaded.
        seconds: How long was waited.
    """

    def __init__(self, key: object, seconds: float) -> None:
        self.key = key
        self.seconds = seconds
        super().__init__(f"{_short(key)} was not loaded within loader_timeout={seconds:g} s; the loader goes on")


# -- L2 ----------------------------------------------------------------------------------------------------------


class ShardError(CacheError):
    """Something about one shard.

    Attributes:
        shard: Name of the shard.
    """

    def __init__(self, shard: str, message: str) -> None:
        prefix = f"shard {shard}: "  # which the message of another error, given as the reason, has already
        super().__init__(prefix + message.removeprefix(prefix))
        self.shard = shard


class ShardUnavailableError(ShardError, ConnectionError):
    """The shard did not answer in time, refused the connection, or its circuit breaker is open.

    Attributes:
        sent: True when the request may have reached the server, so that its outcome is unknown.
    """

    def __init__(self, shard: str, message: str, *, sent: bool = False) -> None:
        super().__init__(shard, message)
        self.sent = sent


#: What people may want to know about some replies, of nearcache's own scripts and of servers.
_HINTS: Final = {
    "CLUSTERDOWN": "; redis-cli --cluster check says which slots no node has (docs/failure.md)",
    "NCTOPO": "; by that it has another list of shards than this process",
    "NCRECORD": "; remove the lane record, and it is made anew (docs/operations.md)",
    "WRONGTYPE": "; if it is the lane record, remove that, and it is made anew (docs/operations.md)",
    "NOPERM": "; docs/operations.md has the rights that a cache user needs (ACL SETUSER)",
}
#: How a server says these of a command in a script: 6.2, 7.0, and later ones.
_SAID: Final = {
    "NOPERM": ("NOPERM ", "The user executing the script can't", "ACL failure in script"),
    "WRONGTYPE": ("WRONGTYPE ",),
}
#: What a server that does not know a command says behind its name; then come the password, or key and value.
_ECHO: Final = ", with args beginning with"


class ServerReplyError(ShardError):
    """The server answered with an error, such as OOM, READONLY or NOPERM.

    Attributes:
        code: The first word of the reply.
        reply: All of it, but for what it repeats of the request.
    """

    def __init__(self, shard: str, reply: str, advice: str = "") -> None:
        reply = reply.partition(_ECHO)[0]
        self.code: str = reply.split(" ", 1)[0]
        self.reply = reply
        hint = next((code for code, texts in _SAID.items() if any(text in reply for text in texts)), self.code)
        super().__init__(shard, f"the server replied {reply!r}{advice or _HINTS.get(hint, '')}")

    @property
    def is_halfway(self) -> bool:
        """Whether a script of ours ended in its middle. What it had done by then is not undone.

        Those that refuse something for another reason (``OOM``, ``READONLY``, ``MISCONF``) begin with what is refused.
        """
        return self.code == "ERR" and "user_script" in self.reply


class NotReplicatedError(ShardError):
    """With ``ack="replica"``: a change is made and announced, but no replica has confirmed it in time.

    Attributes:
        seconds: How long it was waited for.
    """

    def __init__(self, shard: str, seconds: float) -> None:
        super().__init__(
            shard, f"the change is made, but no replica has confirmed it within {seconds:g} s: a failover may lose it"
        )
        self.seconds = seconds


class AuthenticationFailedError(ShardError):
    """The server refused the user name or the password."""


class NotRedisError(ShardError):
    """What answers there does not speak the Redis protocol."""


class UnsupportedServerError(ShardError):
    """The server lacks something that nearcache needs (Redis 6.2, Valkey 7.2 or newer)."""


class WrongTopologyError(ShardError):
    """The URL names a node of a Redis Cluster as a server by itself, or the other way round."""


class CoherenceError(CacheError):
    """Invalidations do not arrive, and the cache was opened with ``require_coherence=True``."""


class UnknownMasterError(ShardError):
    """No sentinel knows a master of this name."""


class ShardListError(CacheError):
    """This process was started with another list of shards than those that use the namespace.

    Attributes:
        mine: The list, or change of lists, that this process has.
        theirs: The one that a shard has recorded.
    """

    def __init__(self, namespace: str, shard: str, mine: str, theirs: str) -> None:
        super().__init__(
            f"namespace {namespace}: this process was started with {mine}, but shard {shard} has recorded {theirs}: "
            f"give all processes the same shards (names, weights, placement); only reshard() may change them. "
            f"If nobody uses that list any more, docs/operations.md says how to begin anew"
        )
        self.mine = mine
        self.theirs = theirs


class ReshardError(CacheError):
    """A change of the list of shards could not begin or go on. What has been done holds: every process goes on with it
    safely, for as long as need be, and calling ``reshard()`` again with the same list finishes it; or, where a later
    change has followed it, as the message says then, undoes that.

    Attributes:
        shards: Names of the shards that did not answer, if that is why.
    """

    def __init__(self, message: str, shards: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.shards: tuple[str, ...] = tuple(shards)


class BulkError(CacheError):
    """A call about many keys (``set_many``, ``delete_many``, ``hold``) that succeeded for some of them only.

    Its cause is the first of the reasons.

    Attributes:
        stored: Keys whose change is known to be in L2.
        failed: Keys whose change is known not to be in L2, each with the reason.
        unknown: Keys whose request was sent but not acknowledged, each with the reason. No L1 copy of them is
            kept in this process.
    """

    def __init__(
        self, stored: Iterable[object], failed: Mapping[Any, Exception], unknown: Mapping[Any, Exception]
    ) -> None:
        self.stored: frozenset[object] = frozenset(stored)
        self.failed: dict[Any, Exception] = dict(failed)
        self.unknown: dict[Any, Exception] = dict(unknown)
        first = next(iter([*self.failed.values(), *self.unknown.values()]), None)
        super().__init__(
            f"{len(self.stored)} keys changed, {len(self.failed)} not changed ({_some(self.failed)}), "
            f"{len(self.unknown)} unknown ({_some(self.unknown)}); first reason: {first}"
        )
        self.__cause__ = first


class ContentionError(CacheError):
    """Others changed a value between reading and writing it, every time. Nothing was changed; the call may be repeated.

    Attributes:
        key: The key, as the cache holds it.
        attempts: How often it was tried.
    """

    def __init__(self, key: object, attempts: int) -> None:
        super().__init__(f"key {_short(key)}: changed by others during each of {attempts} attempts; try again later")
        self.key = key
        self.attempts = attempts


# -- writing behind the cache ------------------------------------------------------------------------------------


class BacklogFullError(CacheError, TimeoutError):
    """Too much waits to be written behind the cache, and it has not become less in time. Nothing was changed.

    Attributes:
        shard: Name of the shard.
        length: How many changes wait there.
        limit: ``max_backlog``.
    """

    def __init__(self, shard: str, length: int, limit: int) -> None:
        super().__init__(
            f"shard {shard}: {length} changes wait to be written, max_backlog={limit}; the writer is slow or failing "
            f"(health().writing tells), or no process runs that has one"
        )
        self.shard = shard
        self.length = length
        self.limit = limit


class FlushTimeoutError(CacheError, TimeoutError):
    """Not everything was written behind the cache in time. It is written later all the same.

    Attributes:
        seconds: How long was waited.
        trouble: The newest of this process's writer or of the queues, as ``stats().writing.last_error``; may be empty.
    """

    def __init__(self, seconds: float, trouble: str = "") -> None:
        text = f"not everything was written within {seconds:g} s; the rest is not lost, and is written later"
        super().__init__(f"{text} (newest trouble: {trouble})" if trouble else text)
        self.seconds = seconds
        self.trouble = trouble


# -- embedded servers --------------------------------------------------------------------------------------------


class EmbeddedError(CacheError):
    """The embedded servers could not be started or reached."""


class ServerNotFoundError(EmbeddedError):
    """No Redis server program was found for the embedded default."""


def _restore(cls: type[CacheError], args: tuple[Any, ...]) -> CacheError:
    error = cls.__new__(cls)
    error.args = args
    return error


def with_key(error: E, key: object) -> E:
    """Have an error of a value, if it is one, say which key the value was for. Returns the same error."""
    if isinstance(error, (UnencodableValueError, ValueTooLargeError)) and error.key is None:
        error.key = key
        error.args = (f"{error} (key {_short(key)})",)
    return error


def words_of(error: BaseException) -> str:
    """What an error says. The user's may raise when they are asked, which is no reason to raise that instead."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001  as in _short
        return f"<its str() raised {type(failure).__name__}>"


# A plain repr() of nested tuples that share their parts can be longer than memory.
_REPR = reprlib.Repr()
_REPR.maxlevel = _REPR.maxtuple = _REPR.maxlist = _REPR.maxdict = _REPR.maxset = _REPR.maxfrozenset = 4
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 250


def _short(obj: object, limit: int = 80) -> str:
    try:
        text = _REPR.repr(obj)
    except Exception as failure:  # noqa: BLE001  whatever the repr did, our error must come through
        return f"<{type(obj).__qualname__} whose repr() raised {type(failure).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 20]}..."


def _some(keys: Mapping[Any, Exception]) -> str:
    names = [_short(key) for key in list(keys)[:3]]
    return ", ".join(names + ["..."] * (len(keys) > 3)) or "none"
