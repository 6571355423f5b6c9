"""The store as a local mapping: every method, hit and miss."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache._store import Store
from support.store_kit import NEVER, Key, local_store


def test_subscript_of_a_stored_key_returns_the_very_object() -> None:
    """A hit hands out the object itself."""
    store = local_store()
    value = object()
    store["k"] = value
    assert store["k"] is value


def test_subscript_of_an_absent_key_raises_keyerror_with_the_key() -> None:
    """KeyError carries the key."""
    with pytest.raises(KeyError) as caught:
        local_store()["absent"]
    assert caught.value.args == ("absent",)


def test_get_of_an_absent_key_returns_the_default() -> None:
    """``get`` takes the default by position and by name."""
    store = local_store()
    assert store.get("k") is None
    assert store.get("k", 5) == 5
    assert store.get("k", default=6) == 6
    store["k"] = 7
    assert (store.get("k"), store.get("k", 5), store.get(key="k", default=6)) == (7, 7, 7)


@pytest.mark.parametrize("arguments", [(), ("a", "b", "c")])
def test_get_with_a_wrong_number_of_arguments_raises_typeerror(arguments: tuple[str, ...]) -> None:
    """The fast entry of ``get`` leaves bad calls to the full one."""
    store = local_store()
    store["a"] = 1
    with pytest.raises(TypeError):
        store.get(*arguments)  # type: ignore[call-overload]  # that is what is tested


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s[[]],
        lambda s: s.get([]),
        lambda s: s.get([], "default"),
        lambda s: [] in s,
        lambda s: s.l1_put([], 1),
        lambda s: s.__setitem__([], 1),
        lambda s: s.__delitem__([]),
        lambda s: s.peek([], 1),
        lambda s: s.l1_hit([], 1),
        lambda s: s.l1_hit_dict([[]], []),
        lambda s: s.drop([]),
        lambda s: s.l1_join([]),
        lambda s: s.l1_suspect([]),
        lambda s: s.lane_apply(0, 1, [[]]),
    ],
)
def test_unhashable_key_raises_typeerror_everywhere(call: Any) -> None:
    """No error of ``__hash__`` is swallowed, least of all in favour of a default."""
    store = local_store()
    store["k"] = 1
    with pytest.raises(TypeError, match="unhashable"):
        call(store)
    store.check_invariants()
    assert store.l1_snapshot() == [("k", 1)]


def test_setitem_on_a_present_key_keeps_the_old_key_object() -> None:
    """As in a dict: 1 and 1.0 are one key, and the first one stays."""
    store = local_store()
    store[1] = "int"
    store[1.0] = "float"
    store[True] = "bool"
    assert [(type(key), value) for key, value in store.l1_snapshot()] == [(int, "bool")]
    assert len(store) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", b"a"),
        ("", b""),
        (-1, -2),
        (2**61 - 1, 0),
        ("ä", "a"),
        (2**70, 2**70 + 1),
        ((1,), (1, 2)),
        ("x", Key("x")),
    ],
)
def test_keys_that_differ_are_two_keys_whatever_their_hashes(one: Any, other: Any) -> None:
    """Equal hashes are no equality."""
    store = local_store()
    store[one] = 1
    store[other] = 2
    assert (store[one], store[other], len(store)) == (1, 2, 2)
    store.check_invariants()


def test_ints_of_every_length_are_told_apart_and_found_by_whatever_equals_them() -> None:
    """The hash of most ints is taken from the object; what is found is what a dict finds."""
    edges = [0, 1, 2**15, 2**30, 2**45, 2**60, 2**61 - 1, 2**61, 2**62, 2**63, 2**64, 2**90]
    edges += [8 * (2**61 - 1) + 2]  # has the hash of -1 with a minus before it, and is too long for C
    numbers = sorted({sign * (edge + step) for edge in edges for step in (-1, 0, 1) for sign in (1, -1)})
    assert len({hash(number) for number in numbers}) < len(numbers)
    store = local_store(None)
    for number in numbers:
        store[number] = str(number)
    for number in numbers:
        again = int(str(number))
        assert store[number] == store[again] == store.get(again) == str(number)
        assert again in store
        assert store.get(float(number)) == {one: str(one) for one in numbers}.get(float(number))
    assert store.l1_hit_dict([int(str(number)) for number in numbers], []) == {one: str(one) for one in numbers}
    assert store.get(2**30 + 7) is None
    assert store[True] == "1"
    assert len(store) == len(numbers)
    store.check_invariants()


@pytest.mark.parametrize(
    "pair",
    [
        ("".join(["ke", "y"]), "".join(["k", "ey"])),
        ("".join(["ü", "ber"]), "".join(["üb", "er"])),
        ("\U0001f600" + str(1), "\U0001f600" + str(1)),
        (bytes([1, 2]), bytes(bytearray([1, 2]))),
        (int("123456789"), int("123456789")),
        (10**30, int("1" + "0" * 30)),
        (float("1.5"), float("1.5")),
        (("a", 1), (*"a", 1)),
        (frozenset([1]), frozenset([1])),
    ],
)
def test_equal_keys_that_are_two_objects_are_one_key(pair: tuple[Any, Any]) -> None:
    """Equality is by value for every kind of key."""
    one, other = pair
    store = local_store()
    store[one] = 1
    assert store[other] == 1
    assert store.get(other) == 1
    assert other in store
    assert store.peek(other) == 1
    del store[other]
    assert one not in store


def test_str_subclass_with_its_own_equality_is_asked() -> None:
    """Only the exact built-in types are compared without ``__eq__``."""

    class Folded(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return isinstance(other, str) and self.lower() == other.lower()

        def __hash__(self) -> int:
            return hash(self.lower())

    store = local_store()
    store["key"] = 1
    assert store[Folded("KEY")] == 1


def test_comparison_of_str_and_bytes_is_not_made() -> None:
    """Under ``python -b`` that would warn, and warnings are errors here."""
    store = local_store()
    store["k"] = 1
    assert b"k" not in store
    assert store.get(b"k") is None


def test_contains_counts_nothing_and_moves_no_recency() -> None:
    """``in`` is not a read."""
    store = local_store(2)
    store["a"] = 1
    store["b"] = 2
    assert "a" in store
    assert "z" not in store
    assert list(store) == ["a", "b"]
    assert (store.l1_counters()["hits"], store.l1_counters()["misses"]) == (0, 0)


def test_peek_counts_nothing_and_moves_no_recency() -> None:
    """``peek`` is not a read either."""
    store = local_store(2)
    store["a"] = 1
    store["b"] = 2
    assert (store.peek("a"), store.peek("z"), store.peek("z", 9)) == (1, None, 9)
    assert list(store) == ["a", "b"]
    assert (store.l1_counters()["hits"], store.l1_counters()["misses"]) == (0, 0)


@pytest.mark.parametrize("read", ["__getitem__", "get", "l1_hit"])
def test_read_that_hits_counts_and_moves_to_the_front(read: str) -> None:
    """Each kind of read makes its key the most recently used."""
    store = local_store()
    for key in "abc":
        store[key] = key
    arguments = ("a", None) if read == "l1_hit" else ("a",)
    assert getattr(store, read)(*arguments) == "a"
    assert list(store) == ["b", "c", "a"]
    assert store.l1_counters()["hits"] == 1


def test_hit_never_calls_a_hook() -> None:
    """``l1_hit`` and ``peek`` do without the subclass."""

    class Loud(Store[str, int]):
        def _missing_get(self, key: str, default: Any) -> Any:
            raise AssertionError

    store = Loud(3)
    assert store.l1_hit("k", 5) == 5
    assert store.peek("k", 5) == 5


def test_hooks_of_a_subclass_answer_misses_with_the_callers_key() -> None:
    """Misses go through ``_missing``, ``_missing_get`` and ``_missing_in``, hits do not."""

    class Hooked(Store[str, Any]):
        def _missing(self, key: str) -> Any:
            return ("missing", key)

        def _missing_get(self, key: str, default: Any) -> Any:
            return ("get", key, default)

        def _missing_in(self, key: object) -> Any:
            return [key]

    store = Hooked(3, keyfunc=str.lower)
    store.lane_vouch(0, NEVER)
    assert store["K"] == ("missing", "K")
    assert store.get("K", 4) == ("get", "K", 4)
    assert ("K" in store) is True
    store["K"] = 1
    assert (store["k"], store.get("K"), store.l1_snapshot()) == (1, 1, [("k", 1)])
    without = Hooked(3)
    without.lane_vouch(0, NEVER)
    without["k"] = 1
    assert all(key in without for key in (*"ABCDEFGHIJ", ("K", 1)))


def test_hook_that_raises_is_heard() -> None:
    """An exception of a hook reaches the caller."""

    class Failing(Store[str, Any]):
        def _missing(self, key: str) -> Any:
            raise LookupError(key)

        _missing_in = _missing

        def _missing_get(self, key: str, default: Any) -> Any:
            raise LookupError(key)

    store = Failing(3)
    for read in (store.__getitem__, store.get, store.__contains__):
        with pytest.raises(LookupError):
            read("k")


def test_delitem_removes_and_raises_keyerror_the_second_time() -> None:
    """``del`` is about valid entries."""
    store = local_store()
    store["k"] = 1
    del store["k"]
    with pytest.raises(KeyError) as caught:
        del store["k"]
    assert caught.value.args == ("k",)


def test_pop_next_takes_the_least_recently_used_pair() -> None:
    """Oldest first, then KeyError."""
    store = local_store()
    store["a"], store["b"] = 1, 2
    store["a"]
    assert store.l1_pop_next() == ("b", 2)
    assert store.l1_pop_next() == ("a", 1)
    with pytest.raises(KeyError):
        store.l1_pop_next()


def test_drop_says_whether_there_was_an_entry() -> None:
    """``drop`` does not mind what state the entry is in."""
    store = local_store()
    store["k"] = 1
    store.lane_suspect(0)
    assert store.drop("k") is True
    assert store.drop("k") is False
    assert len(store) == 0


def test_drop_all_empties_the_store_and_says_how_many() -> None:
    """The store goes on working after it."""
    store = local_store()
    for number in range(50):
        store[number] = number
    assert store.drop_all() == 50
    assert (len(store), store.l1_snapshot(), store.l1_counters()["bytes"]) == (0, [], 0)
    store.check_invariants()
    store["k"] = 1
    assert store["k"] == 1


def test_iteration_goes_over_a_snapshot_least_recent_first() -> None:
    """What happens to the store meanwhile does not disturb an iteration."""
    store = local_store()
    for key in "abc":
        store[key] = key
    store["a"]
    seen = []
    for key in store:
        seen.append(key)
        store.drop_all()
        store[key * 2] = 0
    assert seen == ["b", "c", "a"]


def test_iteration_and_snapshot_leave_out_what_may_not_be_served() -> None:
    """Expired entries and suspects are held, but not shown."""
    store = local_store()
    store.l1_put("short", 1, ttl_ns=10)
    store.l1_put("long", 2)
    store.l1_set_clock(1010)
    assert list(store) == ["long"]
    assert store.l1_snapshot() == [("long", 2)]
    store.lane_dark(0)
    assert list(store) == []


def test_put_with_a_lifetime_overrides_that_of_the_store() -> None:
    """0 means no end, and None the store's."""
    store = local_store(ttl_ns=100)
    store["default"] = 1
    store.l1_put("also default", 1, None)
    store.l1_put("short", 1, ttl_ns=10)
    store.l1_put("endless", 1, ttl_ns=0)
    store.l1_put("beyond", 1, ttl_ns=10**30)
    store.l1_set_clock(1050)
    assert set(store) == {"default", "also default", "endless", "beyond"}
    store.l1_set_clock(NEVER - 1)
    assert set(store) == {"endless", "beyond"}


