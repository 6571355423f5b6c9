"""Signed and encrypted envelopes: that a value is what a holder of the key wrote, under this very key.

What is authenticated is the *context* (namespace, database, full encoded key), the header with the tags, and the body.
So no byte of an envelope can be changed, and no envelope can be moved to another key, namespace or database. What
remains possible is to put back an older envelope of the same key (``docs/security.md``).

- *Signed*: HMAC-SHA-256, 32 bytes in front of the body. Their number keeps arrays at multiples of 16 bytes.
- *Encrypted*: AES-256-GCM, a random nonce of 12 bytes in front, its tag of 16 bytes behind. Each write has an AES
  key of its own, derived from the wid: with random nonces one key is good for 2**32 messages only, which a busy cache
  writes in days.

The id of a key is a hash of it, so that nobody has to number keys. Two keys of one ring may have the same id; then both
are tried.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from nearcache.codecs.envelope import FLAG_ENCRYPTED, FLAG_MAC, Payload, varint
from nearcache.errors import ConfigError, ForgedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAC_SIZE: Final = 32
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16

_WID = slice(4, 12)  # where the wid stands in a header


class Guard(Protocol):
    """Protects bodies, and opens what the same keys have protected."""

    flag: int

    @property
    def key_id(self) -> int:
        """The id of the key that writes."""

    def protect(self, context: bytes, head: bytes, body: Payload) -> bytes:
        """Return what follows the header instead of ``body``."""

    def open(self, key_id: int, context: bytes, head: Payload, protected: Payload) -> Payload:
        """Return the body, or raise :class:`ForgedError`: nothing about it may be believed."""


class _Derived(NamedTuple):
    """One key of a ring; the repr of bytes must never be seen, so it has none of its own."""

    key_id: int
    secret: bytes

    def __repr__(self) -> str:
        return f"<key {self.key_id}>"


class _Ring:
    """Keys by their ids; the first one writes."""

    __slots__ = ("_by_id", "first")

    def __init__(self, keys: Iterable[bytes], purpose: bytes) -> None:
        derived = [_Derived(key_id_of(key), hmac.digest(key, purpose, "sha256")) for key in keys]
        self.first = derived[0]
        self._by_id: dict[int, list[_Derived]] = {}
        for key in derived:
            self._by_id.setdefault(key.key_id, []).append(key)

    def candidates(self, key_id: int) -> list[_Derived]:
        """Return the keys of this id, or raise :class:`ForgedError` if there is none."""
        found = self._by_id.get(key_id)
        if found is None:
            raise ForgedError(f"a value is protected with key {key_id}, which is not among the keys of this cache")
        return found


class Signer:
    """Signs with HMAC-SHA-256.

    Args:
        keys: At least one; the first signs, all are accepted.
    """

    __slots__ = ("_ring",)

    flag = FLAG_MAC

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._ring = _Ring(keys, b"nearcache 1 sign")

    @property
    def key_id(self) -> int:
        """The id of the key that signs."""
        return self._ring.first.key_id

    def protect(self, context: bytes, head: bytes, body: Payload) -> bytes:
        """Return MAC and body."""
        return b"".join((_mac(self._ring.first, context, head, body), body))

    def open(self, key_id: int, context: bytes, head: Payload, protected: Payload) -> Payload:
        """Return the body.

        Raises:
            ForgedError: The MAC is not that of any of our keys of this id.
        """
        view = memoryview(protected)
        body, mac = view[MAC_SIZE:], view[:MAC_SIZE]
        for key in self._ring.candidates(key_id):
            if hmac.compare_digest(_mac(key, context, head, body), mac):
                return body
        raise ForgedError("the MAC of a value is wrong: it was changed, moved here, or written without the key")


class Encrypter:
    """Encrypts with AES-256-GCM.

    Args:
        keys: At least one; the first encrypts, all are accepted.
        nonce: Returns so many random bytes; for test vectors.
    Raises:
        ConfigError: The package ``cryptography`` is not installed.
    """

    __slots__ = ("_aes", "_invalid", "_nonce", "_ring")

    flag = FLAG_ENCRYPTED

    def __init__(self, keys: Iterable[bytes], nonce: Callable[[int], bytes] = os.urandom) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as cause:
            raise ConfigError("encryption_keys", "***", "install it with: pip install 'nearcache[crypto]'") from cause
        self._ring = _Ring(keys, b"nearcache 1 encrypt")
        self._nonce = nonce
        self._invalid = InvalidTag
        self._aes: Any = AESGCM

    @property
    def key_id(self) -> int:
        """The id of the key that encrypts."""
        return self._ring.first.key_id

    def protect(self, context: bytes, head: bytes, body: Payload) -> bytes:
        """Return nonce, ciphertext and tag."""
        nonce = self._nonce(NONCE_SIZE)
        return nonce + self._cipher(self._ring.first, head).encrypt(nonce, body, context + head)

    def open(self, key_id: int, context: bytes, head: Payload, protected: Payload) -> Payload:
        """Return the body.

        Raises:
            ForgedError: It does not decrypt with any of our keys of this id.
        """
        view = memoryview(protected)
        if len(view) < NONCE_SIZE + TAG_SIZE:
            raise ForgedError("an encrypted value is too short to be one")
        for key in self._ring.candidates(key_id):
            try:
                return self._cipher(key, head).decrypt(view[:NONCE_SIZE], view[NONCE_SIZE:], context + bytes(head))
            except self._invalid:
                continue
        raise ForgedError("a value does not decrypt: it was changed, moved here, or written without the key")

    def _cipher(self, key: _Derived, head: Payload) -> AESGCM:
        cipher: AESGCM = self._aes(hmac.digest(key.secret, head[_WID], "sha256"))
        return cipher


def key_id_of(key: bytes) -> int:
    """Return the id of a key: 1 to 255."""
    return 1 + int.from_bytes(hashlib.blake2b(key, digest_size=8, person=b"nearcache key id").digest(), "big") % 255


def context_of(scope: bytes, key: bytes) -> bytes:
    """Return what is authenticated besides the envelope: where it lies.

    Args:
        scope: Namespace and database: see :func:`scope_of`.
        key: The encoded key.
    """
    return b"".join((varint(len(scope)), scope, varint(len(key)), key))


def scope_of(namespace: str, db: int) -> bytes:
    """Return namespace and database as one name. No namespace contains an ``@``."""
    return f"{namespace}@{db}".encode()


def _mac(key: _Derived, context: bytes, head: Payload, body: Payload) -> bytes:
    machine = hmac.new(key.secret, context, "sha256")
    machine.update(head)
    machine.update(body)
    return machine.digest()
