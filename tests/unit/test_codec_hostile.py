"""Hostile payloads: nothing is executed, nothing but DecodeError is raised, no bomb goes off."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import random
import struct
import time
import tracemalloc
from collections import OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache._pickle_scan import scan
from nearcache.codecs import SafeCodec
from nearcache.codecs.envelope import varint
from nearcache.codecs.schema import combine
from nearcache.errors import DecodeError
from support import shop

CODEC = SafeCodec(shop.CLASSES)
EXECUTED: list[object] = []

PROTO = b"\x80\x05"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def glob(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


REBUILD = glob("nearcache.codecs.safe", "rebuild")
OS_SYSTEM = glob("os", "system")


def canary(*args):
    EXECUTED.append(args)


@pytest.fixture(autouse=True)
def _nothing_is_executed(monkeypatch):
    """Put a canary on what exploits call."""
    EXECUTED.clear()
    monkeypatch.setattr(os, "system", canary)
    yield
    assert EXECUTED == []


def refuse(program: bytes, *, classes: tuple[str, ...] = ()) -> DecodeError:
    """Decode a pickle program, in either kind of payload, and return the error."""
    table = bytes([len(classes)]) + b"".join(bytes([len(name)]) + name.encode() for name in classes)
    schema = combine(CODEC._by_name[name].fingerprint for name in classes)
    framed = b"q" + table + b"\0" + varint(len(program)) + b"\0" + program
    if not classes:
        with pytest.raises(DecodeError):
            CODEC.decode(b"p" + program, 0)
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(framed, schema)
    return caught.value


def decode_or_refuse(payload: bytes, schema: int) -> object:
    try:
        return CODEC.decode(payload, schema)
    except DecodeError as error:
        return error


class Exploit:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
def test_exploit_of_any_protocol_is_refused(protocol):
    """The textbook one, as plain pickle writes it."""
    program = pickle.dumps([Exploit(canary, ("x",))], protocol)
    refuse(program)
    refuse(PROTO + program)


@pytest.mark.parametrize(
    "program",
    [
        OS_SYSTEM + text("id") + b"\x85R", b"cos\nsystem\n" + text("id") + b"\x85R",
        b"(" + text("id") + b"ios\nsystem\n", b"(cos\nsystem\n" + text("id") + b"o",
        OS_SYSTEM + text("id") + b"\x85\x81", OS_SYSTEM + text("id") + b"\x85}\x92", b"\x82\x01",
        b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"Pid\n", text("id") + b"Q", REBUILD + b"}b", b"}}b",
        REBUILD + b"K\x07" + text("1") + b"\x86R}" + text("a") + b"K\x01sb", OS_SYSTEM, REBUILD,
        REBUILD + b"\x85", b"]" + REBUILD + b"a", b"}" + REBUILD + b"K\x01s", b"}K\x01" + REBUILD + b"s",
        b"(" + REBUILD + b"\x91", REBUILD + REBUILD + b"\x86", REBUILD + text("a") + b"\x85R",
        REBUILD + b"]" + b"R", REBUILD + b")R", REBUILD + b"K\x07K\x07\x86" + b"\x94h\x00R",
        text("a") + b"K\x07" + text("1") + b"\x86R", REBUILD + b"]" + text("1") + b"\x86R",
        REBUILD + REBUILD + text("1") + b"\x86R", REBUILD + b"K\x01a", b"K\x01K\x01a", text("x") + b"K\x01a",
        b"\x96" + bytes(8) + b"K\x01a", REBUILD + b"K\x10N\x86RK\x01a", b")K\x01a", b"}K\x01a",
        b"]K\x01K\x01s", b"\x8f(K\x01e", b"](K\x01\x90", b"a", b"e", b"u", b"s", b"t", b"\x85", b"\x86",
        b"\x87", b"\x90", b"\x91", b"R", b"0", b"1", b"\x94", b"\x93", b"(", b"((", b"(K\x01", b"K\x01(0",
        b"](a", b"(K\x01\x85", b"K\x01(\x85", b"K\x01(\x94", b"}(K\x01u", b"(K\x01\x86t",
        b"K\x01(]K\x01\x87t", b"](1a", b"h\x00", b"K\x01h\x00\x86", b"j\x00\x00\x00\x00",
        b"K\x01\x94j\x00\x01\x00\x00\x86", b"K\x01q\x00", b"K\x01r\xff\xff\xff\x7f", b"K\x01p0\n", b"g0\n",
        b"K\x01" + b"2\x86", b"I1\n", b"F1.0\n", b"L1L\n", b"S'a'\n", b"T\x01\x00\x00\x00a", b"U\x01a",
        b"Va\n", b"\x97", b"\x98", b"N\x98", b"\x80\x05N", b"\x80\x04N", b"\x8a\x05\x01",
        b"\x8b\xff\xff\xff\xff", b"B\xff\xff\xff\xff", b"X\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8,
        b"\x8e" + b"\x7f" * 8, b"\x96" + b"\xff" * 8, b"\x96" + struct.pack("<Q", 1 << 40),
        b"\x95" + b"\xff" * 8 + b"N", b"\x95" + bytes(7), b"NN", b"", b"\xff", b"\x00", b"\x8c\x01\xff",
        b"G\x00", b"J\x00", b"M\x00", b"K",
    ],
)  # fmt: skip
def test_program_outside_the_dialect_is_refused(program):
    """Instructions that act, kinds that do not fit, stacks, marks and memos that do not match."""
    refuse(PROTO + program + b".")
    refuse(PROTO + program)


@pytest.mark.parametrize("module", ["os", "builtins", "nearcache.codecs.safe", "nearcache.codecs", "posix", ""])
@pytest.mark.parametrize(
    "name", ["system", "eval", "rebuild.__globals__", "SafeCodec", "pickle", "_GLOBAL", "io.open", ""]
)
def test_global_other_than_the_one_is_refused(module, name):
    """Neither functions, nor what hangs on our own module, nor dotted names."""
    refuse(PROTO + glob(module, name) + b")R.")


def test_global_is_not_put_together_from_other_types():
    """Bytes are not text, and what the memo holds is what it was."""
    bytes_global = b"C\x15nearcache.codecs.safeC\x07rebuild\x93"
    refuse(PROTO + bytes_global + b"K\x07\x8c\x011\x86R.")
    recalled = text("rebuild") + b"\x940" + text("nearcache.codecs.safe") + b"h\x00\x93"
    assert CODEC.decode(b"p" + PROTO + recalled + b"K\x07\x8c\x011\x86R.", 0) == 1


def call(tag: int, data: bytes) -> bytes:
    return REBUILD + b"K" + bytes([tag]) + data + b"\x86R"


MISFITS = [
    b"N", b"K\x01", b")", b"]", b"}", b"\x88", text("x"), b"C\x01x", b"K\x01K\x01K\x01\x87", b"NN\x86",
    b"K\x00K\x00\x86", b"K\x00" + text("system") + b"\x86", b"K\x00" + text("x") + b"\x85\x86",
    b"K\x00)N\x87", b"K\x00K\x01\x85}\x87", b"K\x07)N\x87", text("../../etc/passwd"), text("/etc/passwd"),
    text("nan"), text("1_0"), b"(" + b"K\x01" * 9 + b"t", b"(" + b"N" * 6 + b"t",
    text("|O8") + b"K\x08\x85\x89\x87", b"(" + text("|O8") + b"K\x01\x85\x89K\x00t",
    b"(" + text("<i8") + b"J\xff\xff\xff\xff\x85\x89K\x00t",
]  # fmt: skip
ADMITTED = {
    "builtins",
    "datetime",
    "collections",
    "pathlib",
    "pathlib._local",
    "decimal",
    "zoneinfo",
    "fractions",
    "uuid",
}


@pytest.mark.parametrize("tag", [*range(40), 255])
def test_call_with_data_that_does_not_fit_is_refused_or_makes_plain_data(tag):
    """Each tag believes nothing; what passes is an object of an admitted type."""
    for data in MISFITS:
        value = decode_or_refuse(b"p" + PROTO + call(tag, data) + b".", 0)
        assert isinstance(value, DecodeError) or type(value).__module__ in ADMITTED


def test_state_is_given_once_and_only_to_what_waits_for_it():
    """An object that was made complete cannot be changed afterwards."""
    decimal, counter = call(7, text("1")), call(16, b"N")
    assert CODEC.decode(b"p" + PROTO + counter + b"\x94" + REBUILD + b"h\x00]K\x01a\x86R0.", 0) == deque([1])
    refuse(PROTO + decimal + b"\x94" + REBUILD + b"h\x00]\x86R0.")
    refuse(PROTO + counter + b"\x94" + (REBUILD + b"h\x00]\x86R0") * 2 + b".")
    refuse(PROTO + counter + b"\x94" + REBUILD + b"h\x00}\x86R0.")
    refuse(PROTO + counter + b"\x94" + REBUILD + b"h\x00N\x86R0.")


def test_registered_class_is_not_made_to_do_what_it_does_not_do_itself():
    """No arguments for __new__, no call, no members, unless the class asks for them when it is written."""
    node = ("shop.Node",)
    refuse(PROTO + call(32, b"K\x00K\x01\x85N\x87") + b".", classes=node)
    refuse(PROTO + call(32, b"K\x00)}" + text("name") + b"K\x01s\x87") + b".", classes=node)
    refuse(PROTO + call(33, b"K\x00" + text("x") + b"\x85\x86") + b".", classes=node)
    refuse(PROTO + call(34, b"K\x00" + text("mro") + b"\x86") + b".", classes=node)
    refuse(PROTO + call(35, b"K\x00K\x01\x86") + b".", classes=node)
    refuse(PROTO + call(32, b"K\x01)N\x87") + b".", classes=node)
    refuse(PROTO + call(32, b"K\x00K\x01\x85N\x87") + b".", classes=("shop.Colour",))
    refuse(PROTO + call(33, b"K\x00K\x01\x85\x86") + b".", classes=("shop.Colour",))
    refuse(PROTO + call(34, b"K\x00" + text("__class__") + b"\x86") + b".", classes=("shop.Colour",))
    refuse(PROTO + call(35, b"K\x00K\x04\x86") + b".", classes=("shop.Access",))


@pytest.mark.parametrize("name", ["__class__", "__dict__", "state", "missing"])
def test_state_of_slots_reaches_slots_alone(name):
    """Not properties, not __class__, not methods."""
    made = call(32, b"K\x00)N\x87") + b"\x94"
    state = b"N}" + text(name) + b"K\x01s\x86NN\x87"
    refuse(PROTO + made + REBUILD + b"h\x00" + state + b"\x86R0.", classes=("shop.Slotted",))


@pytest.mark.parametrize("state", [b"K\x01", b"]K\x01a", b"}K\x01K\x01s", b"K\x01K\x01\x86", text("x")])
def test_state_that_is_no_dict_of_names_is_refused(state):
    """For classes without a __setstate__."""
    made = call(32, b"K\x00)N\x87") + b"\x94"
    refuse(PROTO + made + REBUILD + b"h\x00" + state + b"NN\x87\x86R0.", classes=("shop.Node",))


def test_items_do_not_reach_classes_that_are_no_containers():
    """`extend` and `__setitem__` are called on lists and dicts only."""
    made = call(32, b"K\x00)N\x87") + b"\x94"
    for later in (b"N]K\x01aN\x87", b"NN]K\x01K\x01\x86a\x87"):
        refuse(PROTO + made + REBUILD + b"h\x00" + later + b"\x86R0.", classes=("shop.Node",))


# -- damage --------------------------------------------------------------------------------------------------

SAMPLES = [
    None, True, -5, 1 << 70, 1.5, "naïve \ud800", b"\0\xff",
    [1, [2.5, None], {"k": (1, 2, 3, 4), "s": {1}, "f": frozenset("a")}],
    [dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=1), "X"))],
    [Decimal("1.5"), Fraction(1, 3), 1j, range(3), deque([1])],
    [OrderedDict(a=1), shop.Money(Decimal(1)), shop.Colour.RED],
    [ shop.Access.WRITE, shop.Slotted(1), shop.Basket(a=[1])],
    [shop.Called(1), shop.KeywordMade(value=2), shop.Sealed(3)],
    [shop.OutOfStockError("x"), shop.Position(1, 2), shop.Count(3)],
    [np.arange(3, dtype="i2"), np.zeros(1, [("a", "i4"), ("b", "U1")])],
    [np.float64(1.5), np.datetime64("2026-01-01")],
]  # fmt: skip


@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
def test_payload_cut_anywhere_is_refused_or_shorter_data(sample):
    """Only scalars whose body has no structure can be cut and still read; the envelope has their length."""
    payload, schema = CODEC.encode(sample)
    for size in range(len(payload)):
        value = decode_or_refuse(payload[:size], schema)
        assert isinstance(value, DecodeError) or type(value) is type(sample) in (str, bytes, int)


@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
def test_payload_with_any_bit_flipped_is_refused_or_admitted_data(sample):
    """Never another exception, never anything executed."""
    payload, schema = CODEC.encode(sample)
    for position in range(len(payload)):
        for bit in range(8):
            damaged = bytearray(payload)
            damaged[position] ^= 1 << bit
            decode_or_refuse(bytes(damaged), schema)


@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
def test_payload_with_bytes_replaced_inserted_and_removed_is_refused_or_admitted_data(sample):
    """A seeded mixture of longer damage."""
    payload, schema = CODEC.encode(sample)
    chance = random.Random(20260101)
    for _ in range(3000):
        damaged = bytearray(payload)
        for _ in range(chance.randrange(1, 4)):
            start = chance.randrange(len(damaged) + 1)
            end = min(len(damaged), start + chance.randrange(4))
            damaged[start:end] = chance.choice(
                [b"", chance.randbytes(2), payload[start : start + 6], b"R", b"\x94h\x00"]
            )
        decode_or_refuse(bytes(damaged), schema)


@given(st.binary(max_size=60), st.integers(0, 2**32 - 1))
def test_any_bytes_are_refused_or_admitted_data(payload, schema):
    """The decoder is total."""
    decode_or_refuse(payload, schema)


PIECES = [
    b"N", b"K\x01", b"K\x07", b"K\x0d", b"K\x10", b"J\xff\xff\xff\xff", b"G" + bytes(8), text("a"), text("1"),
    b"C\x01a", b"]", b"}", b"\x8f", b")", b"(", b"a", b"e", b"s", b"u", b"\x90", b"\x91", b"t", b"\x85",
    b"\x86", b"\x87", b"\x94", b"h\x00", b"h\x01", b"h\x02", b"0", b"1", REBUILD, REBUILD + b"\x94", b"R",
    b"\x96" + bytes(8), b"\x8a\x01\x05", call(7, text("1")), call(16, b"N") + b"\x94",
]  # fmt: skip


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_program_that_the_verifier_admits_runs_to_its_end(pieces):
    """Stack, marks, memo and kinds are right: what can still go wrong is the data of a call, or a key."""
    program = PROTO + b"".join(pieces) + b"."
    try:
        scan(program)
    except ValueError:
        decode_or_refuse(b"p" + program, 0)
        return
    try:
        CODEC.decode(b"p" + program, 0)
    except DecodeError as error:
        cause = error.__cause__
        assert b"R" in program or (isinstance(cause, TypeError) and "unhashable" in str(cause))
        assert not isinstance(cause, (pickle.UnpicklingError, AttributeError, EOFError))


# -- bombs ---------------------------------------------------------------------------------------------------


def timed_refusal(program: bytes) -> str:
    start = time.process_time()
    message = str(refuse(program))
    assert time.process_time() - start < 5
    return message


def doubled(levels: int) -> bytes:
    """Leave a tuple on the stack that holds one tuple twice, which holds one tuple twice, and so on."""
    return b")\x94" + b"".join(b"0h%bh%b\x86\x94" % (bytes([n]), bytes([n])) for n in range(levels))


def test_key_that_takes_forever_to_hash_is_refused():
    """Forty tuples, 2**40 steps; as a plain value they are harmless."""
    assert len(CODEC.decode(b"p" + PROTO + doubled(40) + b".", 0)) == 2
    assert "out of proportion" in timed_refusal(PROTO + b"}" + doubled(40) + b"Ns.")
    assert "out of proportion" in timed_refusal(PROTO + b"(" + doubled(40) + b"\x91.")
    assert "out of proportion" in timed_refusal(PROTO + b"\x8f(" + doubled(40) + b"\x90.")


def test_object_that_takes_forever_to_hash_is_refused():
    """Frozen dataclasses with a shared field, as a dict key."""
    made = call(32, b"K\x00)N\x87") + b"\x94"
    program = made + b"0"
    for level in range(60):
        state = b"}" + text("related") + b"h%bh%b\x86s" % (bytes([level]), bytes([level]))
        program += made + REBUILD + b"h" + bytes([level + 1]) + state + b"NN\x87\x86R00"
    assert "out of proportion" in str(refuse(PROTO + b"}" + program + b"h\x3cNs.", classes=("shop.Article",)))


def test_deep_nesting_is_refused():
    """A deep key would overflow the C stack when it is hashed, a deep deque when it is released."""
    assert "deeper" in timed_refusal(PROTO + b"})" + b"\x85" * 6000 + b"Ns.")
    assert "deeper" in timed_refusal(PROTO + b")" + b"\x85" * 12_000 + b".")
    assert "deeper" in timed_refusal(PROTO + b"]" * 12_000 + b"a" * 11_999 + b".")


@pytest.mark.parametrize("kind", [deque, defaultdict])
def test_deep_nesting_that_begins_outside_is_refused(kind: type) -> None:
    """What is put into another before it has got its own items is deeper in the end than it was then."""
    made = call(16, b"N") if kind is deque else call(14, b"N")
    holding = b"]%ba" if kind is deque else b"}N%bs"

    def chain(length: int) -> bytes:
        program = [PROTO, made, b"\x94"]
        for inner in range(1, length):
            outer = b"j" + struct.pack("<I", inner - 1)
            state = holding % (b"j" + struct.pack("<I", inner))
            program += (made, b"\x94", REBUILD, outer, state, b"\x86R00")
        return b"".join([*program, b"."])

    assert "before" in timed_refusal(chain(20_000))
    value = CODEC.decode(b"p" + chain(5), 0)
    for _ in range(4):
        assert type(value) is kind
        value = value[0 if kind is deque else None]
    assert value == kind()


def test_deques_that_hold_each_other_come_back():
    """Cycles are no depth."""
    first: deque[object] = deque()
    first += [deque([first]), defaultdict(list, {1: first}), first]
    again = CODEC.decode(*CODEC.encode(first))
    assert again[0][0] is again
    assert again[1][1] is again
    assert again[2] is again


def test_memory_bomb_is_refused():
    """One byte of EMPTY_SET is 216 bytes of set; a memo index is no request for memory."""
    assert "out of proportion" in timed_refusal(PROTO + b"](" + b"\x8f" * 700_000 + b"e.")
    refuse(PROTO + b"Nr\xff\xff\xff\x7f.")


def test_deques_that_are_never_filled_are_refused_in_masses():
    """Seven bytes are a kilobyte each. Those that our writer makes go through, empty or not."""
    many = 20_000
    bomb = PROTO + REBUILD + b"\x940](" + b"h\x00K\x10N\x86R" * many + b"e."
    assert "out of proportion" in str(refuse(bomb))
    for honest in ([deque() for _ in range(many)], [deque([1]) for _ in range(many)]):
        assert CODEC.decode(*CODEC.encode(honest)) == honest


def test_table_that_states_more_than_the_payload_can_hold_is_refused_before_it_is_made():
    """A byte for each buffer of nothing, or for one class again and again, would be a hundred in the reader."""
    many = 400_000
    name = next(iter(CODEC._by_name)).encode()
    buffers = b"q\0" + varint(many) + b"\0" * many + b"\x04\0" + PROTO + b"N."
    classes = b"q" + varint(many) + (varint(len(name)) + name) * many + b"\0\x04\0" + PROTO + b"N."
    for payload, why in ((buffers, "400,000 buffers"), (classes, "twice")):
        tracemalloc.start()
        with pytest.raises(DecodeError, match=why):
            CODEC.decode(payload, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 16
    for empty in (np.zeros(0, "u1"), np.zeros((), "u1")):  # the least that an array takes
        arrays = [empty.copy() for _ in range(1000)]
        assert [each.shape for each in CODEC.decode(*CODEC.encode(arrays))] == [empty.shape] * 1000


def test_copies_of_a_large_part_are_refused():
    """A few bytes each must not copy a long list, or a long text, again and again."""
    items = b"](" + b"N" * 30_000 + b"e\x940"
    waiting = REBUILD + b"K\x10N\x86R\x94"
    copies = b"".join(waiting + REBUILD + b"h" + bytes([n]) + b"h\x00\x86R00" for n in range(1, 40))
    assert "out of proportion" in timed_refusal(PROTO + items + copies + b"N.")
    digits = b"X" + struct.pack("<I", 50_000) + b"1" * 50_000 + b"\x940"
    assert "out of proportion" in timed_refusal(PROTO + digits + b"(" + call(7, b"h\x00") * 20 + b"t.")


def test_fraction_that_takes_forever_to_reduce_is_refused():
    """Reducing is quadratic; the sizes are limited."""
    number = b"\x8b" + struct.pack("<i", 1_000_000) + b"\x55" * 1_000_000
    assert "bits" in timed_refusal(PROTO + call(8, number + number.replace(b"\x55", b"\x57") + b"\x86") + b".")


def test_dtype_that_unfolds_exponentially_is_refused():
    """Structures of structures that share their members."""
    level = text("<i4") + b"\x940"
    program = level
    for depth in range(12):
        names = b"(" + b"".join(text(f"f{n}") for n in range(60)) + b"t"
        formats = b"(" + b"h" + bytes([depth]) + (b"h" + bytes([depth])) * 59 + b"t"
        zeros = b"(" + b"K\x00" * 60 + b"t"
        program += b"(" + names + formats + zeros + b"(" + b"N" * 60 + b"tK\x04t\x940"
    program += call(25, b"h\x0cC\x04abcd\x86")
    assert "out of proportion" in timed_refusal(PROTO + b"]0" + program + b".")


def test_zone_names_do_not_leave_their_folder():
    """A key is the name of a file, or of a module of tzdata."""
    for name in (
        "../../../etc/passwd",
        "/etc/passwd",
        "..",
        "a.b",
        "Europe//Berlin",
        "a/b/c/d/e",
        "",
        "a\0b",
        "x" * 65,
    ):
        refuse(PROTO + call(6, text(name)) + b".")


def test_error_is_the_cause_and_the_message_is_short():
    """For the log line that reports the first undecodable value."""
    error = refuse(PROTO + call(7, text("sNaN0x")) + b".")
    assert error.__cause__ is not None
    assert len(str(error)) < 300
