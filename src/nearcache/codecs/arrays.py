"""numpy arrays and scalars in the ``safe`` codec.

An array's bytes do not pass through the pickle: the pickle holds dtype, shape, order and the number of a
buffer that lies behind it in the payload. Reading makes a read-only view of the payload, without a copy. A
dtype is written as plain data and only from what a pattern admits, so that no dtype can be made to hold
Python objects.

numpy is not imported to write: that a value comes from numpy shows in ``sys.modules``.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, cast

from nearcache.codecs.stdlib import Reading, Unfit, fields

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np

TAG_ARRAY, TAG_SCALAR = 24, 25

_MAX_DIMENSIONS = 32
_MAX_DTYPE_DEPTH = 16
#: Text and bytes of no length, which only scalars have.
_EMPTY = frozenset({"<U0", ">U0", "|S0"})
# Booleans, integers, floats, complex numbers, bytes, text, void; datetime64 and timedelta64 with their unit.
_FORMAT = re.compile(r"[<>|](?:[biufcSUV][1-9][0-9]{0,9}|[mM]8(?:\[(?:[1-9][0-9]{0,9})?[A-Za-z]{1,7}\])?)")


def is_numpy(kind: type) -> bool:
    """Return whether ``kind`` is numpy's own array type or one of its scalar types."""
    numpy = sys.modules.get("numpy")
    if numpy is None or kind.__module__ != "numpy":
        return False
    return kind is numpy.ndarray or issubclass(kind, numpy.generic)


def dump_array(array: np.ndarray[Any, Any], index: int) -> tuple[tuple[object, ...], memoryview]:
    """Return what the pickle holds for ``array``, and its bytes, which become buffer number ``index``.

    Raises:
        Unfit: The dtype holds objects, or something else that could not be read back.
    """
    numpy = sys.modules["numpy"]
    dtype = _dump_dtype(array.dtype)
    if array.ndim > _MAX_DIMENSIONS:
        raise Unfit(f"it has {array.ndim} dimensions, more than {_MAX_DIMENSIONS}; reshape it")
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    flat = numpy.ascontiguousarray(array.T if fortran else array).reshape(-1)
    raw = memoryview(b"") if flat.nbytes == 0 else flat.view(numpy.uint8).data
    return (dtype, array.shape, fortran, index), raw


def load_array(state: object, reading: Reading, buffers: list[memoryview]) -> np.ndarray[Any, Any]:
    """Return a read-only array over one of the ``buffers``."""
    numpy = _numpy()
    descr, shape, fortran, index = fields(state, 4)
    dtype = _load_dtype(numpy, descr, reading)
    size = dtype.itemsize
    if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS or dtype.subdtype is not None:
        raise Unfit("an array's shape or dtype is not that of an array")
    if type(fortran) is not bool or type(index) is not int:
        raise Unfit("an array's fields are of the wrong types")
    for extent in shape:
        if type(extent) is not int or not 0 <= extent < 1 << 62:
            raise Unfit("an array's shape is not made of sizes")
        size *= extent
    if not 0 <= index < len(buffers) or size != len(buffers[index]):
        raise Unfit("an array's shape and dtype do not fit its bytes")
    order = "F" if fortran else "C"
    if size == 0:
        array = numpy.empty(shape, dtype, order)
        array.flags.writeable = False
        return cast("np.ndarray[Any, Any]", array)
    array = numpy.ndarray(shape, dtype, buffers[index], 0, None, order)
    if not array.flags.aligned:  # the payload lies at an odd address, as after decompression
        array = array.copy(order)
        array.flags.writeable = False
    return cast("np.ndarray[Any, Any]", array)


def dump_scalar(scalar: np.generic) -> tuple[object, bytes]:
    """Return what the pickle holds for a numpy scalar."""
    dtype = scalar.dtype
    # numpy gives one character of nothing for what has none.
    return (dtype.str, b"") if dtype.str in _EMPTY else (_dump_dtype(dtype), scalar.tobytes())


