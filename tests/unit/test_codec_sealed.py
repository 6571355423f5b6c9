"""Signed and encrypted values: no byte changed, no value moved, nothing unprotected is read."""

from __future__ import annotations

import base64
import copy
import itertools
import pickle
import random
import traceback

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.codecs import SafeCodec, ValueCodec, pack, unpack, value_codec
from nearcache.codecs.envelope import BODY_FLAGS, FLAG_ENCRYPTED, FLAG_MAC, FLAG_TOUCHED, PLAIN_FLAGS
from nearcache.codecs.sealing import Encrypter, Signer, context_of, key_id_of, scope_of
from nearcache.errors import ConfigError, DecodeError, ForgedError
from nearcache.options import parse

OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
OPTIONS = ["signing_keys", "encryption_keys"]
IDS = {"wid": 7, "generation": 8, "ttl_ms": 9}
KEY = b"ssku:1"
EXECUTED: list[object] = []


def made(**options) -> ValueCodec:
    return value_codec(parse("redis://a", namespace=options.pop("namespace", "shop"), **options), options.pop("db", 0))


def forged(codec: ValueCodec, data: bytes, key: bytes = KEY) -> str:
    with pytest.raises(ForgedError) as caught:
        codec.loads(data, key=key)
    return str(caught.value)


def canary(*args):
    EXECUTED.append(args)


class Exploit:
    def __reduce__(self):
        return canary, ("executed",)


@pytest.fixture(autouse=True)
def _nothing_is_executed():
    """What an exploit calls must not have been called."""
    EXECUTED.clear()
    yield
    assert EXECUTED == []


@pytest.mark.parametrize("option", OPTIONS)
@given(
    st.binary(max_size=300), st.binary(max_size=40), st.lists(st.tuples(*[st.integers(0, 2**64 - 1)] * 2), max_size=3)
)
def test_protected_value_comes_back(option, value, key, tags):
    """Under its key, with its tags."""
    codec = made(**{option: NEW})
    data = codec.seal(codec.encode(value), **IDS, key=key, tags=tags, soft_ttl_ms=5, cost_ms=6)
    back, envelope = codec.loads(data, key=key)
    assert back == value
    assert (envelope.tags, envelope.soft_ttl_ms, envelope.cost_ms) == (tuple(tags), 5, 6)
    assert envelope.key_id == key_id_of(NEW)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("compress", [None, "zlib", "lz4", "zstd"])
@pytest.mark.parametrize("codec_name", ["safe", "json", "msgspec", "pickle"])
def test_protection_goes_with_every_codec_and_compression(option, compress, codec_name):
    """Compressed first, then protected."""
    more = {"compress": compress, "compress_above": 10} if compress else {}
    codec = made(codec=codec_name, **{option: NEW}, **more)
    value = ["x" * 100] * 20
    data = codec.dumps(value, **IDS, key=KEY)
    assert codec.loads(data, key=KEY)[0] == value
    if compress:
        assert len(data) < 400


@pytest.mark.parametrize("option", OPTIONS)
def test_every_bit_of_a_protected_envelope_is_protected(option):
    """Header, lengths, tags, nonce, MAC, payload: a flipped bit anywhere is a miss."""
    codec = made(**{option: NEW})
    data = codec.seal(codec.encode([1, "a"]), **IDS, key=KEY, tags=[(1, 2)])
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            if (position, 1 << bit) == (1, FLAG_TOUCHED):  # Redis sets it, which has no key
                assert codec.loads(bytes(damaged), key=KEY)[0] == [1, "a"]
                continue
            with pytest.raises(DecodeError):
                codec.loads(bytes(damaged), key=KEY)


@pytest.mark.parametrize("option", OPTIONS)
def test_protected_envelope_cut_extended_or_spliced_is_refused(option):
    """Also with parts of another genuine envelope of the same key."""
    codec = made(**{option: NEW})
    left = codec.seal(codec.encode("left"), 1, 2, 3, key=KEY)
    right = codec.seal(codec.encode("rght"), 4, 5, 6, key=KEY)
    for size in range(len(left)):
        for damaged in (left[:size], left[:size] + right[size:] if 0 < size < len(left) else b""):
            if damaged not in (left, right):
                with pytest.raises(DecodeError):
                    codec.loads(damaged, key=KEY)
    forged(codec, left + b"\0")


