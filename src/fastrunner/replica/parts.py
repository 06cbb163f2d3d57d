"""Support: the objects of the copy: pages of files, in a form that proves itself.

    <directory>/<generation>/<number>      a part
    <directory>/<generation>/begun         nothing, written once: if it is gone, somebody has taken the copy away
    <directory>/<generation>/alive         until when nothing was committed after which part

    part: magic | length of the head (4 bytes) | head (JSON) | per file: page numbers (4 bytes each), pages | SHA-256

Rules: a generation is its parts in their order, each of which names the one before by its hash: what is missing, of
another generation, or not what was written is found. The first parts have every page of every file, the later ones
those that have changed. A part that is a cut ends at one moment for all files: a data directory can be made of the
parts up to it, and of no other ones. Nothing is written twice under a name with different contents.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

import orjson

__all__ = ["ALIVE", "BEGUN", "FOLDER", "Damaged", "FilePages", "Part", "digest_of", "name_of"]

FOLDER: Final = "fastrunner"
"""Below which everything lies at the URL."""
ALIVE: Final = "alive"
"""Written again and again."""
BEGUN: Final = "begun"
"""Written once, before the first part."""

_MAGIC: Final = b"FRPART1\n"
_LENGTH: Final = struct.Struct(">I")
_DIGEST_SIZE_BYTES: Final = 32
_FILE: Final = re.compile(r"[a-z0-9-]+\.db")


class Damaged(Exception):
    """An object is not what was written."""


@dataclass(slots=True)
class FilePages:
    """Pages of one file."""

    page_size_bytes: int
    """Of each."""
    pages: dict[int, bytes] = field(default_factory=dict)
    """By number, from 1."""
    pages_count: int = 0
    """How many pages the file has afterwards; 0: that is told by a later part."""
    is_whole: bool = False
    """Whether the file begins anew with these."""

    @property
    def size_bytes(self) -> int:
        """What they take."""
        return len(self.pages) * self.page_size_bytes


@dataclass(slots=True)
class Part:
    """One object."""

    generation: str
    """What it belongs to."""
    number: int
    """Its place in there, from 0."""
    previous: str
    """Hash of the part before; empty for the first."""
    time_ms: int
    """Everything that was acknowledged before is in the parts up to the next cut."""
    files: dict[str, FilePages] = field(default_factory=dict)
    """Pages, by the files' names."""
    positions: dict[str, list[Any]] = field(default_factory=dict)
    """Where the journals of these files have been read up to, for whoever goes on."""
    manifest: str = ""
    """Of a cut: the data directory's manifest."""

    @property
    def is_cut(self) -> bool:
        """Whether all files are as of one moment after it."""
        return bool(self.manifest)

    def encode(self) -> bytes:
        """The object."""
        head = {
            "generation": self.generation,
            "number": self.number,
            "previous": self.previous,
            "time_ms": self.time_ms,
            "manifest": self.manifest,
            "positions": self.positions,
            "files": [
                [name, each.page_size_bytes, each.pages_count, each.is_whole, len(each.pages)]
                for name, each in self.files.items()
            ],
        }
        head_bytes = orjson.dumps(head)
        body: list[bytes] = [_MAGIC, _LENGTH.pack(len(head_bytes)), head_bytes]
        for each in self.files.values():
            body.append(struct.pack(f">{len(each.pages)}I", *each.pages))
            body += each.pages.values()
        data = b"".join(body)
        return data + sha256(data).digest()

    @classmethod
    def decode(cls, data: bytes) -> "Part":
        """The part in an object. Raises Damaged."""
        content, digest = memoryview(data)[:-_DIGEST_SIZE_BYTES], data[-_DIGEST_SIZE_BYTES:]
        if data[: len(_MAGIC)] != _MAGIC or sha256(content).digest() != digest:
            raise Damaged("it is not whole, or none of a copy's parts")
        start = len(_MAGIC) + _LENGTH.size
        (length,) = _LENGTH.unpack_from(content, len(_MAGIC))
        head = orjson.loads(content[start : start + length])
        files = dict(_files(content[start + length :], head.pop("files")))
        if not all(_FILE.fullmatch(name) for name in files):
            raise Damaged("it has a file that no data directory has")
        return cls(files=files, **head)


def _files(body: memoryview, heads: list[list[Any]]) -> Iterator[tuple[str, FilePages]]:
    at = 0
    for name, page_size, pages_count, is_whole, count in heads:
        numbers = struct.unpack_from(f">{count}I", body, at)
        at += 4 * count
        pages = {number: bytes(body[at + i * page_size : at + (i + 1) * page_size]) for i, number in enumerate(numbers)}
        at += count * page_size
        yield name, FilePages(page_size, pages, pages_count, is_whole)


def digest_of(data: bytes) -> str:
    """By which the next part names an object."""
    return data[-_DIGEST_SIZE_BYTES:].hex()


def name_of(directory: str, generation: str, number: int) -> str:
    """Where a part lies; names sort as their numbers do."""
    return f"{FOLDER}/{directory}/{generation}/{number:010d}"
