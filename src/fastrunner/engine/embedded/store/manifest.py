"""Stage 3, journal: the data directory: who may use it, what shape it has.

    <data_dir>/lock             held by the running process tree; says who that is: pid, host, since when
    <data_dir>/manifest.json    format version, shard count, the key of the table of places, and which keys have sealed
    <data_dir>/shard-0000.db    one SQLite file per shard (with -wal and -shm beside it)
    <data_dir>/shard-0000.lock  held by the worker that owns the shard

An execution lives in the shard of the worker that accepted it. More workers than shards make more shards; fewer own
several each, and accept into the first of theirs. Format 1 spread executions over a fixed number of shards by their
ids; they stay where they are. Format 3 is format 2 with sealed values; the manifest has the ids of the keys that may
have sealed any, with what tells each key from another one, before the first such value is written.

Rules: the lock is an advisory file lock on an open descriptor, so it ends with its holders however they end, and a
forked child keeps it for its parent. The manifest is written atomically. Nobody but the owner may read any of it.
"""

import errno
import fcntl
import os
import re
import secrets
import shlex
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from fastrunner.base import limits
from fastrunner.base.clock import wall_ms

__all__ = [
    "FORMAT_VERSION",
    "LOCK_NAME",
    "MANIFEST_NAME",
    "RESTORING",
    "DataDirectory",
    "DataDirectoryRefused",
    "check_keys",
    "is_of_runners",
    "keep_only_key",
    "locked",
    "open_data_directory",
    "owner_facts",
    "owner_of",
    "read_sealing_keys",
    "read_shard_count",
    "refuse_other_kinds",
]

FORMAT_VERSION: Final = 3
"""Layout of the directory; the shards' own schema has a version of its own."""

_UNSEALED_FORMAT_VERSION: Final = 2
"""What a directory without sealed values has, so that versions that know of none read it."""

MANIFEST_NAME: Final = "manifest.json"
"""A directory without it is none."""
RESTORING: Final = ".restoring"
"""What a file ends with that is just being restored."""
LOCK_NAME: Final = "lock"
_OF_FILES: Final = re.compile(r"lock|.*\.(json|new|db|db-wal|db-shm|ids|marks|lock|leader|restoring)")
"""What files are called, those that come and go as well; no folder is."""
_WRITTEN: Final = re.compile(r".*\.(db|db-wal|db-shm|ids|lock|leader)")
"""What is opened for writing, and cannot be done without."""
_BY_EFFECTIVE_IDS: Final = os.access in os.supports_effective_ids
_OTHERS: Final = 0o077
_KEY_SIZE_BYTES: Final = 16


class DataDirectoryRefused(Exception):
    """The data directory cannot be used; the message is one sentence with the remedy."""


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """A data directory this process tree holds."""

    folder: Path
    """Where it is."""
    shard_count: int
    """How many shards it has."""
    placement_key: bytes
    """16 bytes that nobody else knows: nobody can choose ids that fall on one another in the table of places."""
    lock_descriptor: int
    """The open lock file; the directory is free again once every process has closed it."""

    def close(self) -> None:
        """Gives up this process's hold on the directory."""
        os.close(self.lock_descriptor)