@pytest.mark.parametrize("option", OPTIONS)
def test_value_replayed_elsewhere_is_refused(option):
    """Under another key, in another namespace, in another database; the border between them cannot be shifted."""
    codec = made(**{option: NEW})
    data = codec.dumps("mine", **IDS, key=KEY)
    for key in (b"", b"ssku:2", KEY + b"\0", KEY[:-1]):
        forged(codec, data, key)
    for other in (made(**{option: NEW}, namespace="shop2"), made(**{option: NEW}, namespace="sho")):
        forged(other, data)
    elsewhere = value_codec(parse("redis://a", namespace="shop", **{option: NEW}), 1)
    forged(elsewhere, data)
    assert context_of(b"ab", b"c") != context_of(b"a", b"bc")
    assert scope_of("a", 12) != scope_of("a", 1) + b"2" + b"x"


@pytest.mark.parametrize("option", OPTIONS)
def test_downgrade_is_refused(option):
    """A plain envelope, or one of the other protection, is none of ours, whatever its flags say."""
    codec = made(**{option: NEW})
    other = made(**{next(o for o in OPTIONS if o != option): NEW})
    plain = made().dumps("fake", **IDS)
    assert "not protected" in forged(codec, plain)
    assert "not protected" in forged(codec, other.dumps("fake", **IDS, key=KEY))
    genuine = bytearray(codec.dumps("mine", **IDS, key=KEY))
    genuine[1] &= ~BODY_FLAGS & 0xFF
    genuine[3] = 0
    with pytest.raises(DecodeError):
        codec.loads(bytes(genuine), key=KEY)
    both = bytearray(codec.dumps("mine", **IDS, key=KEY))
    both[1] |= FLAG_MAC | FLAG_ENCRYPTED
    forged(codec, bytes(both))


@pytest.mark.parametrize("option", OPTIONS)
def test_protected_value_is_unreadable_without_keys(option):
    """A miss, not a forgery: this cache cannot tell."""
    data = made(**{option: NEW}).dumps("mine", **IDS, key=KEY)
    with pytest.raises(DecodeError, match="no keys") as caught:
        made().loads(data, key=KEY)
    assert type(caught.value) is DecodeError


@pytest.mark.parametrize("option", OPTIONS)
def test_keys_rotate_without_a_miss(option):
    """New key behind the old one, then in front, then alone: at no step does anybody fail to read a neighbour's."""
    steps = [made(**{option: keys}) for keys in ([OLD], [OLD, NEW], [NEW, OLD], [NEW])]
    for left, right in itertools.pairwise(steps):
        for writer, reader in ((left, right), (right, left)):
            assert reader.loads(writer.dumps("v", **IDS, key=KEY), key=KEY)[0] == "v"
    assert "not among the keys" in forged(steps[3], steps[0].dumps("v", **IDS, key=KEY))
    assert [unpack(step.dumps(1, **IDS), BODY_FLAGS).key_id for step in steps] == [
        key_id_of(key) for key in (OLD, OLD, NEW, NEW)
    ]


@pytest.mark.parametrize("make", [Signer, Encrypter])
def test_keys_of_one_id_are_both_tried(make):
    """Ids are hashes of eight bits: that two are equal must not matter."""
    first = OLD
    second = next(key for n in range(10_000) if key_id_of(key := n.to_bytes(32, "big")) == key_id_of(first))
    head = pack(1, 2, 3, b"")
    for keys in ([first, second], [second, first]):
        guard = make(keys)
        for key in keys:
            assert guard.open(key_id_of(key), b"c", head, make([key]).protect(b"c", head, b"body")) == b"body"
        with pytest.raises(ForgedError):
            guard.open(key_id_of(first), b"c", head, make([OTHER]).protect(b"c", head, b"body"))


def test_key_ids_are_never_zero():
    """0 stands for no key."""
    assert {key_id_of(n.to_bytes(16, "big")) for n in range(5000)} == set(range(1, 256))


def test_encryption_hides_and_never_repeats():
    """Neither the value nor equality of values shows; the key of one purpose is not that of the other."""
    codec = made(encryption_keys=NEW)
    data = [codec.dumps("plaintext-marker" * 3, **IDS, key=KEY) for _ in range(50)]
    assert len({each[-60:] for each in data}) == 50
    assert not any(b"marker" in each for each in data)
    assert b"marker" in made(signing_keys=NEW).dumps("marker", **IDS, key=KEY)


