"""Support: which store a Stigmer Service has: a folder's, or a database's.

Rule: what a URL holds is in no error.
"""

import fcntl
import os
from pathlib import Path
from typing import BinaryIO, Final

from fastrunner.base.extras import stigmer_refusal
from fastrunner.stigmer.store import SharedStore, Store
from fastrunner.stigmer.store.sqlite import SqliteStore

__all__ = ["CannotServe", "hold", "session_key", "store_of"]


_SESSION_KEY_SIZE_BYTES: Final = 32


class CannotServe(Exception):
    """The service cannot begin; the message says why and what helps."""


def hold(folder: Path) -> BinaryIO:
    """Keeps others from the folder; goes with the process. Raises CannotServe."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "stigmer.owner").open("wb")
    except OSError as error:
        raise CannotServe(f"--data-dir {folder} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise CannotServe(
            f"--data-dir {folder} is in use by another service: its followers would not hear of what this one takes; "
            "stop that, or give another folder, or a database, which several may have, with --mongodb-url"
        ) from None
    return lock


def store_of(folder: Path, mongodb_url: str | None, retention_s: float) -> Store:
    """The store in a folder, or of the database that a URL names; not open yet. Raises CannotServe."""
    if mongodb_url is None:
        return SqliteStore(folder, retention_s)
    if refusal := stigmer_refusal():
        raise CannotServe(f"FASTRUNNER_STIGMER_MONGODB_URL is set, and {refusal}")
    # Only whoever has the extra can import it.
    from fastrunner.stigmer.store.mongodb.store import MongoStore

    try:
        return MongoStore(mongodb_url, retention_s)
    except ValueError as error:
        raise CannotServe(f"FASTRUNNER_STIGMER_MONGODB_URL {error}") from None


async def session_key(store: Store, folder: Path) -> bytes:
    """What browsers' cookies are sealed with, made once: so that they outlive the process, and are good for every
    service of a store. Raises CannotServe, StorageFailed."""
    new = os.urandom(_SESSION_KEY_SIZE_BYTES)
    if isinstance(store, SharedStore):
        return await store.session_key(new)
    try:
        return _kept(folder / "session.key", new)
    except (OSError, ValueError) as error:
        raise CannotServe(str(error)) from None


def _kept(path: Path, new: bytes) -> bytes:
    """Raises OSError and ValueError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) != _SESSION_KEY_SIZE_BYTES:
            raise ValueError(f"{path} is no key: delete it, and browsers sign in again") from None
        return key
    with os.fdopen(descriptor, "wb") as file:
        file.write(new)
    return new
