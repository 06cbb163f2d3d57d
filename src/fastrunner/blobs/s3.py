"""Stage 3, journal: blobs in a bucket of S3, or of what speaks its protocol, through the object_store library.

Rules: credentials, region and endpoint are the library's own variables (AWS_ACCESS_KEY_ID and its like), a machine's
role, or a Kubernetes service account; none of them is in an error. The library repeats what may be repeated.
"""

from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from fastrunner.base import limits
from fastrunner.blobs import Blob, BlobMissing, Listed
from fastrunner.errors import StorageFailed

if TYPE_CHECKING:
    from obstore import ObjectMeta

__all__ = ["Bucket"]

T = TypeVar("T")

_REASON_SIZE_CHARS_MAX: Final = 300


class Bucket:
    """See BlobStore."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._where = f"s3://{bucket}/{prefix}".rstrip("/")
        self._store = S3Store(
            bucket,
            prefix=prefix or None,
            # Without encryption only where AWS_ENDPOINT_URL says so.
            client_options={"timeout": timedelta(seconds=limits.BLOB_REQUEST_S_MAX), "allow_http": True},
            retry_config={
                "max_retries": 10,
                "backoff": {
                    "base": 2,
                    "init_backoff": timedelta(seconds=0.1),
                    "max_backoff": timedelta(seconds=1),
                },
                "retry_timeout": timedelta(seconds=limits.BLOB_RETRY_S_MAX),
            },
        )

    async def put(self, name: str, data: bytes) -> None:
        """See BlobStore."""
        await self._written(obstore.put_async(self._store, name, data, use_multipart=False))

    async def put_new(self, name: str, data: bytes) -> bool:
        """See BlobStore. False as well if a repeated request finds what the first one has written: who needs to know
        which it was reads it."""
        try:
            await self._written(obstore.put_async(self._store, name, data, mode="create", use_multipart=False))
        except AlreadyExistsError:
            return False
        return True

    async def get(self, name: str) -> Blob:
        """See BlobStore."""
        try:
            result = await self._tried(obstore.get_async(self._store, name))
            data = await self._tried(result.bytes_async())
        except FileNotFoundError:
            raise BlobMissing(name) from None
        return Blob(bytes(data), *_marks(result.meta))

    async def names(self, prefix: str) -> AsyncIterator[Listed]:
        """See BlobStore."""
        pages = obstore.list(self._store, prefix)
        while True:
            try:
                page = await self._tried(anext(pages))
            except StopAsyncIteration:
                return
            for meta in page:
                yield Listed(meta["path"], *_marks(meta))

    async def delete(self, name: str) -> None:
        """See BlobStore."""
        try:
            await self._tried(obstore.delete_async(self._store, name))
        except FileNotFoundError:
            return

    async def _written(self, request: Awaitable[object]) -> None:
        try:
            await self._tried(request)
        except FileNotFoundError:
            # What is written needs not be there before, but for the bucket.
            raise StorageFailed(f"the blob store {self._where} cannot be used: there is no such bucket") from None

    async def _tried(self, request: Awaitable[T]) -> T:
        try:
            return await request
        except AlreadyExistsError:
            raise
        except BaseError as error:
            # The rest of it are the library's own structures.
            reason = str(error).partition("\n")[0][:_REASON_SIZE_CHARS_MAX]
            raise StorageFailed(f"the blob store {self._where} cannot be used: {reason}") from None


def _marks(meta: "ObjectMeta") -> tuple[int, str]:
    """When an object was written, and what tells it from others of its name."""
    return int(meta["last_modified"].timestamp() * 1000), meta["e_tag"] or ""
