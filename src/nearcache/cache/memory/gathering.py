"""Loading many keys of a ``memory://`` cache by one call: one generator, carried out by a thread or by a task."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..._store import Op
from ...absence import ABSENT, Absent
from ...answers import checked_answers, single
from ...changes import MISSING
from ...coroutines import carried
from ...flights import ABANDONED, Load

if TYPE_CHECKING:
    from .cache import MemoryCache

#: A list of keys to call the bulk loader with, or a load of another caller to wait for.
Request = list[Any] | Load


@dataclass(slots=True, eq=False)
class _Part:
    """One key: its load, what was asked for, and the operation, if the loader is to be asked."""

    mine: Load
    wanted: Any
    op: Op | None = None


def gathering(
    cache: MemoryCache[Any, Any], keys: list[Any], load_many: Any, ttl: Any, tags: Any, limit_ns: int | None
) -> Generator[Request, Any, dict[Any, Any]]:
    """Return the values of many keys; those that have none are left out. Who is answered may be any thread or task.

    A load is over before another one is waited for: two that want the same keys do not wait for each other.
    """
    loader = single(load_many)  # for values that have grown old
    wanted = {key: cache._wanted(key, ttl, tags, limit_ns) for key in keys}
    found: dict[Any, Any] = {}
    todo: dict[Any, Any] = {}
    for each in wanted.values():
        old = MISSING if limit_ns is not None else cache._old_value(each, loader)
        if old is MISSING:
            todo.setdefault(each.name, each)
        else:
            found[each.name] = old
    while todo:
        again = yield from _round(cache, load_many, list(todo.values()), found, limit_ns)
        todo = {name: todo[name] for name in again}
    values = {key: found[each.name] for key, each in wanted.items()}
    return {key: value for key, value in values.items() if not isinstance(value, Absent)}


def _end_each(cache: MemoryCache[Any, Any], parts: list[_Part]) -> None:
    while parts:
        part = parts[-1]
        if part.op is not None:
            cache.l1_abandon(part.op, drop=False)  # unless it is finished
        cache._loads.end(part.mine)
        parts.pop()


def _round(
    cache: MemoryCache[Any, Any], load_many: Any, todo: list[Any], found: dict[Any, Any], limit_ns: int | None
) -> Generator[Request, Any, list[Any]]:
    parts: list[_Part] = []
    others: list[Load] = []
    try:
        for wanted in todo:
            part = _Part(Load(wanted.name), wanted)
            part.mine.beside = parts
            parts.append(part)
            flight = cache._loads.begin(part.mine)
            if flight is not part.mine:
                parts.pop()
                others.append(flight)
            else:
                part.op = cache._begin_load(part.mine, wanted)
        asked = [part for part in parts if part.op is not None]
        if asked:
            yield from _load(cache, load_many, asked)
        found.update((part.wanted.name, part.mine.value) for part in parts)
    except Exception as error:
        for part in parts:
            if part.mine.value is ABANDONED and part.mine.error is None:
                part.mine.error = error
        raise
    finally:
        try:
            _end_each(cache, parts)
        finally:  # an interrupt in the middle of it ends them all the same
            _end_each(cache, parts)
    again = []
    for flight in others:
        try:
            value = yield flight
        except KeyError:  # a loader's word that there is none, but a bulk loader has another for that
            if flight.beside is not None:
                raise
            value = ABSENT
        if value is ABANDONED or limit_ns is not None:  # it may be any age
            again.append(flight.key)
        else:
            found[flight.key] = value
    return again


def _load(cache: MemoryCache[Any, Any], load_many: Any, asked: list[_Part]) -> Generator[Request, Any, None]:
    keys = [part.wanted.key for part in asked]
    cache._count(loads=1)
    try:
        answers = checked_answers(load_many, (yield keys))
        cache._count(surplus=len(answers.keys() - set(keys)))
        unfit: Exception | None = None
        for part in asked:
            answer = answers.get(part.wanted.key, ABSENT)
            assert part.op is not None
            if answer is ABSENT and not cache._freshness.negative_ms:
                part.mine.value = answer
                continue
            try:
                cache._finish_load(part.mine, part.op, part.wanted, answer)
            except Exception as error:  # noqa: BLE001  of this key alone: it is raised when the others' values are kept
                part.mine.error = error
                unfit = unfit or error
        if unfit is not None:
            raise unfit
    except BaseException:
        cache._count(load_errors=1)
        raise


def in_this_thread(
    cache: MemoryCache[Any, Any], steps: Generator[Request, Any, Any], load_many: Callable[[list[Any]], Any]
) -> Any:
    """Carry the generator out here."""
    try:
        request = next(steps)
        while True:
            try:
                answer = cache._loads.wait(request) if isinstance(request, Load) else carried(load_many, list(request))
            except BaseException as error:  # noqa: BLE001  an interrupt too: there is something to undo
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as stop:
        return stop.value
