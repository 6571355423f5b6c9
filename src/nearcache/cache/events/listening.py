"""From what happens in a cache to events for those who listen.

Nothing here exists before somebody listens; then a hub does. In ``memory://`` the compiled store tells it of whatever
comes and goes. On Redis only the server knows the order of changes, so it is told of them by the lane's messages, also
those of this process, whose write ids were noted when they were sent. What L1 gave up or outlived, the store tells.

::

    cache --> hub --> subscriptions --> the user's functions --> perhaps the cache: for the collector to find
               ^
               : weak
    tier, the listener's thread --> reporter
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..._reads import Event
from ...absence import ABSENT
from ...codecs import thaw
from ...coroutines import is_coroutine_function
from ...errors import ConfigError
from ...events import EntryEvent, EventCause, EventKind, EventOrigin, check_kinds
from ...forks import tell, tell_of_forks
from ...logs import Recurring
from ...options import RemovalCause
from .subscriptions import Subscription, await_thread

if TYPE_CHECKING:
    from ...bus import Listener
    from ...loading import Tier

#: The value is not known.
_UNSEEN: Final[Any] = object()
#: Most changes of this process whose messages are waited for. Some come without any.
_OWN: Final = 16_384
#: What the store says of entries -> what listeners are told.
_FATES: Final[dict[str, EventKind]] = {
    "invalidated": "removed",
    "dropped": "removed",
    "expired": "expired",
    "evicted": "evicted",
}
_COMING: Final = frozenset({"created", "updated"})
#: What the store tells of when one entry is put in the place of another.
_EXCHANGING: Final = _COMING | {"replaced", "dropped"}

#: Most events that wait for one listener, if nothing else is said.
QUEUE: Final = 10_000

#: Two threads that listen first at the same time make one hub. Re-entrant, as every lock here: a destructor, or a
#: signal's handler, may begin to listen, or cease to, in the middle.
making = threading.RLock()


class Hub:
    """Passes events on to the subscriptions of one cache.

    Args:
        namespace: The cache's.
        on_removal: The cache's own ``on_removal``, which the store tells nothing any more once it tells the hub.
    """

    def __init__(self, namespace: str, on_removal: Callable[[Any, Any, RemovalCause], object] | None) -> None:
        self.namespace = namespace
        self._on_removal = on_removal
        self._subscriptions: tuple[Subscription, ...] = ()
        self._lock = threading.RLock()
        tell_of_forks(self, Hub.after_fork)

    def add(
        self, function: Callable[[EntryEvent], object], kinds: frozenset[str], limit: int, path: tuple[Any, ...]
    ) -> Subscription:
        """Begin to tell a function of events."""
        made = Subscription(function, kinds, limit, path, self)
        self._change(lambda known: (*known, made))
        return made

    def leave(self, subscription: Subscription) -> None:
        """Tell it nothing more."""
        self._change(lambda known: tuple(each for each in known if each is not subscription))

    def _change(self, change: Callable[[tuple[Subscription, ...]], tuple[Subscription, ...]]) -> None:
        with self._lock:
            known = None
            while known is not self._subscriptions:  # else there was another change in the middle
                known = self._subscriptions
                changed = change(known)
            self._subscriptions = changed

    def catch_up(self, until: float | None) -> bool:  # noqa: ARG002  there is nothing to wait for
        """Wait until what has been changed so far is known here; False: it is not, by then (``time.monotonic``)."""
        return True

    def close(self) -> None:
        """Tell nobody anything more."""
        for each in self._subscriptions:
            each.close()

    def after_fork(self) -> None:
        """In the child: threads are gone, and locks may be held."""
        global making
        making, self._lock = threading.RLock(), threading.RLock()
        for each in self._subscriptions:
            tell(each.after_fork)

    def tell(
        self, kind: EventKind, key: Any, cause: EventCause, value: Any = _UNSEEN, origin: EventOrigin = "local"
    ) -> None:
        """Pass an event on."""
        event = None
        for each in self._subscriptions:
            if kind in each.kinds:
                if event is None:
                    known = value is not _UNSEEN
                    event = EntryEvent(kind, key, thaw(value) if known else None, known, cause, origin)
                each.put(event)

    def went(self, key: Any, value: Any, cause: Any) -> None:
        """Tell ``on_removal`` what the store used to."""
        if self._on_removal is not None:
            self._on_removal(key, value, cause)


class _Manner(NamedTuple):
    """How what a thread does just now is to be told of: why, and whether there was a value; None: not at all."""

    cause: EventCause | None
    existed: bool


class MemoryHub(Hub):
    """Of a ``memory://`` cache: the store tells of everything, except that a method may know better what it means."""

    def __init__(self, namespace: str, on_removal: Callable[[Any, Any, RemovalCause], object] | None) -> None:
        super().__init__(namespace, on_removal)
        self._manners: dict[int, _Manner] = {}

    def told(self, key: Any, value: Any, cause: Any) -> None:
        """The store says that an entry has come or gone."""
        speaker = threading.get_ident()
        manner = self._manners.get(speaker)
        if manner is not None and cause in _EXCHANGING:
            if manner.cause is not None and cause in _COMING:
                self.tell("updated" if manner.existed else "created", key, manner.cause, value)
        elif cause in _COMING:
            self.tell(cause, key, "stored", value)
        elif cause in _FATES:
            self.tell(_FATES[cause], key, cause, value)
        if self._on_removal is not None and cause not in _COMING:
            self._manners.pop(speaker, None)  # what it does with the cache is told as ever
            try:
                self.went(key, value, cause)
            finally:
                if manner is not None:
                    self._manners[speaker] = manner

    @contextmanager
    def telling(self, cause: EventCause | None, *, existed: bool) -> Iterator[None]:
        """A context in which what the calling thread stores is told of in this way; None: not at all."""
        speaker = threading.get_ident()
        self._manners[speaker] = _Manner(cause, existed)
        try:
            yield
        finally:
            self._manners.pop(speaker, None)


