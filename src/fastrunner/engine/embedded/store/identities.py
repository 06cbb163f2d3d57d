"""Stage 3, journal: a second copy of which ids a shard has, as hashes, so that they are known although its file cannot
be read: what lives there is then refused, or waits, instead of being accepted anew elsewhere.

    shard-0000.ids    header: magic | which key the hashes are of | which boot of the machine wrote it | checksum
                      blocks: mark | count | checksum of the hashes | checksum of the above | hashes, 8 bytes each

A block is appended before the commit whose executions it names, in one write and without fsync: the operating system
keeps it when the process is killed. When the machine is restarted it may not have, so what another boot wrote is told
to be incomplete, and the shard, whose commits are durable, is asked.

Rules: a whole file has the ids of all that lives in the shard, and any number of others: nothing is ever taken out,
until the file is written anew. What is cut off at the end is a commit that never was; anything else that is wrong is
told. Checksums are over the position, too. A file has one writer, who holds the shard's lock; anyone may read.
"""

import os
import sys
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from fastrunner.base import limits

__all__ = ["Contents", "Identities", "holds_any"]

_MAGIC: Final = b"FRIDS\0\0\1"
_HEADER: Final = Struct("<8s8s36sI")
_MARK: Final = b"\xf1ids"
_BLOCK: Final = Struct("<4sIII")
_HASH_SIZE_BYTES: Final = 8
_HASH_BITS: Final = 48
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Contents(NamedTuple):
    """What a file holds."""

    hashes: bytes
    """Of every intact block, 8 bytes each, little-endian, in the order they came."""
    trouble: str
    """Why they may not be all; empty if they are."""

    @property
    def is_whole(self) -> bool:
        """Whether all that lives in the shard is among them."""
        return not self.trouble

    @property
    def hash_count(self) -> int:
        """How many they are."""
        return len(self.hashes) // _HASH_SIZE_BYTES


def holds_any(path: Path) -> bool:
    """Whether there is such a file, with anything in it."""
    try:
        return path.stat().st_size > _HEADER.size
    except OSError:
        return False


class Identities:
    """The file of one shard."""

    def __init__(self, path: Path, key: bytes) -> None:
        """`key`: that of the placement table."""
        self._path = path
        self._header = _header(key)
        self._descriptor = -1
        self._end = 0
        self._is_cut_short = False

    def read(self) -> Contents:
        """What the file holds; changes nothing. Raises OSError if it is there and cannot be read."""
        return self._read()[0]

    def open(self) -> Contents:
        """What the file holds, which is appended to from now on; if that is not whole, `rewrite` it first.

        Raises OSError.
        """
        self.close()
        contents, end = self._read()
        if contents.is_whole:
            self._descriptor, self._end = os.open(self._path, os.O_RDWR | os.O_CLOEXEC), end
            # Behind the last intact block there may be what a killed process began to write.
            self._is_cut_short = True
        return contents

    def append(self, hashes: Sequence[int]) -> None:
        """Adds a block, in one write; call it before the commit of the executions it names.

        Raises OSError; then that commit must not be made. Raises ValueError if the file is not open and whole.
        """
        if not hashes:
            return
        if self._descriptor < 0:
            raise ValueError(f"{self._path.name} is not open, or not whole: open it, and write it anew if it is not")
        block = _block(self._end, _packed(hashes))
        self._cut()
        self._is_cut_short = True
        written = os.pwrite(self._descriptor, block, self._end)
        # A disk that gets full takes a part of it, and says why only when asked for the rest.
        while written < len(block):
            written += os.pwrite(self._descriptor, block[written:], self._end + written)
        self._is_cut_short = False
        self._end += len(block)

    def rewrite(self, hashes: bytes) -> None:
        """Makes the file anew, with these hashes, packed as in Contents, and opens it: it is as before, or this one,
        whenever the process or the machine stops. Raises OSError, and ValueError for what is not packed so."""
        if len(hashes) % _HASH_SIZE_BYTES:
            raise ValueError(f"hashes has {len(hashes)} bytes: it must have {_HASH_SIZE_BYTES} for each hash")
        path = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # Whatever the umask, and whoever left a file there.
            os.fchmod(descriptor, 0o600)
            end = _write_all(descriptor, self._header, hashes)
            os.fsync(descriptor)
            os.replace(path, self._path)
        except BaseException:
            os.close(descriptor)
            raise
        self.close()
        self._descriptor, self._end, self._is_cut_short = descriptor, end, False
        _sync_folder(self._path.parent)

    def close(self) -> None:
        """Lets go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _cut(self) -> None:
        if self._is_cut_short:
            os.ftruncate(self._descriptor, self._end)
            self._is_cut_short = False

    def _read(self) -> tuple[Contents, int]:
        """What the file holds, and where its last intact block ends."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return Contents(b"", "it is missing"), 0
        trouble = _trouble_of_header(content, self._header)
        if trouble in (_NO_FILE_OF_IDS, _FOREIGN):
            return Contents(b"", trouble), 0
        hashes, end, damage = _blocks(content)
        return Contents(hashes, damage or trouble), end