@dataclass(frozen=True, slots=True)
class _Manifest:
    """What is written once and read at every start."""

    shard_count: int
    placement_key: bytes = b""
    """Empty in format 1, which had none."""
    sealed_with: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints, by id, of the keys that may have sealed what is stored."""


def open_data_directory(
    folder: Path, shard_count_min: int, fingerprints: Mapping[str, str] | None = None
) -> DataDirectory:
    """Creates or opens a data directory and locks it for this process and its children; it has at least so many shards
    afterwards.

    `fingerprints` are those of the keys at hand, by id, the first of which will seal; None if no value is going to be
    read or written. Raises DataDirectoryRefused if another runner uses it, if it is of a newer format, if others may
    read it, if it cannot be written, or if a key is missing.
    """
    try:
        _refuse_if_too_long(folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_if_open_to_others(folder)
        descriptor = _lock(folder)
    except (OSError, RuntimeError) as error:
        # A circle of links is no OSError to all versions of Python.
        reason = _trouble(folder, error) if isinstance(error, OSError) else f"data directory {folder}: {error}"
        raise DataDirectoryRefused(reason) from error
    try:
        _close_to_others(folder)
        _refuse_what_may_not_be_written(folder)
        found = _read_manifest(folder) or _Manifest(0)
        manifest = _Manifest(
            max(found.shard_count, shard_count_min),
            found.placement_key or secrets.token_bytes(_KEY_SIZE_BYTES),
            _sealed_with(folder, found.sealed_with, fingerprints),
        )
        if manifest != found:
            _write_manifest(folder, manifest)
    except OSError as error:
        os.close(descriptor)
        raise DataDirectoryRefused(_trouble(folder, error)) from error
    except BaseException:
        os.close(descriptor)
        raise
    return DataDirectory(folder, manifest.shard_count, manifest.placement_key, descriptor)


def _sealed_with(folder: Path, before: Mapping[str, str], given: Mapping[str, str] | None) -> Mapping[str, str]:
    """The keys of what is stored and what will be. Raises DataDirectoryRefused as `check_keys`."""
    if given is None:
        return before
    check_keys(folder, before, given)
    return {**before, **dict(list(given.items())[:1])}


def check_keys(folder: Path, needed: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Raises DataDirectoryRefused unless the keys that are needed are given; both are fingerprints by id."""
    for key_id, fingerprint in needed.items():
        if key_id in given and given[key_id] != fingerprint:
            raise DataDirectoryRefused(
                f"data directory {folder} was sealed with another key {key_id} than the one of that id in the file "
                "that FASTRUNNER_DATA_KEY_FILE names: put the right one into it"
            )
        if key_id not in given:
            what = "does not name a file that has it" if given else "is not set"
            raise DataDirectoryRefused(
                f"data directory {folder} is sealed with the key {key_id}, and FASTRUNNER_DATA_KEY_FILE {what}: set it "
                "to the file with that key"
            )


def keep_only_key(folder: Path, key_id: str) -> None:
    """Writes down that one key has sealed all there is. Hold the directory's lock. Raises as `read_sealing_keys`, and
    OSError."""
    manifest = _read_manifest(folder)
    if manifest is not None:
        kept = {each: value for each, value in manifest.sealed_with.items() if each == key_id}
        _write_manifest(folder, replace(manifest, sealed_with=kept))


def read_sealing_keys(folder: Path) -> Mapping[str, str]:
    """Fingerprints, by id, of the keys of an existing data directory, taking no lock. Raises DataDirectoryRefused."""
    manifest = _read_manifest(folder)
    return {} if manifest is None else manifest.sealed_with


def _refuse_if_open_to_others(folder: Path) -> None:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & _OTHERS:
        chmod = f"run `chmod 700 {shlex.quote(str(folder))}`, or " if is_of_runners(folder) else ""
        raise DataDirectoryRefused(
            f"data directory {folder} is open to others than its owner (mode {mode:04o}), and what clients send lies "
            f"in it: {chmod}set FASTRUNNER_DATA_DIR to a new directory below it"
        )


def is_of_runners(folder: Path) -> bool:
    """Whether nothing but a runner's files is in a folder that exists: nobody is told to close another's, `/`, say."""
    return (folder / MANIFEST_NAME).exists() or not any(folder.iterdir())


def _trouble(folder: Path, error: OSError) -> str:
    """Why a folder cannot be used, and whose it is where that is the reason."""
    reason = str(error.strerror)
    with suppress(OSError):
        if isinstance(error, FileExistsError):
            reason = "it is a link that leads nowhere" if folder.is_symlink() else "it is no directory"
        elif isinstance(error, PermissionError):
            reason += _whose(Path(error.filename or folder))
    return f"data directory {folder} cannot be used: {reason}"


def _whose(path: Path) -> str:
    """Whose something is that this user may not use. Raises OSError."""
    facts = path.stat()
    if facts.st_uid == os.geteuid():
        return f": {path} has mode {stat.S_IMODE(facts.st_mode):04o}"
    return f": {path} belongs to user {facts.st_uid}, and the runner is user {os.geteuid()}"


def _refuse_what_may_not_be_written(folder: Path) -> None:
    """Files of another user, or that are kept from being written: SQLite would only say that it cannot open them, or
    read them and fail with the first commit. Raises OSError, DataDirectoryRefused."""
    for path in folder.iterdir():
        if _WRITTEN.fullmatch(path.name) and not os.access(path, os.R_OK | os.W_OK, effective_ids=_BY_EFFECTIVE_IDS):
            with suppress(FileNotFoundError):
                raise DataDirectoryRefused(
                    f"data directory {folder} cannot be used: Permission denied{_whose(path)}: let the runner read and "
                    "write it"
                )


