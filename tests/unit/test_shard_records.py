"""What a shard has recorded of lists of shards, and whether it may be taken into another one. No I/O."""

from __future__ import annotations

import pytest

from nearcache.loading.shards.records import Record
from nearcache.options import Endpoint
from nearcache.rings import Ring, Shards, shards_of


def shards(names: str) -> Shards:
    """Return a list of shards of these one-letter names."""
    return shards_of("rendezvous", tuple(Endpoint(name, name, 6379) for name in names))


HERE = Ring(4, shards("ab"))
BEGUN = HERE.begin(shards("abc"))
FOREIGN = Ring(4, shards("cx"))


@pytest.mark.parametrize(
    ("text", "ring", "bars"),
    [
        (Ring(1, shards("cx")).text, Ring(1, shards("cx")), False),  # whoever is of version 1 is refused from now on
        (HERE.left, HERE, False),
        (b"4", None, False),  # nobody has told it of a list
        (FOREIGN.text, FOREIGN, True),
        (FOREIGN.text, None, True),
        (FOREIGN.begin(shards("c")).text, FOREIGN.begin(shards("c")), True),
        (Ring(7, shards("x")).left, Ring(7, shards("x")), True),
        (b"7", None, True),
        (BEGUN.text, None, False),
        (BEGUN.following().text, BEGUN.following(), False),  # of somebody who is quicker
        (BEGUN.following().following().text, BEGUN.following().following(), False),
    ],
)
def test_shard_of_another_list_is_not_taken_in(text: bytes, ring: Ring | None, bars: bool) -> None:
    """It would refuse the change in the middle, or everybody would follow what it has recorded."""
    assert Record("c", text, ring).bars(BEGUN) is bars
