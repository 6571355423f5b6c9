"""Codecs against plain pickle, in one run: real documents there and back.

    python bench/bench_codecs.py [--rounds 25] [DOCUMENTS]

prints for each codec what writing and reading one document takes, and the ratio to pickle protocol 5: minima of short
rounds in which the sides take turns, so that whatever else the machine does falls on all of them. DOCUMENTS is a file
of JSON documents, one a line, plain or ``.xz`` (``NEARCACHE_DOCUMENTS`` names it too); without one, documents of the
same kind are made up.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nearcache.codecs import SafeCodec, ValueCodec
from nearcache.codecs.compression import Compressor
from nearcache.codecs.plain import JsonCodec
from nearcache.codecs.sealing import Encrypter, Signer
from nearcache.codecs.typed import MsgspecCodec

#: So few documents are timed at once that now and then nothing comes in between.
PART = 10
KEY = bytes(range(32))
MAX_VALUE = 1 << 23
IDS = {"wid": 1, "generation": 2, "ttl_ms": 3, "key": b"skey"}

#: What writes a document, and what reads it back.
Side = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def main() -> None:
    """Print the table, and the ratio that is promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("documents", nargs="?", default=os.environ.get("NEARCACHE_DOCUMENTS"))
    options = parser.parse_args()
    path = options.documents
    documents = read_documents(path) if path else made_up(250)
    every = sides()
    for name, (write, read) in every.items():
        assert all(read(write(document)) == document for document in documents), name
    size = sum(len(pickle.dumps(document, 5)) for document in documents) // len(documents)
    print(f"{len(documents)} documents of {path or 'our own making'}, {size:,} bytes as a pickle; microseconds, minima")
    print(f"{'':26}{'write':>9}{'read':>9}{'both':>9}{'ratio':>8}{'bytes':>9}")
    best = measure(every, documents, options.rounds)
    base = sum(best["pickle 5"])
    for name, (writing, reading) in best.items():
        stored = sum(length(every[name][0](document)) for document in documents) // len(documents)
        both = writing + reading
        print(f"{name:26}{writing:>9.2f}{reading:>9.2f}{both:>9.2f}{both / base:>8.2f}{stored:>9,}")


def sides() -> dict[str, Side]:
    """Codecs alone, then codecs in their envelopes."""
    bare = {"safe": SafeCodec(), "json": JsonCodec(), "msgspec": MsgspecCodec()}
    found: dict[str, Side] = {"pickle 5": (lambda value: pickle.dumps(value, 5), pickle.loads)}
    for name, codec in bare.items():
        found[name] = (codec.encode, lambda encoded, c=codec: c.decode(*encoded))
    more: dict[str, dict[str, Any]] = {
        "": {},
        ", signed": {"guard": Signer([KEY])},
        ", encrypted": {"guard": Encrypter([KEY])},
    }
    more |= {f", {name}": {"compressor": Compressor(name, 1024)} for name in ("zlib", "lz4", "zstd")}
    for name, options in more.items():
        values = ValueCodec(SafeCodec(), MAX_VALUE, **options)
        found[f"safe, envelope{name}"] = (
            lambda value, v=values: v.dumps(value, **IDS),
            lambda data, v=values: v.loads(data, key=IDS["key"])[0],
        )
    return found


def measure(every: dict[str, Side], documents: list[Any], rounds: int) -> dict[str, tuple[float, float]]:
    """Return the microseconds that writing and reading a document took, by side: of each few documents the least."""
    parts = [documents[start : start + PART] for start in range(0, len(documents), PART)]
    best = {name: [[float("inf")] * len(parts), [float("inf")] * len(parts)] for name in every}
    for _ in range(rounds):
        for number, part in enumerate(parts):
            for name, (write, read) in every.items():
                start = time.perf_counter()
                written = [write(document) for document in part]
                middle = time.perf_counter()
                for data in written:
                    read(data)
                end = time.perf_counter()
                writing, reading = best[name]
                writing[number] = min(writing[number], middle - start)
                reading[number] = min(reading[number], end - middle)
    return {
        name: (sum(writing) / len(documents) * 1e6, sum(reading) / len(documents) * 1e6)
        for name, (writing, reading) in best.items()
    }


def read_documents(path: str) -> list[Any]:
    """Return the documents in a file."""
    with lzma.open(path, "rt") if path.endswith(".xz") else Path(path).open() as lines:
        return [json.loads(line) for line in lines]


def made_up(count: int) -> list[Any]:
    """Return nested documents like a proxy's status: many counters under names that recur."""
    chance = random.Random(1)

    def counters() -> dict[str, Any]:
        responses = {f"{n}xx": chance.randrange(10_000) for n in range(1, 6)}
        return {
            "requests": chance.randrange(100_000), "responses": responses, "received": chance.randrange(1 << 40),
            "sent": chance.randrange(1 << 40), "state": chance.choice(["up", "down"]), "weight": chance.random(),
        }  # fmt: skip

    return [
        {"version": n, "zones": {f"zone-{i}": counters() for i in range(8)}, "peers": [counters() for _ in range(8)]}
        for n in range(count)
    ]


def length(written: Any) -> int:
    """Return the number of bytes of what a side wrote."""
    return len(written[0] if isinstance(written, tuple) else written)


if __name__ == "__main__":
    main()