def test_keyfunc_maps_in_every_mapping_method() -> None:
    """The held key is what ``keyfunc`` returns, and the KeyError tells the caller's."""
    store = local_store(keyfunc=abs)
    store[-3] = "three"
    assert (store[3], store.get(-3), store.peek(-3), store.l1_hit(-3, None)) == ("three",) * 4
    assert store.l1_hit_dict([-3, 3], []) == {-3: "three", 3: "three"}
    assert -3 in store
    with pytest.raises(KeyError) as caught:
        store[-4]
    assert caught.value.args == (-4,)
    del store[-3]
    store.l1_put(-5, 5)
    assert store.drop(5) is True
    with pytest.raises(TypeError):
        store["text"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"maxsize": "3"}, TypeError),
        ({"maxsize": 1.5}, TypeError),
        ({"maxsize": -1}, ValueError),
        ({"maxsize": 1, "maxbytes": -1}, ValueError),
        ({"maxsize": 1, "maxbytes": "x"}, TypeError),
        ({"maxsize": 1, "ttl_ns": -1}, ValueError),
        ({"maxsize": 1, "lanes": 0}, ValueError),
        ({"maxsize": 1, "lanes": 32769}, ValueError),
        ({"maxsize": 1, "nonsense": 1}, TypeError),
        ({}, TypeError),
    ],
)
def test_init_with_nonsense_raises(options: dict[str, Any], error: type[Exception]) -> None:
    """Policy is checked elsewhere, but nonsense does no harm."""
    with pytest.raises(error):
        Store(**options)