@dataclass(slots=True)
class _Own:
    """A change that this process has sent.

    Attributes:
        values: By name, the new value, and whether this process knew of one before.
        existed: What the way of writing says about that, for all names; None: nothing.
        is_silent: Whether the message means no change of a value.
    """

    values: dict[Any, tuple[Any, bool]] = field(default_factory=dict)
    existed: bool | None = None
    is_silent: bool = False


class TieredHub(Hub):
    """Of a cache on Redis: the store tells of L1 only, and a :class:`Reporter` of changes."""

    def __init__(
        self, on_removal: Callable[[Any, Any, RemovalCause], object] | None, tier: Tier, listener: Listener
    ) -> None:
        super().__init__(tier.namespace, on_removal)
        self._tier = tier
        self._listener = listener

    def told(self, key: Any, value: Any, cause: Any) -> None:
        """An entry has gone from L1. What others did to it is told by messages."""
        if cause in ("expired", "evicted"):
            self.tell(cause, key, cause, value)
        self.went(key, value, cause)

    def catch_up(self, until: float | None) -> bool:
        """Wait until all messages that are in the servers by now have come; those of a lost lane are ``missed``."""
        thread = self._listener.thread
        if thread is None or thread is threading.current_thread():
            return True
        fences = [(lane, Event()) for lane in self._tier.now.active]
        asked = [reached for lane, reached in fences if self._listener.fence(lane, reached.set)]
        return all(await_thread(thread, reached, until) for reached in asked)


