"""Stage 3, journal: the data directory: who may use it, what shape it has.

    <data_dir>/lock             held by the running process tree; says who that is: pid, host, since when
    <data_dir>/manifest.json    format version and shard count, fixed when the directory is created
    <data_dir>/shard-0000.db    one SQLite file per shard (with -wal and -shm beside it)
    <data_dir>/shard-0000.lock  held by the worker that owns the shard

Rules: the lock is an advisory file lock on an open descriptor, so it ends with its holders however they end, and a
forked child keeps it for its parent. The manifest is written once, atomically.
"""

import errno
import fcntl
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from fastrunner.base.clock import wall_ms

__all__ = ["FORMAT_VERSION", "DataDirectory", "DataDirectoryRefused", "open_data_directory", "read_shard_count"]

FORMAT_VERSION: Final = 1
"""Layout of the directory; the shards' own schema has a version of its own."""

_MANIFEST_NAME: Final = "manifest.json"
_LOCK_NAME: Final = "lock"


class DataDirectoryRefused(Exception):
    """The data directory cannot be used; the message is one sentence with the remedy."""


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """A data directory this process tree holds."""

    folder: Path
    """Where it is."""
    shard_count: int
    """How many shards it has."""
    lock_descriptor: int
    """The open lock file; the directory is free again once every process has closed it."""

    def close(self) -> None:
        """Gives up this process's hold on the directory."""
        os.close(self.lock_descriptor)


def open_data_directory(folder: Path, shard_count_new: int, shard_count_wanted: int | None = None) -> DataDirectory:
    """Creates or opens a data directory and locks it for this process and its children.

    A new one gets `shard_count_wanted` shards, or else `shard_count_new`. Raises DataDirectoryRefused if another runner
    uses it, if it is of a newer format, if its shard count differs from the one wanted, or if it cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _lock(folder)
    except OSError as error:
        raise DataDirectoryRefused(f"data directory {folder} cannot be used: {error.strerror}") from error
    try:
        shard_count = _read_manifest(folder)
        if shard_count is None:
            shard_count = shard_count_wanted or shard_count_new
            _write_manifest(folder, shard_count)
        elif shard_count_wanted not in (None, shard_count):
            raise DataDirectoryRefused(
                f"data directory {folder} has {shard_count} shards, FASTRUNNER_SHARDS asks for {shard_count_wanted}: "
                "the number is fixed when the directory is created; unset it or use a new directory"
            )
    except BaseException:
        os.close(descriptor)
        raise
    return DataDirectory(folder, shard_count, descriptor)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _owner(descriptor)
        os.close(descriptor)
        raise DataDirectoryRefused(
            f"data directory {folder} is in use by another runner, {owner}: stop it, or set FASTRUNNER_DATA_DIR to "
            "another directory"
        ) from None
    os.ftruncate(descriptor, 0)
    since = datetime.fromtimestamp(wall_ms() // 1000, UTC).isoformat()
    owner_facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    try:
        os.pwrite(descriptor, orjson.dumps(owner_facts, option=orjson.OPT_APPEND_NEWLINE), 0)
    except OSError as error:
        # On a full disk the lock holds all the same; it only does not say whose it is.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    return descriptor


def _owner(descriptor: int) -> str:
    """Who holds a lock file, in words."""
    try:
        facts = orjson.loads(os.pread(descriptor, 4096, 0))
        return f"process {facts['pid']} on {facts['host']} since {facts['since']}"
    except (ValueError, KeyError, TypeError):
        # It may have been written to a full disk, or be just about to be written.
        return "which has not said who it is"


def read_shard_count(folder: Path) -> int:
    """The number of shards of an existing data directory, taking no lock. Raises DataDirectoryRefused."""
    shard_count = _read_manifest(folder)
    if shard_count is None:
        raise DataDirectoryRefused(f"{folder} is no data directory: it has no {_MANIFEST_NAME}")
    return shard_count


def _read_manifest(folder: Path) -> int | None:
    """The shard count of an existing directory; None for a new one."""
    path = folder / _MANIFEST_NAME
    try:
        manifest = orjson.loads(path.read_bytes())
        version, shard_count = int(manifest["format_version"]), int(manifest["shard_count"])
    except FileNotFoundError:
        shards = sorted(folder.glob("shard-*.db"))
        if shards:
            raise DataDirectoryRefused(f"{path} is missing beside {shards[0].name}: restore it from a backup") from None
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataDirectoryRefused(f"{path} is damaged: restore it from a backup") from error
    if version > FORMAT_VERSION:
        raise DataDirectoryRefused(
            f"data directory {folder} has format {version}, this version of fastrunner reads up to {FORMAT_VERSION}: "
            "run the version that wrote it, or a newer one"
        )
    return shard_count


def _write_manifest(folder: Path, shard_count: int) -> None:
    """Writes the manifest so that a crash leaves either none or all of it."""
    draft = folder / f"{_MANIFEST_NAME}.new"
    with draft.open("wb") as file:
        file.write(orjson.dumps({"format_version": FORMAT_VERSION, "shard_count": shard_count}))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(folder / _MANIFEST_NAME)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
