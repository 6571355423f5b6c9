"""numpy in the ``safe`` codec: out of band, aligned, not copied, read-only, never with Python objects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import nearcache.codecs
from nearcache.codecs import SafeCodec, ValueCodec, safe
from nearcache.codecs.arrays import load_scalar
from nearcache.errors import DecodeError, UnencodableValueError

RECORD = np.dtype((np.record, [("a", "i4")]))
VALUES = ValueCodec(SafeCodec(), 1 << 26)

dtypes = (
    st_numpy.scalar_dtypes()
    | st_numpy.byte_string_dtypes(min_len=1)
    | st_numpy.unicode_string_dtypes(min_len=1)
    | st_numpy.array_dtypes(st_numpy.scalar_dtypes())
)


def through(value):
    back, _ = VALUES.loads(VALUES.dumps(value, wid=1, generation=2, ttl_ms=3))
    return back


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@given(st_numpy.arrays(dtypes, st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
def test_array_of_any_dtype_and_shape_comes_back(array):
    """Bit for bit, read-only."""
    back = through(array)
    assert same(back, array)
    assert not back.flags.writeable
    assert back.flags.aligned


@given(st.integers(0, 40_000), st.integers(0, 3))
def test_array_is_aligned_and_not_copied_whatever_lies_before_it(padding, extra):
    """16 bytes, at every length of the payload, seams of the varint included."""
    arrays = [np.arange(7 + n, dtype=np.int16) for n in range(extra + 1)]
    data = VALUES.dumps(["x" * padding, *arrays], wid=1, generation=2, ttl_ms=3)
    back, _ = VALUES.loads(data)
    start = np.frombuffer(data, np.uint8).ctypes.data
    for array, original in zip(back[1:], arrays, strict=True):
        assert same(array, original)
        assert array.ctypes.data % 16 == 0
        assert start <= array.ctypes.data < start + len(data)


def test_array_among_many_is_measured_a_few_times(monkeypatch):
    """For the table and for its place, however many lie before it: a list of many takes no longer for each."""
    measured = []

    class Measured(bytes):
        def __len__(self):
            measured.append(self)
            return super().__len__()

    dump = safe.arrays.dump_array

    def dump_measured(array, number):
        data, raw = dump(array, number)
        return data, Measured(raw)

    monkeypatch.setattr(safe.arrays, "dump_array", dump_measured)
    arrays = [np.full(3, number) for number in range(100)]
    data = VALUES.dumps(arrays, wid=1, generation=2, ttl_ms=3)
    assert len(measured) <= 4 * len(arrays)
    back, _ = VALUES.loads(data)
    assert all(same(array, original) for array, original in zip(back, arrays, strict=True))


@pytest.mark.parametrize("size", range(16_300, 16_390))
def test_array_is_aligned_where_the_length_field_grows(size):
    """The length in front of the payload counts the padding that it makes necessary."""
    data = VALUES.dumps([b"x" * size, np.arange(3)], wid=1, generation=2, ttl_ms=3)
    assert VALUES.loads(data)[0][1].ctypes.data % 16 == 0


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24).reshape(2, 3, 4).T,
        np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.broadcast_to(np.arange(3), (4, 3)),
        np.array(5),
        np.zeros((0, 3), "M8[ns]"),
        np.array(["2026-01-01", "NaT"], "M8[s]"),
        np.array([1, 2], ">u2"),
        np.array([True, False]),
        np.array([("a", 1.5, [1, 2])], [("name", "U4"), ("price", "<f8"), ("pair", "<i2", (2,))]),
        np.zeros(2, np.dtype({"names": ["b", "a"], "formats": ["u1", "<i4"], "offsets": [8, 0], "itemsize": 16})),
        np.zeros(1, [(("title", "a"), "i4"), ("b", "i2")]),
        np.zeros(3, [("outer", [("inner", "<c8"), ("raw", "V3")])]),
        np.array([1.5], np.longdouble),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}"[:40],
)
def test_array_of_any_layout_comes_back(array):
    """Transposed, strided, reversed, broadcast, 0-d, empty, foreign byte order, structured."""
    back = through({"a": array})["a"]
    assert same(back, array)
    assert not back.flags.writeable


def test_fortran_order_is_kept():
    """A column-major array is not transposed in memory."""
    back = through(np.asfortranarray(np.arange(6).reshape(2, 3)))
    assert back.flags.f_contiguous
    assert not back.flags.c_contiguous


def test_array_in_two_places_is_stored_once():
    """Identity holds, and so does the size."""
    array = np.zeros(10_000)
    data = VALUES.dumps([array, array], wid=1, generation=1, ttl_ms=1)
    assert len(data) < 81_000
    back, _ = VALUES.loads(data)
    assert back[0] is back[1]


@given(st_numpy.from_dtype(np.dtype("f4")) | st_numpy.scalar_dtypes().flatmap(st_numpy.from_dtype))
def test_scalar_of_any_type_comes_back(scalar):
    """As a numpy scalar, not as the Python number that it may equal."""
    back = through([scalar])[0]
    assert type(back) is type(scalar)
    assert back.dtype == scalar.dtype
    assert back.tobytes() == scalar.tobytes()


@pytest.mark.parametrize(
    "scalar",
    [np.str_(""), np.str_("a\0"), np.str_("\0"), np.str_("\ud800é\U0001f600"), np.bytes_(b""), np.bytes_(b"a\0\0")],
)
def test_scalar_of_text_or_bytes_comes_back_to_the_last_zero(scalar):
    """Items of arrays end before the zeros at their end; scalars do not."""
    back = through([scalar])[0]
    assert type(back) is type(scalar)
    assert back == scalar
    assert len(back) == len(scalar)


@pytest.mark.parametrize(
    ("dtype", "raw"),
    [("<U1", b"\xff\xff\xff\x7f"), ("<U2", b"a\0\0\0"), ("|S0", b"a"), ("<U0", b"a\0\0\0")],
)
def test_scalar_of_bytes_that_are_none_is_refused(dtype, raw):
    """No such character, or another length than it says."""
    reading = SimpleNamespace(charge=lambda size: None)
    with pytest.raises(ValueError, match=r"fit|decode"):
        load_scalar((dtype, raw), reading)


@pytest.mark.parametrize(
    ("array", "remedy"),
    [
        (np.array([None]), "without objects"),
        (np.zeros(1, [("a", "O")]), "without objects"),
        (np.zeros(1, [((1, "a"), "i4")]), "titles"),
        (np.zeros(3, "V0"), "no size"),
        (np.zeros(1, RECORD), "class record"),
        (np.zeros(1, RECORD)[0], "class record"),
        (np.zeros(1, [("r", RECORD, 2)]), "class record"),
    ],
)
def test_array_that_could_not_be_read_back_is_refused(array, remedy):
    """When it is written."""
    with pytest.raises(UnencodableValueError, match=remedy):
        SafeCodec().encode(array)


def test_array_at_an_odd_address_is_copied_once():
    """Decompressed payloads lie anywhere; the array is aligned all the same."""
    payload, schema = SafeCodec().encode(np.arange(5))
    for shift in range(16):
        back = SafeCodec().decode(memoryview(bytes(shift) + payload)[shift:], schema)
        assert same(back, np.arange(5))
        assert back.flags.aligned
        assert not back.flags.writeable


def test_array_without_numpy_installed_is_a_miss():
    """Reading needs numpy; not having it is no crash."""
    payload, schema = SafeCodec().encode([np.arange(3)])
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from nearcache.codecs import SafeCodec\nfrom nearcache.errors import DecodeError\n"
        f"try: SafeCodec().decode({payload!r}, {schema})\n"
        "except DecodeError as error: print(error)"
    )
    env = os.environ | {"PYTHONPATH": str(Path(nearcache.codecs.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "numpy is not installed" in done.stdout


def test_array_view_of_a_damaged_length_is_a_miss():
    """Shape, dtype and bytes must agree."""
    payload, schema = SafeCodec().encode(np.arange(3, dtype="i8"))
    assert b"<i8" in payload
    for old, new in ((b"<i8", b"<i4"), (b"<i8", b"|O8"), (b"<i8", b"<x8"), (b"K\x03\x85", b"K\x04\x85")):
        with pytest.raises(DecodeError):
            SafeCodec().decode(payload.replace(old, new), schema)