@pytest.mark.parametrize("option", OPTIONS)
def test_array_in_a_protected_value_is_aligned(option):
    """A signed one is a view of the envelope as before."""
    codec = made(**{option: NEW})
    data = codec.dumps([np.arange(5)], **IDS, key=KEY)
    back = codec.loads(data, key=KEY)[0][0]
    assert back.flags.aligned
    assert not back.flags.writeable
    assert back.tolist() == [0, 1, 2, 3, 4]
    if option == "signing_keys":
        start = np.frombuffer(data, np.uint8).ctypes.data
        assert start < back.ctypes.data < start + len(data)
        assert back.ctypes.data % 16 == 0


# -- pickle --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("protocol", range(6))
def test_pickle_exploit_without_the_key_is_not_unpickled(option, protocol):
    """Unsigned, signed with another key, signed for another key's entry, in place of a genuine payload."""
    codec = made(codec="pickle", **{option: NEW})
    program = b"\0" + pickle.dumps(Exploit(), protocol)
    stranger = made(codec="pickle", **{option: OTHER})
    genuine = codec.dumps("mine", **IDS, key=KEY)
    attempts = [
        pack(7, 8, 9, program, codec_id=4),
        stranger.seal(stranger.encode(Exploit()), **IDS, key=KEY),
        pack(7, 8, 9, bytes(32) + program, codec_id=4, flags=FLAG_MAC, key_id=key_id_of(NEW), raw_size=len(program)),
        pack(7, 8, 9, bytes(12) + program, codec_id=4, flags=FLAG_ENCRYPTED, key_id=key_id_of(NEW), raw_size=9),
        genuine + program,
        genuine[: -len(program)] + program,
        codec.dumps(Exploit(), **IDS, key=b"sother"),
    ]
    for attempt in attempts:
        with pytest.raises(DecodeError):
            codec.loads(attempt, key=KEY)


def test_pickle_is_not_read_by_a_cache_with_another_codec():
    """The codec id is in the header, and the header is signed."""
    data = made(codec="pickle", signing_keys=NEW).dumps(Exploit(), **IDS, key=KEY)
    with pytest.raises(DecodeError, match="codec='pickle'"):
        made(signing_keys=NEW).loads(data, key=KEY)
    relabelled = bytearray(data)
    relabelled[2] = 1
    forged(made(signing_keys=NEW), bytes(relabelled))


def test_decoder_is_not_called_before_the_envelope_is_verified():
    """With any codec."""

    class Watched:
        codec_id = 200

        def encode(self, value):
            return value, 0

        def decode(self, payload, schema):
            raise AssertionError

    for guard in (Signer([NEW]), Encrypter([NEW])):
        codec = ValueCodec(Watched(), 1000, guard=guard, scope=b"s")
        data = bytearray(codec.dumps(b"payload", **IDS, key=KEY))
        data[-1] ^= 1
        forged(codec, bytes(data))


# -- any bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", OPTIONS)
def test_seeded_damage_is_refused(option):
    """Bytes replaced, inserted, removed, taken from other envelopes and of the format's special values."""
    codec = made(codec="pickle", **{option: NEW})
    data = codec.dumps(["value", 1], **IDS, key=KEY)
    other = codec.dumps(["other", 2], wid=9, generation=8, ttl_ms=9, key=KEY)
    chance = random.Random(20260102)
    for _ in range(4000):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            start = chance.randrange(len(damaged) + 1)
            end = min(len(damaged), start + chance.randrange(5))
            patch = [
                b"",
                chance.randbytes(2),
                other[start:end],
                b"\xff" * 9,
                bytes(end - start),
                pickle.dumps(Exploit()),
            ]
            damaged[start:end] = chance.choice(patch)
        if damaged not in (data, other):
            with pytest.raises(DecodeError):
                codec.loads(bytes(damaged), key=KEY)


@given(st.binary(max_size=120) | st.binary(max_size=120).map(lambda tail: b"\xc1" + tail), st.sampled_from(OPTIONS))
def test_any_bytes_are_refused_by_a_cache_with_keys(data, option):
    """Nothing is right by chance."""
    with pytest.raises(DecodeError):
        made(**{option: NEW}).loads(data)


@pytest.mark.parametrize("size", [0, 1, 11, 12, 27, 28, 31, 32, 33])
def test_protected_body_that_is_too_short_is_refused(size):
    """No room for nonce, tag or MAC."""
    for flag, option in ((FLAG_MAC, "signing_keys"), (FLAG_ENCRYPTED, "encryption_keys")):
        data = pack(1, 2, 3, bytes(size), flags=flag, key_id=key_id_of(NEW), raw_size=size)
        forged(made(**{option: NEW}), data)