class Reporter:
    """Tells a hub of the changes on Redis: of what the lanes say, in the order in which the server made them.

    Args:
        hub: Held weakly, for the tier and the listener's thread, which have the reporter, do not go with the cache.
        knows: Whether L1 has a value under a name.
        scripts: The tier's.
    """

    def __init__(self, hub: TieredHub, knows: Callable[[Any], bool], scripts: Any) -> None:
        self._hub = weakref.ref(hub)
        self._knows = knows
        self._scripts = scripts
        self._namespace = hub.namespace
        self._own: dict[int, _Own] = {}
        self._losses = Recurring()

    def _tell(
        self, kind: EventKind, key: Any, cause: EventCause, value: Any = _UNSEEN, origin: EventOrigin = "local"
    ) -> None:
        hub = self._hub()
        if hub is not None:
            hub.tell(kind, key, cause, value, origin)

    # -- what this process sends

    def writing(self, wid: int, name: Any, value: Any) -> None:
        """A value is about to be sent."""
        self._sent(wid).values[name] = (value, self._knows(name))

    def calling(self, script: Any, arguments: tuple[bytes, ...]) -> None:
        """A script is about to be called, which may send a message under the id that is its first argument."""
        scripts = self._scripts
        if script is scripts.set:
            own, mode = self._sent(int(arguments[0], 16)), arguments[2]
            if mode.endswith(b"NX"):
                own.existed = False
            elif mode[-19:].startswith(b"CAS"):
                own.existed = True
        elif script is scripts.touch:
            self._sent(int(arguments[0], 16)).is_silent = True
        elif script is scripts.invalidate or script is scripts.take or script is scripts.clear:
            self._sent(int(arguments[0], 16))

    def loaded_alone(self, wid: int) -> None:
        """A loaded value was stored, and no message says so: there was none before, and nobody waited."""
        for name, (value, _) in self._own.pop(wid, _Own()).values.items():
            if value is not ABSENT:
                self._tell("created", name, "loaded", value)

    def _sent(self, wid: int) -> _Own:
        own = self._own.get(wid)
        if own is None:
            own = self._own[wid] = _Own()
            if len(self._own) > _OWN:
                for oldest in list(self._own)[: _OWN // 2]:  # at one go: other threads change it, and an iterator minds
                    self._own.pop(oldest, None)
        return own

    # -- what the lanes say; none of it may raise

    def heard(self, _lane: int, operation: str, keys: list[Any], wid: int) -> None:
        """A message names keys, by the names that the cache has for them; it is not applied yet."""
        try:
            own = self._own.pop(wid, None)
            if own is None or not own.is_silent:
                for key in keys if operation in "SFI" else ():
                    self._tell_of(operation, key, own)
        except Exception as error:  # noqa: BLE001  the lane goes on
            self._losses.log(logging.ERROR, "namespace %s: an event was lost", self._namespace, error=error)

    def _tell_of(self, operation: str, key: Any, own: _Own | None) -> None:
        origin: EventOrigin = "remote" if own is None else "local"
        if operation == "I":
            self._tell("removed", key, "invalidated", origin=origin)
            return
        cause: EventCause = "stored" if operation == "S" else "loaded"
        if own is None:
            self._tell("updated" if self._knows(key) else "created", key, cause, origin=origin)
            return
        value, known = own.values.get(key, (_UNSEEN, False))
        if value is ABSENT:  # the loader found that there is none
            self._tell("removed", key, cause)
            return
        known = known if own.existed is None else own.existed
        self._tell("updated" if known else "created", key, cause, value)

    def cleared(self, wid: int) -> None:
        """A message says that everything in a lane is gone."""
        own = self._own.pop(wid, None)
        self._tell("cleared", None, "cleared", origin="remote" if own is None else "local")

    def missed(self) -> None:
        """Messages may have been lost."""
        self._tell("missed", None, "lost")


class Listened:
    """What caches and views have in common for those who listen. ``_add_listener`` does the work."""

    __slots__ = ()

    def listen(
        self, function: Callable[[EntryEvent], object], events: Iterable[str] | None = None, *, queue: int = QUEUE
    ) -> Subscription:
        """Have a function called with an :class:`EntryEvent` for each change of an entry, here or in another process.

        It is called by a thread of its own, one event after the other, after the change, with no lock held. What it
        raises is logged and counted. docs/events.md says which changes are told, in what order, and what may be missed.

        Args:
            function: Called with the event.
            events: The kinds to be told of: ``created``, ``updated``, ``removed``, ``expired``, ``evicted``,
                ``cleared``, ``missed``; None: all but ``evicted``.
            queue: Most events that wait for the function, 1 to 1,000,000. While so many do, further ones are dropped.
        Returns:
            A handle: ``close()`` ends it; it is a context manager, and counts.
        Raises:
            ConfigError: There is no such kind, or ``queue`` is out of range.
            TypeError: It cannot be called, or is a coroutine function: for those there is ``cache.aio.listen``.
        """
        if not callable(function) or is_coroutine_function(function):
            raise TypeError(f"listen({function!r}): give a function; for a coroutine function, cache.aio.listen")
        if not isinstance(queue, int) or isinstance(queue, bool) or not 1 <= queue <= 1_000_000:
            raise ConfigError("queue", queue, "give a whole number from 1 to 1000000")
        return self._add_listener(function, check_kinds(events), queue, ())

    def _add_listener(
        self, function: Callable[[EntryEvent], object], kinds: frozenset[str], limit: int, path: tuple[Any, ...]
    ) -> Subscription:
        raise NotImplementedError


class Telling(Listened):
    """What caches have of it: a hub, once there is a listener."""

    __slots__ = ()
    _hub: Hub | None = None

    def _add_listener(
        self, function: Callable[[EntryEvent], object], kinds: frozenset[str], limit: int, path: tuple[Any, ...]
    ) -> Subscription:
        self._use()
        with making:
            hub = self._hub
            if hub is None:
                made = self._make_hub()
                hub = self.__dict__.setdefault("_hub", made)  # another may have been made in the middle of it
                if hub is made:
                    self._begin_telling(made)
        return hub.add(function, kinds, limit, path)

    def _use(self) -> None:
        """Raise ClosedError if the cache was closed."""
        raise NotImplementedError

    def _make_hub(self) -> Hub:
        raise NotImplementedError

    def _begin_telling(self, hub: Any) -> None:
        """Have the hub told of everything from now on."""
        raise NotImplementedError