def _refuse_if_too_long(folder: Path) -> None:
    size_bytes = len(os.fsencode(folder.resolve()))
    if size_bytes > limits.DATA_DIRECTORY_PATH_SIZE_BYTES_MAX:
        raise DataDirectoryRefused(
            f"the path of the data directory has {size_bytes} bytes, and SQLite takes "
            f"{limits.DATA_DIRECTORY_PATH_SIZE_BYTES_MAX} at most: set FASTRUNNER_DATA_DIR to a shorter one, or to a "
            f"directory that is nearer: {folder}"
        )


def _close_to_others(folder: Path) -> None:
    """Files that were made with another umask would be readable in a copy of the directory."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError, PermissionError):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) and mode & _OTHERS:
                path.chmod(stat.S_IMODE(mode) & ~_OTHERS)


def refuse_other_kinds(folder: Path) -> None:
    """Links to files, because what is written into one lands in a file that is no runner's (folders may lie elsewhere);
    and what is a folder, or a pipe, where the runner has files."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if path.is_symlink() and not path.is_dir():
                raise DataDirectoryRefused(
                    f"data directory {folder} has a link in the place of a file, {path.name}, and writing there would "
                    f"change {os.readlink(path)}: remove the link, or put the file itself there"
                )
            mode = path.stat().st_mode
            if _OF_FILES.fullmatch(path.name) and not stat.S_ISREG(mode):
                what = "a directory" if stat.S_ISDIR(mode) else "no file"
                raise DataDirectoryRefused(
                    f"data directory {folder} has {what} in the place of a file, {path.name}: move it elsewhere"
                )


def _lock(folder: Path) -> int:
    refuse_other_kinds(folder)
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps runners away from a directory that exists, whatever is in it. Raises DataDirectoryRefused, OSError."""
    descriptor = _lock(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def owner_of(folder: Path) -> str:
    """Who uses a directory, in words; empty if nobody does. Changes nothing."""
    try:
        # Where a pipe is in its place, opening waits for nobody.
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(descriptor)
    finally:
        os.close(descriptor)
    return ""


def owner_facts(folder: Path) -> bytes:
    """What whoever took a directory last has said of itself; empty if that is not known. Takes no lock."""
    try:
        return (folder / LOCK_NAME).read_bytes()
    except OSError:
        return b""


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
    manifest = _read_manifest(folder)
    if manifest is None:
        raise DataDirectoryRefused(f"{folder} is no data directory: it has no {MANIFEST_NAME}")
    return manifest.shard_count


def _read_manifest(folder: Path) -> _Manifest | None:
    """The manifest of an existing directory; None for a new one."""
    path = folder / MANIFEST_NAME
    if path.exists() and not path.is_file():
        # A pipe would never be read to its end.
        raise DataDirectoryRefused(f"{path} is no file: restore it from a backup")
    try:
        manifest = orjson.loads(path.read_bytes())
        version, shard_count = int(manifest["format_version"]), int(manifest["shard_count"])
        has_key = 1 < version <= FORMAT_VERSION
        placement_key = bytes.fromhex(manifest["placement_key"]) if has_key else b""
        sealed_with = {str(key): str(value) for key, value in manifest.get("sealed_with", {}).items()}
        if shard_count < 1 or len(placement_key) != (_KEY_SIZE_BYTES if has_key else 0):
            raise ValueError(manifest)
    except FileNotFoundError:
        # A new one is empty; what there is may be of a restore that was broken off, wherever that had come to.
        left = sorted([*folder.glob("*.db"), *folder.glob(f"*{RESTORING}")])
        if left:
            raise DataDirectoryRefused(f"{path} is missing beside {left[0].name}: restore it from a backup") from None
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataDirectoryRefused(f"{path} is damaged: restore it from a backup") from error
    if version > FORMAT_VERSION:
        raise DataDirectoryRefused(
            f"data directory {folder} has format {version}, this version of fastrunner reads up to {FORMAT_VERSION}: "
            "run the version that wrote it, or a newer one"
        )
    return _Manifest(shard_count, placement_key, sealed_with)


def _write_manifest(folder: Path, manifest: _Manifest) -> None:
    """Writes the manifest so that a crash leaves either the one before or all of this one."""
    facts = {
        "format_version": FORMAT_VERSION if manifest.sealed_with else _UNSEALED_FORMAT_VERSION,
        "shard_count": manifest.shard_count,
        "placement_key": manifest.placement_key.hex(),
        **({"sealed_with": manifest.sealed_with} if manifest.sealed_with else {}),
    }
    draft = folder / f"{MANIFEST_NAME}.new"
    with draft.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(orjson.dumps(facts))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(folder / MANIFEST_NAME)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
