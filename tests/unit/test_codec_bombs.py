"""Payloads of the safe codec that want to be hashed for ever: objects that hold one another many times over, filled
after others hold them already. They are refused at a bounded number of calls, counted here; what is no bomb is read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nearcache.codecs.reading import REHEARSAL_BUDGET
from nearcache.errors import DecodeError
from support.bombs import (
    ASKED,
    CODEC,
    NUMBERS,
    REBUILD,
    TUPLES_KEEP_HASHES,
    Alike,
    Called,
    Kept,
    Link,
    Marks,
    Pair,
    Program,
    Row,
    Slim,
    Table,
    attributes,
    call,
    text,
)

#: More than any machine gets through.
LEVELS = 60
HARMLESS = "read within the budget: in spite of its looks not out of proportion"

State = Callable[[bytes], bytes]
Wrap = Callable[[bytes], bytes]


def linked(related: bytes) -> bytes:
    return attributes(name=b"N", related=related)


def slim(related: bytes) -> bytes:
    return b"](N" + related + b"Ne"


def listed(related: bytes) -> bytes:
    return attributes(related=related)


def twice(inner: bytes) -> bytes:
    return inner + inner + b"\x86"


def shared(inner: bytes) -> bytes:
    """A tuple of tuples that share their items."""
    return twice(twice(inner))


def in_list(inner: bytes) -> bytes:
    return b"](" + inner + inner + b"e"


def in_pair(inner: bytes) -> bytes:
    """A named tuple, made with the object in it."""
    return call(32, b"K" + bytes([NUMBERS[Pair]]) + twice(inner) + b"N\x87")


def outside_in(
    cls: type,
    state: State = linked,
    wrap: Wrap = twice,
    leaf: bytes = b")",
    *,
    levels: int = LEVELS,
    root: int = 0,
    program: Program | None = None,
) -> Program:
    """Each object gets the next one several times, before that has got anything."""
    program = program or Program()
    for level in range(levels + 1):
        program.make((root, level), cls)
    for level in range(levels):
        program.fill((root, level), state(wrap(program.get((root, level + 1)))))
    return program.fill((root, levels), state(leaf))


def upwards() -> Program:
    """As a cycle would be written: each object is made inside the one before, in an attribute that its hash does not
    read, and holds that one several times."""
    program = Program()
    for level in range(LEVELS, -1, -1):
        program.make((0, level), Link, keep=True)
        program.add(REBUILD + program.get((0, level)) + b"}(" + text("unread"))
    program.add(b"N")
    for level in range(LEVELS + 1):
        related = b")" if level == LEVELS else twice(program.get((0, level + 1)))
        program.add(text("related") + related + text("name") + b"NuNN\x87\x86R0")
    return program.add(b"0")


KEYED: dict[str, Callable[[bytes], bytes]] = {
    "dict": lambda key: b"}" + key + b"Ns",
    "set": lambda key: b"\x8f(" + key + b"\x90",
    "frozenset": lambda key: b"(" + key + b"\x91",
    "tuple": lambda key: b"}" + key + b"N\x86Ns",
    "twice": lambda key: b"\x8f(" + key + key + b"\x85\x90",
}


def late_deques() -> Program:
    """Deques that are put into objects first, and filled with the next of them then."""
    program = Program()
    for level in range(LEVELS + 1):
        program.make((0, level), Row)
        program.add(call(16, b"N")).name(("deque", level)).add(b"0")
        program.fill((0, level), listed(program.get(("deque", level))))
    for level in range(LEVELS):
        inner = in_list(program.get((0, level + 1)))
        program.add(REBUILD + program.get(("deque", level)) + inner + b"\x86R0")
    return program


def late_lists() -> Program:
    """The same with lists, whose original is filled while it lies on the stack."""
    program = Program()
    for level in range(LEVELS + 1):
        program.make((0, level), Row)
        program.add(b"]").name(("list", level)).add(b"0")
        program.fill((0, level), listed(program.get(("list", level))))
    for level in range(LEVELS):
        program.add(program.get(("list", level)) + b"(" + program.get((0, level + 1)) * 2 + b"e0")
    return program


def heavy() -> Program:
    """Few objects, and a tuple in the last of them that takes 2**18 steps by itself."""
    program = Program().add(b")").name("tuple 0")
    for level in range(18):
        program.add(b"0" + twice(program.get(f"tuple {level}"))).name(f"tuple {level + 1}")
    program.add(b"0")
    for level in range(9):
        program.make((0, level), Link)
    for level in range(8):
        program.fill((0, level), linked(twice(program.get((0, level + 1)))))
    return program.fill((0, 8), linked(program.get("tuple 18")))


def called() -> Program:
    """Objects that have no state, but lists in their arguments that are filled later."""
    program = Program()
    for level in range(LEVELS + 1):
        program.add(b"]").name(("list", level))
        program.add(b"0" + call(33, b"K" + bytes([NUMBERS[Called]]) + program.get(("list", level)) + b"\x85\x86"))
        program.name((0, level)).add(b"0")
    for level in range(LEVELS):
        program.add(program.get(("list", level)) + b"(" + program.get((0, level + 1)) * 2 + b"e0")
    return program


CHAINS: dict[str, Callable[[], Program]] = {
    "dataclass": lambda: outside_in(Link),
    "slots": lambda: outside_in(Slim, slim),
    "tuples": lambda: outside_in(Link, wrap=shared),
    "named-tuples": lambda: outside_in(Link, wrap=in_pair),
    "lists": lambda: outside_in(Row, listed, in_list, b"]"),
    "deques": late_deques,
    "lists-filled-late": late_lists,
    "cycle": upwards,
    "wide": lambda: outside_in(Link, wrap=lambda inner: b"(" + inner * 300 + b"t", levels=4),
    "heavy": heavy,
    "own-new": lambda: outside_in(Kept, listed, in_list, b"]"),
    "called": called,
}


def refused(program: Program) -> str:
    """Return why a payload is refused, once it was within the number of calls that its length allows.

    Where tuples keep their hashes, what is shared by way of tuples alone is hashed once, and is no bomb.
    """
    payload, schema = program.payload()
    floor, factor = REHEARSAL_BUDGET
    ASKED[0] = 0
    message = HARMLESS
    try:
        CODEC.decode(payload, schema)
    except DecodeError as error:
        message = str(error)
    assert ASKED[0] <= (floor + factor * len(payload)) // 32
    assert TUPLES_KEEP_HASHES or message != HARMLESS
    return message


@pytest.mark.parametrize("keyed", KEYED)
@pytest.mark.parametrize("chain", CHAINS)
def test_bomb_of_objects_filled_late_is_refused(chain: str, keyed: str) -> None:
    """Whatever the objects hold one another in, and whatever hashes the first."""
    program = CHAINS[chain]()
    message = refused(program.add(KEYED[keyed](program.get((0, 0)))))
    assert "out of proportion" in message or "cannot be counted" in message


@pytest.mark.parametrize("levels", range(8, 40, 4))
def test_bomb_of_any_size_costs_no_more_calls_than_its_length_allows(levels: int) -> None:
    """Read or refused: the reading that counts, and the one behind it, ask within the budget each."""
    program = outside_in(Link, levels=levels)
    payload, schema = program.add(KEYED["dict"](program.get((0, 0)))).payload()
    floor, factor = REHEARSAL_BUDGET
    ASKED[0] = 0
    try:
        CODEC.decode(payload, schema)
    except DecodeError:
        assert levels > 12
    assert ASKED[0] <= 2 * (floor + factor * len(payload)) // 32


@pytest.mark.parametrize("wrap", [twice, in_list])
def test_bomb_of_comparisons_is_refused(wrap: Wrap) -> None:
    """Two that are alike, with a hash that does not look inside and a comparison that does."""
    program = outside_in(Alike, wrap=wrap, root=1, program=outside_in(Alike, wrap=wrap))
    both = program.get((0, 0)) + program.get((1, 0))
    assert "out of proportion" in refused(program.add(b"\x8f(" + both + b"\x90"))


def test_bomb_of_comparisons_in_lists_is_refused() -> None:
    """What lies between two objects may be filled late as well."""
    program = Program()
    for root in "ab":
        for level in range(LEVELS + 1):
            program.add(b"]").name((root, level)).add(b"0")
        program.make(root, Alike).fill(root, linked(program.get((root, 0))))
        for level in range(LEVELS):
            program.add(program.get((root, level)) + b"(" + program.get((root, level + 1)) * 2 + b"e0")
    program.add(b"\x8f(" + program.get("a") + program.get("b") + b"\x90")
    assert "out of proportion" in refused(program)


def test_bomb_in_containers_of_registered_classes_is_refused() -> None:
    """The keys of a dict's subclass and the members of a set's are hashed by the reader, not by an instruction."""
    for hashed in ("tuples", "objects", "objects, filled in order"):
        for cls in (Table, Marks):
            program = outside_in(Link) if hashed == "objects" else Program()
            if hashed == "tuples":
                program.add(b")").name((0, 0))
                for level in range(LEVELS):
                    program.add(b"0" + twice(program.get((0, level)))).name((0, level + 1))
                program.add(b"0")
                program.names[0, 0] = program.names[0, LEVELS]
            elif hashed == "objects, filled in order":
                program.make((1, 0), Link).fill((1, 0), linked(b")"))
                for level in range(LEVELS):
                    program.make((1, level + 1), Link)
                    program.fill((1, level + 1), linked(twice(program.get((1, level)))))
                program.names[0, 0] = program.names[1, LEVELS]
            key = program.get((0, 0))
            if cls is Marks:
                program.add(call(33, b"K" + bytes([NUMBERS[cls]]) + b"]" + key + b"a\x85\x86"))
            else:
                program.make("table", cls, keep=True)
                program.add(REBUILD + program.get("table") + b"NN]" + key + b"N\x86a\x87\x86R0")
            assert "out of proportion" in refused(program)