def test_init_twice_raises_and_changes_nothing() -> None:
    """A store has its bounds and lanes for life."""
    store = local_store(2)
    store["k"] = 1
    with pytest.raises(ValueError, match="initialised already"):
        store.__init__(5)  # type: ignore[misc]  # that is what is tested
    assert (store.maxsize, store["k"]) == (2, 1)


def test_subclass_that_forgets_init_works_but_serves_nothing() -> None:
    """Without ``__init__`` there is one lane and no bound."""

    class Forgetful(Store[str, int]):
        def __init__(self) -> None:
            pass

    store = Forgetful()
    store["k"] = 1
    assert store.get("k") is None
    store.check_invariants()


@pytest.mark.parametrize("ttl_ns", [-1, -(10**30)])
def test_put_with_a_negative_lifetime_raises(ttl_ns: int) -> None:
    """A lifetime has no past."""
    with pytest.raises(ValueError, match="negative"):
        local_store().l1_put("k", 1, ttl_ns=ttl_ns)


def test_counters_tell_what_happened_and_what_is_held() -> None:
    """All of them, once each."""
    store = local_store(2, maxbytes=100)
    store.l1_put("a", 1, size=10)
    store.l1_put("b", 2, size=20)
    store.l1_put("c", 3, size=30, ttl_ns=5)
    store["b"]
    store.get("a")
    store.l1_set_clock(1005)
    store.get("c")
    assert store.l1_counters() == {
        "hits": 1,
        "misses": 2,
        "evictions": 1,
        "expirations": 1,
        "invalidated": 0,
        "suspects": 0,
        "stored": 3,
        "too_large": 0,
        "bytes": 20,
        "entries": 1,
        "maxsize": 2,
        "maxbytes": 100,
    }
    assert (store.currsize, store.maxsize, store.maxbytes) == (1, 2, 100)
    assert (Store(None).maxsize, Store(None).maxbytes, Store(None).l1_counters()["maxsize"]) == (None, None, 0)
