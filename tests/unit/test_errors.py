"""Exceptions: one root, data as attributes, and messages that can always be made."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

from nearcache import errors
from support.errors import everything_said

BULK = errors.BulkError(
    ["a"],
    {"b": errors.ServerReplyError("s1", "OOM command not allowed")},
    {"c": errors.ShardUnavailableError("s2", "no answer in 1.0 s", sent=True)},
)

#: One of each class, and what a caller may read from it.
EXAMPLES: list[tuple[errors.CacheError, dict[str, Any], list[str]]] = [
    (errors.CacheError("x"), {}, ["x"]),
    (errors.ConfigError("ttl", -1, "give seconds"), {"option": "ttl", "value": -1}, ["ttl=-1", "give seconds"]),
    (errors.ClosedError("closed"), {}, ["closed"]),
    (errors.UnencodableKeyError([1], "use a tuple"), {"key": [1]}, ["[1]", "use a tuple"]),
    (errors.UnencodableValueError("m.C", "register it"), {"type_name": "m.C"}, ["m.C", "register it"]),
    (
        errors.ValueTooLargeError(9, 8, "max_value"),
        {"size_bytes": 9, "limit_bytes": 8},
        ["9 bytes", "max_value=8", "raise max_value"],
    ),
    (errors.DecodeError("torn"), {}, ["torn"]),
    (errors.ForgedError("no MAC"), {}, ["no MAC"]),
    (errors.LoadCycleError(["a", "b", "a"]), {"chain": ("a", "b", "a")}, ["'a' -> 'b' -> 'a'"]),
    (errors.LoadTimeoutError("k", 0.5), {"key": "k", "seconds": 0.5}, ["'k'", "loader_timeout=0.5"]),
    (errors.ShardError("s1", "odd"), {"shard": "s1"}, ["shard s1: odd"]),
    (errors.ShardUnavailableError("s1", "gone", sent=True), {"shard": "s1", "sent": True}, ["s1", "gone"]),
    (errors.ServerReplyError("s1", "OOM no memory"), {"shard": "s1", "code": "OOM"}, ["s1", "OOM no memory"]),
    (errors.AuthenticationFailedError("s1", "refused"), {"shard": "s1"}, ["s1", "refused"]),
    (errors.NotReplicatedError("s1", 0.5), {"shard": "s1", "seconds": 0.5}, ["s1", "0.5"]),
    (errors.NotRedisError("s1", "HTTP"), {"shard": "s1"}, ["s1", "HTTP"]),
    (errors.UnsupportedServerError("s1", "5.0"), {"shard": "s1"}, ["s1", "5.0"]),
    (errors.CoherenceError("deaf"), {}, ["deaf"]),
    (errors.UnknownMasterError("m1", "nobody knows it"), {"shard": "m1"}, ["m1", "nobody"]),
    (
        errors.ShardListError("shop", "s1", "[a]", "version 4, [a, b]"),
        {"mine": "[a]", "theirs": "version 4, [a, b]"},
        ["namespace shop", "started with [a], but shard s1 has recorded version 4, [a, b]", "reshard()"],
    ),
    (errors.ReshardError("s1 did not answer", ["s1"]), {"shards": ("s1",)}, ["s1 did not answer"]),
    (errors.WrongTopologyError("h:1", "it is a node"), {"shard": "h:1"}, ["h:1", "node"]),
    (BULK, {"stored": frozenset(["a"])}, ["1 keys changed", "'b'", "'c'", "OOM"]),
    (errors.ContentionError("k", 3), {"key": "k", "attempts": 3}, ["key 'k'", "each of 3 attempts", "later"]),
    (
        errors.BacklogFullError("s1", 9, 8),
        {"shard": "s1", "length": 9, "limit": 8},
        ["shard s1", "9 changes", "max_backlog=8"],
    ),
    (errors.FlushTimeoutError(1.5), {"seconds": 1.5, "trouble": ""}, ["within 1.5 s", "not lost"]),
    (
        errors.FlushTimeoutError(1.5, "OSError: db down"),
        {"seconds": 1.5, "trouble": "OSError: db down"},
        ["within 1.5 s", "(newest trouble: OSError: db down)"],
    ),
    (errors.EmbeddedError("x"), {}, ["x"]),
    (errors.ServerNotFoundError("x"), {}, ["x"]),
]
CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]


class Hostile:
    """Something whose repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr for you")


@pytest.mark.parametrize(("error", "attributes", "parts"), EXAMPLES, ids=lambda part: type(part).__name__)
def test_error_attributes_and_message_say_what_happened(
    error: errors.CacheError, attributes: dict[str, Any], parts: list[str]
) -> None:
    """What a handler needs stands in attributes; what a person needs stands in the message."""
    assert {name: getattr(error, name) for name in attributes} == attributes
    assert [part for part in parts if part not in str(error)] == []


def test_error_examples_every_class_is_among_them() -> None:
    """No class of the module goes without an example above."""
    assert {type(error) for error, _, _ in EXAMPLES} == set(CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_error_any_class_has_the_one_root(cls: type[Exception]) -> None:
    """``except CacheError`` catches everything that nearcache raises of its own accord."""
    assert issubclass(cls, errors.CacheError)
    assert inspect.getdoc(cls)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.ValueTooLargeError, ValueError),
        (errors.UnencodableKeyError, TypeError),
        (errors.UnencodableValueError, TypeError),
        (errors.ShardUnavailableError, ConnectionError),
        (errors.ClosedError, RuntimeError),
        (errors.LoadCycleError, RuntimeError),
        (errors.LoadTimeoutError, TimeoutError),
    ],
)
def test_error_class_is_also_the_builtin_one_expects(cls: type[Exception], builtin: type[Exception]) -> None:
    """Code that knows nothing of nearcache can catch the nearest built-in exception."""
    assert issubclass(cls, builtin)