# -- the keys themselves -------------------------------------------------------------------------------------------

RANDOM = bytes(range(200, 232))
FORMS = [
    RANDOM,
    RANDOM.hex(),
    RANDOM.hex().upper(),
    base64.b64encode(RANDOM).decode(),
    base64.urlsafe_b64encode(RANDOM).decode() + "\n",
    [RANDOM],
    (RANDOM.hex(),),
    lambda: RANDOM,
    lambda: [RANDOM.hex()],
]


@pytest.mark.parametrize("given_key", FORMS)
def test_key_in_any_form_is_the_same_key(given_key):
    """Bytes, hex, base64 in either alphabet, sequences, functions."""
    data = made(signing_keys=RANDOM).dumps(1, **IDS, key=KEY)
    assert made(signing_keys=given_key).loads(data, key=KEY)[0] == 1


def raising():
    raise OSError(SECRET)


SECRET = "hunter2-s3cret"
BAD_KEYS = [
    b"", b"short", SECRET, "", [], [b"x" * 15], [RANDOM, SECRET.encode()], 5, [None], [RANDOM, RANDOM], lambda: SECRET,
    lambda: None, raising, "!z" * 20, bytearray(32), {1: SECRET}, b"x" * 2000, [RANDOM, RANDOM.hex()],
]  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("bad", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_bad_key_is_refused_without_being_shown(option, bad):
    """Not in the message, not in the attributes."""
    with pytest.raises(ConfigError) as caught:
        made(**{option: bad})
    error = caught.value
    assert error.option == option
    assert SECRET not in f"{error} {error!r} {vars(error)} {error.args}"


@pytest.mark.parametrize("option", OPTIONS)
def test_key_is_never_shown(option):
    """Not by settings, codecs, guards, errors, nor in a URL; and it is not pickled."""
    settings = parse("redis://a", **{option: SECRET * 4})
    assert SECRET not in repr(settings)
    codec = made(**{option: RANDOM})
    guard = codec._guard
    shown = " ".join(map(repr, (codec, guard, guard._ring, guard._ring.first)))
    assert not any(part in shown for part in (RANDOM.hex(), repr(RANDOM), repr(guard._ring.first.secret)))
    with pytest.raises(DecodeError) as failed:
        codec.loads(b"\xc1" + bytes(80))
    assert repr(RANDOM) not in "".join(traceback.format_exception(failed.value))
    with pytest.raises(ConfigError) as caught:
        parse(f"redis://a?{option}={SECRET}")
    assert SECRET not in str(caught.value)
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="keys"):
            attempt(getattr(settings, option))


def test_option_that_does_not_exist_but_sounds_secret_is_not_shown():
    """A slip of the pen must not end in a log."""
    with pytest.raises(ConfigError) as caught:
        parse("redis://a", signing_key=SECRET, encrypt_with=SECRET)
    assert SECRET not in str(caught.value)


def test_plain_flags_and_body_flags_do_not_meet():
    """Each bit has one meaning; no reader handles the one that has none."""
    assert PLAIN_FLAGS & BODY_FLAGS == 0
    assert PLAIN_FLAGS | BODY_FLAGS == 127
    data = bytearray(pack(1, 2, 3, b"N"))
    data[1] |= 128
    with pytest.raises(DecodeError, match="flags"):
        made().loads(bytes(data))


def test_codecs_of_equal_keys_in_other_processes_agree():
    """Nothing of the process enters: two rings made of the same key open each other's."""
    for make in (Signer, Encrypter):
        left, right = make([RANDOM]), make([RANDOM])
        head = pack(1, 2, 3, b"")
        assert right.open(left.key_id, b"c", head, left.protect(b"c", head, b"body")) == b"body"


def test_safe_codec_under_signature_still_verifies_its_pickles():
    """A key holder's bug is not a licence: the dialect is checked after the MAC."""
    guard = Signer([NEW])
    codec = ValueCodec(SafeCodec(), 1000, guard=guard, scope=b"")
    program = b"p" + pickle.dumps(Exploit())
    head = pack(7, 8, 9, b"", codec_id=1, flags=FLAG_MAC, key_id=guard.key_id, raw_size=len(program))
    with pytest.raises(DecodeError):
        codec.loads(head + guard.protect(context_of(b"", KEY), head, program), key=KEY)