def load_scalar(state: object, reading: Reading) -> np.generic:
    """Return the numpy scalar that :func:`dump_scalar` described."""
    numpy = _numpy()
    descr, raw = fields(state, 2)
    is_empty = type(descr) is str and descr in _EMPTY
    dtype = numpy.dtype(descr) if is_empty else _load_dtype(numpy, descr, reading)
    if type(raw) is not bytes or len(raw) != dtype.itemsize or dtype.subdtype is not None:
        raise Unfit("a scalar's dtype does not fit its bytes")
    reading.charge(len(raw))
    # An item of an array would lose the zeros at its end.
    if dtype.kind == "S":
        return cast("np.generic", numpy.bytes_(raw))
    if dtype.kind == "U":
        order = "be" if dtype.str[0] == ">" else "le"
        return cast("np.generic", numpy.str_(str(raw, f"utf-32-{order}", "surrogatepass")))
    return cast("np.generic", numpy.frombuffer(raw, dtype)[0])


def _numpy() -> ModuleType:
    try:
        import numpy
    except ImportError as cause:
        raise Unfit("it holds a numpy array, and numpy is not installed here") from cause
    return numpy


def _dump_dtype(dtype: np.dtype[Any], depth: int = _MAX_DTYPE_DEPTH) -> object:
    """Return a dtype as text, as (base, shape), or as five parts of a structure."""
    if dtype.hasobject:
        raise Unfit(f"its dtype {dtype} holds Python objects; convert it to a list, or to a dtype without objects")
    if dtype.kind == "V" and dtype.type is not sys.modules["numpy"].void:  # such as record, whose items have attributes
        raise Unfit(f"its items are of class {dtype.type.__qualname__}, which would be lost; use a dtype without it")
    if depth == 0 or dtype.itemsize == 0:
        raise Unfit(f"its dtype {dtype} is nested too deeply or has no size; store it in another form")
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return (_dump_dtype(base, depth - 1), shape)
    if dtype.names is not None and dtype.fields is not None:
        members = [dtype.fields[name] for name in dtype.names]
        formats = tuple(_dump_dtype(member[0], depth - 1) for member in members)
        titles = tuple(member[2] if len(member) > 2 else None for member in members)
        if not all(title is None or type(title) is str for title in titles):
            raise Unfit(f"its dtype {dtype} has field titles that are no text; use names alone")
        return (dtype.names, formats, tuple(member[1] for member in members), titles, dtype.itemsize)
    if _FORMAT.fullmatch(dtype.str) is None:
        raise Unfit(f"its dtype {dtype} is not one that can be read back; convert it with astype()")
    return dtype.str


def _load_dtype(numpy: ModuleType, descr: object, reading: Reading, depth: int = _MAX_DTYPE_DEPTH) -> np.dtype[Any]:
    if depth == 0:
        raise Unfit("a dtype is nested too deeply")
    if type(descr) is str and _FORMAT.fullmatch(descr) is not None:
        dtype = numpy.dtype(descr)
    elif type(descr) is tuple and len(descr) == 2:
        base, shape = descr
        if type(shape) is not tuple or not all(type(extent) is int for extent in shape):
            raise Unfit("a dtype's shape is not made of sizes")
        dtype = numpy.dtype((_load_dtype(numpy, base, reading, depth - 1), shape))
    else:
        names, formats, offsets, titles, itemsize = fields(descr, 5)
        parts = (names, formats, offsets, titles)
        if not all(type(part) is tuple for part in parts) or type(itemsize) is not int:
            raise Unfit("a structured dtype's fields are of the wrong types")
        reading.charge(len(formats))
        members = [_load_dtype(numpy, member, reading, depth - 1) for member in formats]
        layout = {"names": list(names), "formats": members, "offsets": list(offsets), "itemsize": itemsize}
        if any(title is not None for title in titles):
            layout["titles"] = list(titles)
        dtype = numpy.dtype(layout)
    if dtype.hasobject or dtype.itemsize == 0:
        raise Unfit("a dtype that holds objects or nothing")
    return cast("np.dtype[Any]", dtype)
