"""Support: what a runner would meet if it started here, found out without starting it, for `fastrunner doctor`.

Rules: an examination changes nothing that is there. Each finding is a sentence, with what to do if it is no good; one
that fails hinders no other.
"""

import asyncio
import ctypes
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Final, Literal

from cryptography import x509

from fastrunner.base.clock import wall_ms
from fastrunner.base.fsync import fsync_times_s
from fastrunner.base.ports_file import ports_in
from fastrunner.base.stores import folder_of
from fastrunner.blobs import BlobMissing, open_store
from fastrunner.callback.client import DeliveryFailed, ProgressClient
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store.manifest import (
    DataDirectoryRefused,
    is_of_runners,
    owner_of,
    read_sealing_keys,
    read_shard_count,
    refuse_other_kinds,
)
from fastrunner.errors import StorageFailed
from fastrunner.processes.link import StartError
from fastrunner.processes.ports import reserve_port
from fastrunner.processes.reserve import require_descriptors
from fastrunner.replica.parts import FOLDER

__all__ = ["Finding", "examine"]

State = Literal["good", "doubtful", "bad"]

_FREE_SIZE_BYTES_MIN: Final = 1 << 30
_FSYNCS: Final = 20
_FSYNC_S_MAX: Final = 0.02
"""Half of what a client notices: every accept waits for one."""
_FSYNC_S_MIN: Final = 0.000_005
"""Less is a memory's time, no disk's."""
_EXPIRY_DAYS_MIN: Final = 14
_ANSWER_S_MAX: Final = 5.0
_UNSYNCHRONISED: Final = 0x40
_TIMEX_SIZE_BYTES: Final = 256
_STATUS_OFFSET_BYTES: Final = 40


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of looking at one thing."""

    what: str
    """What was looked at."""
    state: State
    """bad: a runner does not start, or does not work; doubtful: it does, and may not as one expects."""
    text: str
    """How it is."""
    remedy: str = ""
    """What to do about it; empty if it is good."""


async def examine(config: Config) -> AsyncIterator[Finding]:
    """Looks at one thing after the other."""
    owner = owner_of(config.data_dir)
    yield _data_directory(config, owner)
    for look in (_disk, _files, _certificates, _clock):
        for finding in look(config):
            yield finding
    for finding in _ports(config, is_ours=bool(owner)):
        yield finding
    yield await _copy(config)
    yield await _receiver(config)
    if config.temporal_service_address is not None:
        yield await _temporal(config)


# --- the data directory and its disk ---


def _data_directory(config: Config, owner: str) -> Finding:
    what, folder = "data directory", config.data_dir
    parent = _existing(folder)
    if not parent.is_dir():
        return Finding(what, "bad", f"{parent} is no folder", "set FASTRUNNER_DATA_DIR")
    if parent != folder:
        if _is_usable(folder, parent):
            return Finding(what, "good", f"{folder} is not there yet, and will be made")
        return Finding(what, "bad", f"{folder} is not there, and cannot be made in {parent}", "set FASTRUNNER_DATA_DIR")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(what, "bad", f"{folder} may not be written by this user", "chown it, or set FASTRUNNER_DATA_DIR")
    if folder.stat().st_mode & 0o077:
        remedy = f"chmod 700 {folder}" if is_of_runners(folder) else "set FASTRUNNER_DATA_DIR to a new directory in it"
        return Finding(what, "bad", f"{folder} is open to others than its owner", remedy)
    try:
        refuse_other_kinds(folder)
        shards = read_shard_count(folder) if (folder / "manifest.json").exists() else 0
        keys = read_sealing_keys(folder)
    except DataDirectoryRefused as error:
        return Finding(what, "bad", str(error), "see docs/operations.md, backup and restore")
    if keys and config.data_key_file is None:
        return Finding(what, "bad", f"{folder} is sealed with {', '.join(keys)}", "set FASTRUNNER_DATA_KEY_FILE")
    used = f", used by {owner}" if owner else ""
    return Finding(what, "good", f"{folder}, {shards} shards{used}" if shards else f"{folder}, empty{used}")


def _existing(path: Path) -> Path:
    # Not Path.exists: a name that is too long is an error to it.
    return next(parent for parent in (path, *path.parents) if os.path.exists(parent))


def _is_usable(folder: Path, parent: Path) -> bool:
    """Whether a folder that is not there can be made below one that is."""
    if not os.access(parent, os.W_OK | os.X_OK) or os.path.lexists(parent / folder.relative_to(parent).parts[0]):
        # What has its name, and leads nowhere, is a link.
        return False
    names_max, path_max = os.pathconf(parent, "PC_NAME_MAX"), os.pathconf(parent, "PC_PATH_MAX")
    return len(os.fsencode(folder)) < path_max and all(len(os.fsencode(part)) <= names_max for part in folder.parts)


def _disk(config: Config) -> Iterator[Finding]:
    folder = _existing(config.data_dir)
    usage = shutil.disk_usage(folder)
    free = f"{usage.free / (1 << 30):.1f} GiB free of {usage.total / (1 << 30):.1f}"
    if usage.free < _FREE_SIZE_BYTES_MIN:
        yield Finding("disk space", "doubtful", free, "make room, or move the data directory")
    else:
        yield Finding("disk space", "good", free)
    try:
        took_s = fsync_times_s(folder, _FSYNCS)[_FSYNCS // 2]
    except OSError as error:
        yield Finding("fsync", "bad", f"{folder}: {error.strerror}", "see what the kernel says of the disk (dmesg)")
        return
    text = f"{1000 * took_s:.2f} ms, the slower half of {_FSYNCS}"
    if took_s > _FSYNC_S_MAX:
        yield Finding("fsync", "doubtful", text, "every accept waits for it: use a faster disk, not shared")
    elif took_s < _FSYNC_S_MIN:
        yield Finding("fsync", "doubtful", f"{text}: no disk is that fast", "a power cut may lose what was accepted")
    else:
        yield Finding("fsync", "good", text)


def _files(config: Config) -> Iterator[Finding]:
    try:
        require_descriptors(config.workers, config.workers)
    except StartError as error:
        yield Finding("open files", "bad", str(error), "raise LimitNOFILE=, or `ulimit -Hn`")
    else:
        yield Finding("open files", "good", f"enough for {config.workers} workers")


# --- certificates and the clock ---


def _certificates(config: Config) -> Iterator[Finding]:
    """Whether the configuration can use them was found out when it was read; here until when."""
    for variable, file in (
        ("FASTRUNNER_TLS_CERTIFICATE_FILE", config.tls_certificate_file),
        ("FASTRUNNER_TLS_CLIENT_CA_FILE", config.tls_client_ca_file),
        ("FASTRUNNER_CALLBACK_CERTIFICATE_FILE", config.callback_certificate_file),
        ("FASTRUNNER_CALLBACK_CA_FILE", config.callback_ca_file),
    ):
        if file is not None:
            certificates = x509.load_pem_x509_certificates(file.read_bytes())
            begins = max(each.not_valid_before_utc for each in certificates)
            ends = min(each.not_valid_after_utc for each in certificates)
            now = datetime.fromtimestamp(wall_ms() / 1000, UTC)
            left = ends - now
            text = f"{variable} ends {ends:%Y-%m-%d}"
            if begins > now:
                text = f"{variable} begins {begins:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M}"
                yield Finding("certificate", "bad", text, "wait, have another one made, or set the clock")
            elif left < timedelta():
                yield Finding("certificate", "bad", text, "renew it")
            elif left < timedelta(days=_EXPIRY_DAYS_MIN):
                yield Finding("certificate", "doubtful", text, "renew it: a changed file is taken up by itself")
            else:
                yield Finding("certificate", "good", text)


def _clock(_: Config) -> Iterator[Finding]:
    """Whether the kernel knows that its clock is synchronised (adjtimex)."""
    timex = ctypes.create_string_buffer(_TIMEX_SIZE_BYTES)
    if ctypes.CDLL(None).adjtimex(timex) < 0:
        yield Finding(
            "clock", "doubtful", "the kernel does not say whether it is synchronised", "see `chronyc tracking`"
        )
        return
    status = int.from_bytes(timex.raw[_STATUS_OFFSET_BYTES : _STATUS_OFFSET_BYTES + 4], "little")
    if status & _UNSYNCHRONISED:
        remedy = "run chrony or systemd-timesyncd: cron schedules and tokens go by the clock"
        yield Finding("clock", "doubtful", "is not synchronised with others", remedy)
    else:
        yield Finding("clock", "good", "is synchronised")


# --- ports ---


def _ports(config: Config, *, is_ours: bool) -> Iterator[Finding]:
    running = ports_in(config.data_dir) if is_ours else {}
    # The first is held while the second is tried: one port cannot be both.
    with ExitStack() as held:
        for what, host, port, variable, key in (
            ("gRPC port", config.grpc_host, config.grpc_port, "GRPC_PORT", "grpc_port"),
            ("HTTP port", config.http_host, config.http_port, "FASTRUNNER_HTTP_PORT", "http_port"),
        ):
            if running.get(key):
                yield Finding(what, "good", f"{running[key]}, of the runner that uses the data directory")
                continue
            try:
                held.enter_context(closing(reserve_port(host, port, variable)))
                yield Finding(what, "good", f"{host}:{port} is free" if port else "a free one will be chosen")
            except StartError as error:
                text, _, remedy = str(error).partition("; ")
                yield Finding(what, "bad", text, remedy or f"set {variable}")


# --- others ---


async def _copy(config: Config) -> Finding:
    what, url = "copy elsewhere", config.replica_url
    if url is None:
        return Finding(what, "good", "none: what is lost with the disk of the data directory is lost")
    folder = folder_of(url)
    if folder is not None and not folder.is_dir():
        return _copy_folder(what, folder)
    store, name = open_store(url), f"{FOLDER}/examined-{token_hex(8)}"
    try:
        async with asyncio.timeout(_ANSWER_S_MAX):
            # As parts are written: there are stores that speak S3 and do not know that.
            await store.put_new(name, b"")
            await store.get(name)
            await store.delete(name)
    except (StorageFailed, BlobMissing, TimeoutError) as error:
        text = str(error) or f"{url} does not answer"
        return Finding(what, "bad", text, _COPY_REMEDY)
    if folder is not None and folder.stat().st_dev == _existing(config.data_dir).stat().st_dev:
        remedy = "name a folder of another machine's disk, or a bucket"
        return Finding(what, "doubtful", f"{folder} is on the same disk as the data directory", remedy)
    return Finding(what, "good", f"{url} can be written and read")


_COPY_REMEDY: Final = "see FASTRUNNER_REPLICA_URL, and who may write there"


def _copy_folder(what: str, folder: Path) -> Finding:
    """Of a folder that is not there: a runner makes it, which is not for an examination to do, and may be wrong: where
    a disk is not mounted, the copy goes to the one below."""
    parent = _existing(folder)
    if parent.is_dir() and parent != folder and _is_usable(folder, parent):
        remedy = "it will be made: is its disk mounted?"
        return Finding(what, "doubtful", f"{folder} is not there", remedy)
    return Finding(what, "bad", f"{folder} is no folder, and cannot be made in {parent}", _COPY_REMEDY)


async def _receiver(config: Config) -> Finding:
    what, target = "receiver", config.stigmer_service_endpoint
    if not target:
        return Finding(what, "good", "none: progress is kept, and called back to nowhere")
    client = ProgressClient(config.model_copy(update={"callback_timeout_s": _ANSWER_S_MAX}), Metrics())
    try:
        # No event: nothing is told, and whoever answers has let us in.
        await client.report_batch(b"", True)
    except DeliveryFailed as failed:
        return _refused(what, target, failed)
    finally:
        await client.close()
    return Finding(what, "good", f"{target} answers")


def _refused(what: str, target: str, failed: DeliveryFailed) -> Finding:
    text = f"{target}: {failed}"
    for code, remedy in _REMEDIES.items():
        if code in text:
            return Finding(what, "good" if code == "UNIMPLEMENTED" else "bad", text, remedy)
    return Finding(what, "doubtful", text)


_REMEDIES: Final = {
    "UNIMPLEMENTED": "",
    "UNAUTHENTICATED": "see STIGMER_SERVICE_API_KEY and its file",
    "PERMISSION_DENIED": "see STIGMER_SERVICE_API_KEY and its file",
    "UNAVAILABLE": "is it there, and does it speak TLS (STIGMER_SERVICE_USE_TLS)?",
    "DEADLINE_EXCEEDED": "is it there, and does a firewall let the runner through?",
}


async def _temporal(config: Config) -> Finding:
    what = "Temporal"
    try:
        from temporalio.converter import DataConverter
        from temporalio.service import RPCError

        from fastrunner.engine.temporal.client import Connection, sentence_of
    except ImportError:
        return Finding(what, "bad", "its client is not installed", "pip install 'fastrunner[temporal]'")
    connection = Connection(config, DataConverter.default)
    try:
        async with asyncio.timeout(_ANSWER_S_MAX):
            await connection.connect()
    except TimeoutError:
        return Finding(what, "bad", f"{connection.address} does not answer", "see TEMPORAL_SERVICE_ADDRESS")
    except (OSError, RPCError, RuntimeError, ValueError) as error:
        return Finding(what, "bad", sentence_of(error, config), "see docs/temporal.md")
    finally:
        await connection.close()
    return Finding(what, "good", f"{connection.address} answers")