@pytest.mark.parametrize("cls", CLASSES)
def test_error_no_class_looks_like_a_miss(cls: type[Exception]) -> None:
    """A failure must never be taken for a missing key, nor a missing key for a failure."""
    assert not issubclass(cls, KeyError)


@pytest.mark.parametrize(("error", "attributes", "parts"), EXAMPLES, ids=lambda part: type(part).__name__)
def test_error_pickled_copy_says_the_same(
    error: errors.CacheError, attributes: dict[str, Any], parts: list[str]
) -> None:
    """Errors cross process boundaries: a pool of workers hands them to its parent."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert {name: getattr(copy, name) for name in attributes} == attributes


@pytest.mark.parametrize(
    "make",
    [
        lambda obj: errors.ConfigError("maxsize", obj, "give a number"),
        lambda obj: errors.UnencodableKeyError(obj, "give a text"),
        lambda obj: errors.LoadCycleError([obj, obj]),
        lambda obj: errors.LoadTimeoutError(obj, 1.0),
        lambda obj: errors.BulkError([], {obj: errors.CacheError("x")}, {}),
    ],
)
@pytest.mark.parametrize("obj", [Hostile(), "x" * 10_000, (("y" * 100,) * 100)], ids=["hostile", "long", "deep"])
def test_error_about_any_object_has_a_short_message(make: Any, obj: object) -> None:
    """A message can be made about an object whose repr raises or fills pages."""
    assert len(str(make(obj))) < 400


def test_bulk_error_many_keys_names_a_few() -> None:
    """The message about a thousand keys names three; the attributes hold them all."""
    error = errors.BulkError([], dict.fromkeys(range(1000), errors.CacheError("reason")), {})
    assert "1000 not changed (0, 1, 2, ...)" in str(error)
    assert "first reason: reason" in str(error)
    assert len(error.failed) == 1000
    assert error.__cause__ is error.failed[0]


def test_server_reply_error_wrongtype_says_what_to_do_about_a_lane_record() -> None:
    """As NCRECORD does of one whose fields are damaged. Redis 6.2 and 7.0 have the code in different places."""
    for reply in (
        "WRONGTYPE Operation against a key holding the wrong kind of value script: c7, on @user_script:26.",
        "ERR Error running script (call to f_c7): @user_script:26: WRONGTYPE Operation against a key holding the wrong",
    ):
        assert "remove that, and it is made anew (docs/operations.md)" in str(errors.ServerReplyError("s1", reply))


@pytest.mark.parametrize("name", ["'AUTH'", "`AUTH`"])
def test_server_reply_says_nothing_of_what_it_was_sent(name: str) -> None:
    """A server that does not know a command repeats what came with it: a password, keys, values."""
    error = errors.ServerReplyError("s1", f"ERR unknown command {name}, with args beginning with: 'nc' 's3cret' ")
    assert error.reply == f"ERR unknown command {name}"
    assert "s3cret" not in everything_said(error)


def test_bulk_error_later_change_of_the_arguments_does_not_show() -> None:
    """The error keeps copies: it is often raised while the caller's dicts live on."""
    failed: dict[Any, Exception] = {"a": errors.CacheError("x")}
    error = errors.BulkError([], failed, {})
    failed.clear()
    assert list(error.failed) == ["a"]


def test_bulk_error_without_reasons_has_a_message() -> None:
    """A bulk error without any reason still has a message."""
    assert str(errors.BulkError(["a", "b"], {}, {})).startswith("2 keys changed, 0 not changed (none)")


def test_shard_error_given_the_message_of_another_names_the_shard_once() -> None:
    """Reasons are errors of the same shard, mostly."""
    reason = errors.ServerReplyError("s1", "BUSY a script")
    assert str(errors.ShardUnavailableError("s1", str(reason))) == str(reason)
    assert str(errors.ShardUnavailableError("s2", str(reason))) == f"shard s2: {reason}"


@pytest.mark.parametrize(("reply", "is_halfway"), [
    ("ERR The user executing the script can't run this command or subcommand script: c7, on @user_script:71.", True),
    ("ERR Error running script (call to f_c7): @user_script:71: @user_script: 71: -NOPERM this user", True),
    ("ERR ACL failure in script: User nc has no permissions to run the 'hset' command script: c7, on @user_script:9.",
     True),
    ("OOM command not allowed when used memory > 'maxmemory'. script: c7, on @user_script:66.", False),
    ("NOPERM this user has no permissions to run the 'evalsha' command", False),
])  # fmt: skip
def test_server_reply_error_tells_scripts_that_ended_halfway(reply: str, *, is_halfway: bool) -> None:
    """As Redis 7.0, 6.2 and later ones say it. Wherever a right is missing, it says where all of them stand."""
    error = errors.ServerReplyError("s1", reply)
    assert error.is_halfway == is_halfway
    assert ("docs/operations.md" in str(error)) == (not reply.startswith("OOM"))
