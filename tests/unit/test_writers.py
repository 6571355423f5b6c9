"""What may be given as ``writer=``, and the options beside it."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache import ConfigError, Writer
from nearcache.coroutines import is_coroutine_function
from nearcache.options import parse

REDIS = "redis://a"


def write(key: Any, value: Any) -> None:
    """Do nothing."""


class Store:
    """Has some of the methods."""

    def write_many(self, values: Any) -> None:
        """Do nothing."""

    def delete(self, key: Any) -> None:
        """Do nothing."""


class CallableStore(Store):
    """Its methods count, not that it can be called."""

    def __call__(self) -> None:
        """Do nothing."""


def test_function_is_what_writes_one_key() -> None:
    """Any callable that is no class."""
    assert parse(REDIS, writer=write).writer == Writer(write=write)


def test_object_is_taken_by_the_methods_it_has() -> None:
    """One of the two that write is enough."""
    store = Store()
    expected = Writer(write_many=store.write_many, delete=store.delete)
    assert parse(REDIS, writer=store).writer == expected
    assert expected.deletes
    store = CallableStore()
    assert parse(REDIS, writer=store).writer == Writer(write_many=store.write_many, delete=store.delete)


def test_writer_is_taken_as_it_is() -> None:
    """And ``None`` is none."""
    writer = Writer(write=write)
    assert parse(REDIS, writer=writer).writer is writer
    assert not writer.deletes
    assert parse(REDIS, writer=None).writer is None


@pytest.mark.parametrize("given", [5, "write", object(), Store, [write]])
def test_anything_else_is_refused_with_what_is_allowed(given: Any) -> None:
    """A class too: its methods would have no object."""
    with pytest.raises(ConfigError, match=r"option writer=.*write\(key, value\)"):
        parse(REDIS, writer=given)


def test_methods_that_cannot_be_called_are_refused() -> None:
    """By name, and at the door."""
    with pytest.raises(ConfigError, match=r"writer\.delete=5"):
        Writer(write=write, delete=5)  # type: ignore[arg-type]  # as it says
    with pytest.raises(ConfigError, match="write or write_many"):
        Writer(delete=write)  # type: ignore[arg-type]  # it is not called


def test_options_of_the_queue_need_what_they_are_about() -> None:
    """A queue without a writer, or settings of a queue that there is not."""
    with pytest.raises(ConfigError, match=r"write_delay=1\.0: it needs writer="):
        parse(REDIS, write_delay=1)
    for option in ("write_batch", "write_attempts", "max_backlog"):
        with pytest.raises(ConfigError, match=f"{option}=5: .*write_delay="):
            parse(REDIS, writer=write, **{option: 5})
        assert getattr(parse(REDIS, writer=write, write_delay=0, **{option: 5}), option) == 5
    assert parse(REDIS + "?write_delay=2.5&max_backlog=7", writer=write).write_delay == 2.5


@pytest.mark.parametrize(
    ("option", "value"),
    [("write_delay", -1), ("write_delay", 86_401), ("write_batch", 0), ("write_attempts", 0), ("max_backlog", 0)],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    """With the option and the value."""
    with pytest.raises(ConfigError, match=f"{option}={value}"):
        parse(REDIS, **{"writer": write, "write_delay": 1, option: value})


def test_memory_caches_have_no_writer() -> None:
    """Their queue would keep no promise."""
    with pytest.raises(ConfigError, match="memory:// takes None alone"):
        parse("memory://", writer=write)


def test_writer_in_a_url_is_refused() -> None:
    """It is a Python object."""
    with pytest.raises(ConfigError, match="keyword"):
        parse(REDIS + "?writer=f")


def test_coroutine_functions_are_known_in_every_form() -> None:
    """As functions and as objects that are called."""

    async def function() -> None:
        """Do nothing."""

    class Called:
        async def __call__(self) -> None:
            """Do nothing."""

    assert [is_coroutine_function(each) for each in (function, Called(), write, Store())] == [True, True, False, False]
