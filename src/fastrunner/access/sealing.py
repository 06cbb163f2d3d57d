"""Support: what lies in the data directory is sealed: AES-256-GCM with the keys of FASTRUNNER_DATA_KEY_FILE; what
Temporal keeps, with those of FASTRUNNER_TEMPORAL_KEY_FILE.

    bytes 0-3   FE 46 52 01: no JSON, no event, no snapshot begins so
    byte 4      size of the key's id, then the id
    16 bytes    salt: with it, HMAC-SHA-256 makes the key that seals this value out of the key of the file
    8 bytes     number of the value under that salt, the end of its nonce
    ...         what is sealed, and GCM's tag (16 bytes)
    4 bytes     CRC-32 of all before, big-endian: damage is told without the key

A text column has the same in base64, behind a `~`, with which no JSON begins.

Why no nonce repeats: a Sealer draws a salt of 128 random bits when it is made and counts from 0 under it, so within it
no number comes twice; two Sealers share a key only if they share a salt, which among 2^32 of them happens with a
probability of 2^-65. What is stored under its hash is sealed with a salt made of that hash, and the number 0: the same
value is the same bytes again, and no other value has that hash. Random nonces alone would be good for 2^32 values of a
key: a busy runner's week.

Rules: the context of a value (which column, whose execution) is authenticated with it, so a row opens in its place
only. A Sealer belongs to one process and is never used across a fork. `cryptography` is loaded
only when there is a key.
"""

import base64
import binascii
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import digest as hmac_digest
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import TYPE_CHECKING, Final
from zlib import crc32

from fastrunner.base import limits

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "DataKeys",
    "KeyFileRefused",
    "NotOpened",
    "Sealer",
    "add_key",
    "bytes_of_text",
    "is_sealed",
    "is_sealed_text",
    "sealed_with",
]

VARIABLE: Final = "FASTRUNNER_DATA_KEY_FILE"

_MAGIC: Final = b"\xfeFR\x01"
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_KEY_SIZE_BYTES: Final = 32
_SALT_SIZE_BYTES: Final = 16
_NUMBER_SIZE_BYTES: Final = 8
_NONCE_BEGIN: Final = bytes(4)
_CRC_SIZE_BYTES: Final = 4
_TAG_SIZE_BYTES: Final = 16
_SEALED_SIZE_BYTES_MIN: Final = 50
_TEXT_MARK: Final = "~"
_OTHERS: Final = 0o077
_PURPOSE_FINGERPRINT: Final = b"fastrunner data key\0"
_PURPOSE_SALT: Final = b"fastrunner salt\0"
_PURPOSE_KEY: Final = b"fastrunner seal\0"


class KeyFileRefused(ValueError):
    """The key file cannot be used; the message is one sentence without a key in it."""


class NotOpened(ValueError):
    """A sealed value cannot be opened; the message is half a sentence: what is wrong."""


def add_key(path: Path, key_id: str) -> None:
    """Puts a new key before those of a file, which is made if need be. Raises KeyFileRefused, OSError."""
    if not _ID.fullmatch(key_id):
        raise KeyFileRefused(
            f"{key_id!r} is no id of a key: 1 to 32 letters, digits, `_`, `.` and `-`, the first a letter or a digit"
        )
    before = b""
    if path.exists():
        if key_id in DataKeys.read(path).by_id:
            raise KeyFileRefused(f"{path} has a key {key_id} already: give the new one another id (--id)")
        before = path.read_bytes()
    # One that was broken off has left a draft of its own, which stands in nobody's way.
    draft = path.with_name(f"{path.name}.{token_hex(4)}.new")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(f"{key_id} {os.urandom(_KEY_SIZE_BYTES).hex()}\n".encode() + before)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    # Without this a power cut takes the key along, and all that it has sealed meanwhile.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True, repr=False)
