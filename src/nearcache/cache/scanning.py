"""Walking through all keys that have a value, not only those in this process's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from ..keys import encode_key

K = TypeVar("K")


class Scannable(Generic[K]):
    """A cache or a view, as far as its keys in L2 are concerned."""

    __slots__ = ()

    def scan(self, prefix: str | bytes | None = None) -> Iterator[K]:
        """Return an iterator over the keys that have a value in L2, as the cache holds them, in no order.

        It asks the servers for some hundred keys at a time, as they are wanted, so they are never kept busy and no
        list of all keys is made. What is there from the beginning to the end comes at least once; what comes or goes
        meanwhile may come or not. A key may come twice, where a server makes room for more keys or is replaced.
        What nearcache stores for itself does not come: no generation of a cached function, which ``keys()`` has.

        Args:
            prefix: Only text, or bytes, that begins with this; ``None``: keys of all kinds. The servers look at all
                their keys in any case.
        Raises:
            TypeError: ``prefix`` is neither.
        The iterator raises:
            ShardUnavailableError, ServerReplyError: A shard did not answer, or does not let this user SCAN.
        Cost: two round trips for some 500 keys of a server, those of other programs included. In a cluster two more for
            each node; without ``INFO`` it is walked through for each of its lanes. In ``memory://`` no I/O: it tells
            what this process holds.
        """
        return self._scan(checked(prefix))

    def _scan(self, prefix: str | bytes | None) -> Iterator[Any]:
        raise NotImplementedError


def checked(prefix: Any) -> str | bytes | None:
    """Return the beginning of keys that was given. Raises as :meth:`Scannable.scan`."""
    if prefix is None or isinstance(prefix, (str, bytes)):
        return prefix
    raise TypeError(f"scan({prefix!r}): give the beginning of keys that are text, or of keys that are bytes")


def beginning(prefix: str | bytes | None) -> bytes:
    """Return what the encodings of the keys that begin so begin with."""
    return b"" if prefix is None else encode_key(prefix)


def beginning_under(path: Sequence[str]) -> bytes:
    """Return what the encodings of a view's keys begin with."""
    return b"(" + b"".join(b"%d:%b" % (len(name), name) for name in map(encode_key, path))


def begins(key: Any, prefix: str | bytes | None) -> bool:
    """Whether a key is one that is wanted."""
    if isinstance(prefix, str):
        return isinstance(key, str) and key.startswith(prefix)
    return prefix is None or (isinstance(key, bytes) and key.startswith(prefix))


def under(path: tuple[Any, ...], key: Any) -> bool:
    """Whether a key of the cache is one of a view's: the last part of it is the view's key."""
    return isinstance(key, tuple) and len(key) == len(path) + 1 and key[:-1] == path