# --- the header ---

_NO_FILE_OF_IDS: Final = "it is no file of ids, or its beginning is damaged"
_FOREIGN: Final = "it is of another runner's key"
_OTHER_BOOT: Final = "the machine was restarted since it was written, which may have cost its end"


def _header(key: bytes) -> bytes:
    fingerprint = blake2b(key, digest_size=8, person=b"fastrunner.ids").digest()
    try:
        boot = _BOOT.read_bytes().strip()
    except OSError:
        # Then nobody knows whether it is the same.
        boot = os.urandom(16).hex().encode()
    header = _HEADER.pack(_MAGIC, fingerprint, boot, 0)[:-4]
    return header + crc32(header).to_bytes(4, "little")


def _trouble_of_header(content: bytes, ours: bytes) -> str:
    if len(content) < _HEADER.size:
        return _NO_FILE_OF_IDS
    magic, fingerprint, boot, checksum = _HEADER.unpack_from(content)
    if magic != _MAGIC or crc32(content[: _HEADER.size - 4]) != checksum:
        return _NO_FILE_OF_IDS
    _, our_fingerprint, our_boot, _ = _HEADER.unpack(ours)
    if fingerprint != our_fingerprint:
        return _FOREIGN
    return "" if boot == our_boot else _OTHER_BOOT


# --- blocks ---


def _packed(hashes: Sequence[int]) -> bytes:
    if max(hashes) >> _HASH_BITS or min(hashes) < 0:
        raise ValueError(f"a hash is {max(hashes)} or {min(hashes)}: hashes have {_HASH_BITS} bits")
    words = array("Q", hashes)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def _block(position: int, hashes: bytes) -> bytes:
    """A block as it stands at a position of the file."""
    start = position.to_bytes(8, "little")
    checksum = crc32(hashes, crc32(start))
    head = _BLOCK.pack(_MARK, len(hashes) // _HASH_SIZE_BYTES, checksum, 0)[:-4]
    return head + crc32(head, crc32(start)).to_bytes(4, "little") + hashes


def _write_all(descriptor: int, header: bytes, hashes: bytes) -> int:
    """Writes a whole file; where it ends."""
    step = limits.IDENTITIES_BLOCK_COUNT * _HASH_SIZE_BYTES
    end = 0
    with open(descriptor, "wb", closefd=False) as file:
        end += file.write(header)
        for at in range(0, len(hashes), step):
            end += file.write(_block(end, hashes[at : at + step]))
    return end


def _blocks(content: bytes) -> tuple[bytes, int, str]:
    """The hashes of all intact blocks, where the last one ends, and what is damaged."""
    found: list[bytes] = []
    position = end = _HEADER.size
    damage = ""
    while position < len(content):
        size_bytes = _size_of_block(content, position)
        if size_bytes > 0:
            found.append(content[position + _BLOCK.size : position + size_bytes])
            position += size_bytes
            end = position
            continue
        following = _next_block(content, position + 1)
        if following < 0 and size_bytes == 0:
            break
        damage = damage or f"it is damaged at byte {position}"
        if following < 0:
            break
        position = following
    return b"".join(found), end, damage


def _size_of_block(content: bytes, position: int) -> int:
    """Bytes of the block at a position; 0 if the file ends within it, -1 if it is damaged."""
    if len(content) - position < _BLOCK.size:
        return 0 if _MARK.startswith(content[position : position + len(_MARK)]) else -1
    mark, count, checksum, head_checksum = _BLOCK.unpack_from(content, position)
    start = crc32(position.to_bytes(8, "little"))
    if mark != _MARK or crc32(content[position : position + _BLOCK.size - 4], start) != head_checksum:
        return -1
    size_bytes = _BLOCK.size + int(count) * _HASH_SIZE_BYTES
    if len(content) - position < size_bytes:
        return 0
    return size_bytes if crc32(content[position + _BLOCK.size : position + size_bytes], start) == checksum else -1


def _next_block(content: bytes, position: int) -> int:
    """Where the next intact block begins; -1 if there is none."""
    while True:
        position = content.find(_MARK, position)
        if position < 0 or _size_of_block(content, position) > 0:
            return position
        position += 1


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