class DataKeys:
    """The keys of a file: the first seals, all open."""

    by_id: Mapping[str, bytes]
    """In the order of the file."""
    variable: str = VARIABLE
    """Names the file, for what is said."""

    @classmethod
    def read(cls, path: Path, variable: str = VARIABLE) -> "DataKeys":
        """The keys of a file that nobody but its owner may read. Raises KeyFileRefused."""
        where = f"{variable}={path}"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                facts = os.fstat(descriptor)
                _check_file(where, facts)
                data = os.read(descriptor, limits.DATA_KEY_FILE_SIZE_BYTES_MAX + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise KeyFileRefused(f"{where}: cannot be read: {error.strerror}") from None
        if len(data) > limits.DATA_KEY_FILE_SIZE_BYTES_MAX:
            raise KeyFileRefused(f"{where}: more than {limits.DATA_KEY_FILE_SIZE_BYTES_MAX} bytes are no keys")
        return cls(_parsed(where, data), variable)

    @property
    def first_id(self) -> str:
        """The id of the key that seals."""
        return next(iter(self.by_id))

    def fingerprints(self) -> dict[str, str]:
        """By id, what tells a key from another one and gives nothing of it away."""
        return {
            each: hmac_digest(key, _PURPOSE_FINGERPRINT + each.encode(), sha256)[:8].hex()
            for each, key in self.by_id.items()
        }


def _check_file(where: str, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise KeyFileRefused(f"{where}: it is no file")
    mode = stat.S_IMODE(facts.st_mode)
    if mode & _OTHERS:
        raise KeyFileRefused(
            f"{where}: others than its owner may use it (mode {mode:04o}), and it opens all that is sealed: "
            "run `chmod 600` on it; of a mounted Kubernetes Secret set `defaultMode: 0400`"
        )


def _parsed(file: str, data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    remedy = "`fastrunner data key` makes one"
    for number, line in enumerate(data.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith(b"#"):
            continue
        where = f"{file}: line {number}"
        key_id = words[0].decode("ascii", "replace")
        if len(words) != 2 or not _ID.fullmatch(key_id):
            # What is in the line may be a key.
            raise KeyFileRefused(f"{where}: expected an id, white space, and a key in 64 hexadecimal digits: {remedy}")
        try:
            key = binascii.unhexlify(words[1])
        except binascii.Error:
            key = b""
        if len(key) != _KEY_SIZE_BYTES:
            raise KeyFileRefused(f"{where}: the key {key_id} needs 64 hexadecimal digits: {remedy}")
        if key_id in found:
            raise KeyFileRefused(f"{where}: the id {key_id} is there twice: give each key an id of its own")
        if key in found.values():
            raise KeyFileRefused(f"{where}: the key {key_id} is another one again: {remedy}")
        found[key_id] = key
    if not found:
        raise KeyFileRefused(f"{file}: there is no key in it: {remedy}")
    return found


def is_sealed(value: bytes) -> bool:
    """Whether a value that was stored is sealed. Hashes, of 32 bytes, are too short for it, however they begin."""
    return value.startswith(_MAGIC) and len(value) >= _SEALED_SIZE_BYTES_MIN


def is_sealed_text(text: str) -> bool:
    """The same of a text."""
    return text.startswith(_TEXT_MARK)


def sealed_with(value: bytes) -> str:
    """The id of the key that sealed a value, if nothing of it is damaged. Raises NotOpened."""
    return _parts(value)[0]


def bytes_of_text(text: str) -> bytes:
    """The sealed value in a text. Raises NotOpened."""
    try:
        return base64.b64decode(text[len(_TEXT_MARK) :].encode(), validate=True)
    except ValueError:
        raise NotOpened("is damaged") from None


def _parts(value: bytes) -> tuple[str, bytes, bytes, bytes]:
    """Id, salt, number and ciphertext. Raises NotOpened."""
    id_begin = len(_MAGIC) + 1
    salt_begin = id_begin + (value[id_begin - 1] if len(value) >= id_begin else 0)
    number_begin = salt_begin + _SALT_SIZE_BYTES
    begin, end = number_begin + _NUMBER_SIZE_BYTES, len(value) - _CRC_SIZE_BYTES
    if end < begin + _TAG_SIZE_BYTES or crc32(value[:end]) != int.from_bytes(value[end:], "big"):
        raise NotOpened("is damaged")
    key_id = value[id_begin:salt_begin].decode("ascii", "replace")
    return key_id, value[salt_begin:number_begin], value[number_begin:begin], value[begin:end]


class Sealer:
    """Seals with the first key and opens with all, for one process."""

    def __init__(self, keys: DataKeys) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._make = AESGCM
        self._invalid = InvalidTag
        self._keys = keys.by_id
        self._variable = keys.variable
        self._id = keys.first_id
        self._head = _MAGIC + bytes([len(self._id)]) + self._id.encode()
        self._lock = Lock()
        self._opening: OrderedDict[tuple[str, bytes], AESGCM] = OrderedDict()
        self._salt = os.urandom(_SALT_SIZE_BYTES)
        self._salted = self._head + self._salt
        self._sealing = self._derive(self._id, self._salt)
        self._number = 0

    def _derive(self, key_id: str, salt: bytes) -> "AESGCM":
        return self._make(hmac_digest(self._keys[key_id], _PURPOSE_KEY + salt, sha256))

    def seal(self, value: bytes, context: bytes) -> bytes:
        """The value as it is stored where `context` says."""
        number = self._number.to_bytes(_NUMBER_SIZE_BYTES, "big")
        self._number += 1
        sealed = self._salted + number + self._sealing.encrypt(_NONCE_BEGIN + number, value, context)
        return sealed + crc32(sealed).to_bytes(_CRC_SIZE_BYTES, "big")

    def seal_by_hash(self, value: bytes, digest: bytes) -> bytes:
        """The same of what is stored under its hash: equal values become equal bytes."""
        salt = hmac_digest(self._keys[self._id], _PURPOSE_SALT + digest, sha256)[:_SALT_SIZE_BYTES]
        number = bytes(_NUMBER_SIZE_BYTES)
        ciphertext = self._derive(self._id, salt).encrypt(_NONCE_BEGIN + number, value, digest)
        sealed = self._head + salt + number + ciphertext
        return sealed + crc32(sealed).to_bytes(_CRC_SIZE_BYTES, "big")

    def seal_text(self, text: str, context: bytes) -> str:
        """A text as it is stored in a column of text."""
        return _TEXT_MARK + base64.b64encode(self.seal(text.encode(), context)).decode()

    def open(self, value: bytes, context: bytes) -> bytes:
        """What was sealed. Raises NotOpened."""
        key_id, salt, number, ciphertext = _parts(value)
        if key_id not in self._keys:
            raise NotOpened(f"is sealed with the key {key_id!r}, which {self._variable} has not")
        try:
            return self._opener(key_id, salt).decrypt(_NONCE_BEGIN + number, ciphertext, context)
        except self._invalid:
            raise NotOpened(f"does not open with the key {key_id!r}: it is not what was written there") from None

    def open_text(self, text: str, context: bytes) -> str:
        """What was sealed as text. Raises NotOpened."""
        return self.open(bytes_of_text(text), context).decode()

    def _opener(self, key_id: str, salt: bytes) -> "AESGCM":
        # Listings are read in a thread of their own.
        with self._lock:
            known = self._opening.pop((key_id, salt), None) or self._derive(key_id, salt)
            self._opening[key_id, salt] = known
            if len(self._opening) > limits.DATA_KEYS_DERIVED_MAX:
                self._opening.popitem(last=False)
        return known

    def is_current(self, value: bytes) -> bool:
        """Whether a stored value is sealed with the first key."""
        return value.startswith(self._head)
