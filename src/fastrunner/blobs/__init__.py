"""Stage 3, journal: named bytes that replicas share: a folder on a volume that all of them mount, or a bucket of S3.

Rules: a name is words of letters, digits, `.`, `_`, `+` and `-` between slashes, and what was written under it is read
whole or not at all. What is written is durable when the call returns. Whatever the store cannot do for the moment is
StorageFailed: a retry is right. Nothing here knows what bytes mean.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from fastrunner.base.stores import bucket_of, folder_of

__all__ = ["Blob", "BlobMissing", "BlobStore", "Listed", "open_store"]


class BlobMissing(Exception):
    """There is nothing under a name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no blob {name}")
        self.name = name
        """The name asked for."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A name that something is written under."""

    name: str
    """As `put` was given it."""
    modified_ms: int
    """When it was written, in milliseconds since the epoch; of some stores in whole seconds."""
    mark: str
    """Another one when something else is written under the name."""


@dataclass(frozen=True, slots=True)
class Blob:
    """What is written under a name."""

    data: bytes
    """All of it."""
    modified_ms: int
    """As `Listed` has it."""
    mark: str
    """As `Listed` has it."""


class BlobStore(Protocol):
    """Where blobs lie. Every method raises StorageFailed."""

    async def put(self, name: str, data: bytes) -> None:
        """Writes, whatever was there before."""

    async def put_new(self, name: str, data: bytes) -> bool:
        """Writes if there is nothing yet; whether it has. Of several callers one does."""

    async def get(self, name: str) -> Blob:
        """What is there. Raises BlobMissing."""

    def names(self, prefix: str) -> AsyncIterator[Listed]:
        """All names below a prefix, which ends with a slash, in any order."""

    async def delete(self, name: str) -> None:
        """Removes what is there; nothing is well, too."""


def open_store(url: str) -> BlobStore:
    """The store at a URL that settings have taken; makes no request yet."""
    folder = folder_of(url)
    if folder is not None:
        from fastrunner.blobs.directory import Directory

        return Directory(folder)
    # Its library comes with an extra.
    from fastrunner.blobs.s3 import Bucket

    return Bucket(*bucket_of(url))
