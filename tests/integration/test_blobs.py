"""Blob stores: a folder and a server that speaks S3 do the same, and neither shows half of anything."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastrunner.base import limits
from fastrunner.base.stores import checked_url
from fastrunner.blobs import BlobMissing, BlobStore, open_store
from fastrunner.blobs.directory import Directory
from fastrunner.errors import StorageFailed
from tests.blob_stores import serving_s3
from tests.outside import require

require(find_spec("obstore"), "obstore", module=True)


@pytest.fixture(params=["file", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    if request.param == "file":
        yield open_store(checked_url(f"file://{tmp_path}/new%20volume"))
        return
    with serving_s3() as url:
        yield open_store(checked_url(url))


async def names(store: BlobStore, prefix: str) -> list[str]:
    return sorted([listed.name async for listed in store.names(prefix)])


async def test_what_is_written_is_read(store: BlobStore) -> None:
    large = os.urandom(3_000_000)
    await store.put("a/b_2f/c", large)
    await store.put("a/b_2f/1.2.0-rc.1+build.5", b"")
    await store.put("ab/c", b"other")
    blob = await store.get("a/b_2f/c")
    assert blob.data == large
    assert (await store.get("a/b_2f/1.2.0-rc.1+build.5")).data == b""
    assert await names(store, "a/") == ["a/b_2f/1.2.0-rc.1+build.5", "a/b_2f/c"]
    assert await names(store, "nothing/") == []
    [listed] = [listed async for listed in store.names("a/b_2f/") if listed.name.endswith("c")]
    assert (listed.mark, listed.modified_ms) == (blob.mark, blob.modified_ms)
    await store.put("a/b_2f/c", b"again")
    again = await store.get("a/b_2f/c")
    assert again.data == b"again"
    assert again.mark != blob.mark
    await store.delete("a/b_2f/c")
    await store.delete("a/b_2f/c")
    with pytest.raises(BlobMissing):
        await store.get("a/b_2f/c")


async def test_of_many_who_write_a_new_name_one_has(store: BlobStore) -> None:
    texts = [str(number).encode() for number in range(10)]
    if isinstance(store, Directory):
        written = await asyncio.gather(*(store.put_new("a/b", text) for text in texts))
    else:
        # The server of the tests looks and writes in two steps.
        written = [await store.put_new("a/b", text) for text in texts]
    assert sum(written) == 1
    assert (await store.get("a/b")).data == texts[written.index(True)]
    assert await names(store, "a/") == ["a/b"]


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Directory(tmp_path / "file" / "below")
    with pytest.raises(StorageFailed, match="cannot be used: Not a directory"):
        await store.put("a", b"")


async def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are repeated for a while; what is told then names the store, and no key."""
    monkeypatch.setattr(limits, "BLOB_RETRY_S_MAX", 0.2)
    with serving_s3() as url:
        store = open_store(url)
    with pytest.raises(StorageFailed, match=f"the blob store {url} cannot be used") as failed:
        await store.put("a", b"")
    assert "\n" not in failed.value.message


async def test_a_bucket_that_is_not_there() -> None:
    """As one that somebody has deleted: a retry is right, once it is back."""
    with serving_s3() as url:
        store = open_store(f"{url.replace('tests-', 'gone-')}")
        for writing in (store.put("a", b""), store.put_new("a", b"")):
            with pytest.raises(StorageFailed, match="there is no such bucket"):
                await writing
        await store.delete("a")
        with pytest.raises(BlobMissing):
            await store.get("a")


async def test_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request has an end."""
    monkeypatch.setattr(limits, "BLOB_RETRY_S_MAX", 0.1)
    monkeypatch.setattr(limits, "BLOB_REQUEST_S_MAX", 0.2)

    with serving_s3() as url, socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*silent.getsockname()))
        with pytest.raises(StorageFailed, match="cannot be used"):
            await open_store(url).get("a")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("/folder", "expected file:///folder or s3://bucket/prefix"),
        ("file://host/folder", "by its whole path"),
        ("file:///", "by its whole path"),
        ("s3:///prefix", "no bucket"),
        ("s3://key:secret@bucket/prefix", "without user information"),
        ("s3://bucket/prefix?region=x", "without user information, query"),
        ("gs://bucket", "expected file:///folder"),
    ],
)
def test_urls_that_are_none(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        checked_url(url)
    assert "secret" not in str(refused.value)
