"""Support: what a runner takes before it forks (ports, data directory, runtime folder) and what it says when ready.

Rule: everything is taken in one place and given up in one place; what cannot be had is a StartError with its exit code.
"""

import contextlib
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastrunner.access.sealing import DataKeys, KeyFileRefused
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.base.folders import identity_of
from fastrunner.base.logs import json_line
from fastrunner.config import Config, Environment
from fastrunner.counts.cells import Segment
from fastrunner.engine.embedded.store import kept_journals
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused, open_data_directory, owner_facts
from fastrunner.processes.folder import RuntimeFolder, child_identity
from fastrunner.processes.link import ExitCode, Role, StartError
from fastrunner.processes.package import Fingerprint
from fastrunner.processes.ports import (
    address_of,
    host_and_port_of,
    remove_ports_file,
    reserve_port,
    write_ports_file,
)
from fastrunner.processes.shared import Shared

_MIGRATE_SETTING: Final = Path("/proc/sys/net/ipv4/tcp_migrate_req")

SUPERVISOR: Final = "supervisor"
"""Under which name the supervisor counts."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reserved:
    """What the supervisor holds for its children."""

    grpc: socket.socket
    """Bound, not listening."""
    http: socket.socket
    """Bound and listening."""
    folder: RuntimeFolder
    """Sockets of this run."""
    shared: Shared
    """Memory of the workers."""
    segments: Mapping[str, Segment]
    """What each process counts in, by its identity; made before the first fork, so that all of them share it."""
    package: Fingerprint
    """The code that runs."""


def reserve(config: Config) -> tuple[Config, Reserved, contextlib.ExitStack]:
    """Takes everything that only one runner may have, waiting a moment for what children of a killed one still hold.

    Gives the settings with the chosen ports, what was taken, and a stack that gives it up again. Raises StartError.
    """
    package = Fingerprint.take()
    give_up_s = monotonic_s() + limits.START_WAIT_S_MAX
    while True:
        try:
            return _reserve(config, package)
        except StartError:
            if monotonic_s() >= give_up_s:
                raise
            time.sleep(limits.START_WAIT_S_MAX / 20)


def _reserve(config: Config, package: Fingerprint) -> tuple[Config, Reserved, contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        require_descriptors(config.workers, config.workers)
        grpc = stack.enter_context(reserve_port(config.grpc_host, config.grpc_port, "GRPC_PORT", shared=True))
        http = stack.enter_context(reserve_port(config.http_host, config.http_port, "FASTRUNNER_HTTP_PORT"))
        try:
            keys = None if config.data_key_file is None else DataKeys.read(config.data_key_file)
            sealing = config.temporal_key_file
            temporal_keys = None if sealing is None else DataKeys.read(sealing, "FASTRUNNER_TEMPORAL_KEY_FILE")
        except KeyFileRefused as error:
            raise StartError(ExitCode.CONFIGURATION, str(error)) from None
        try:
            fingerprints = {} if keys is None else keys.fingerprints()
            owner_before = owner_facts(config.data_dir)
            data = open_data_directory(config.data_dir, config.workers, fingerprints)
            stack.callback(data.close)
            kept_journals.prepare(config.data_dir, is_wanted=config.replica_url is not None, owner_before=owner_before)
        except DataDirectoryRefused as error:
            raise StartError(ExitCode.LOCKED, str(error)) from None
        except OSError as error:
            reason = f"data directory {config.data_dir} cannot be used: {error.strerror}"
            raise StartError(ExitCode.LOCKED, reason) from None
        require_descriptors(config.workers, data.shard_count)
        remove_ports_file(config.data_dir)
        stack.callback(remove_ports_file, config.data_dir)
        try:
            folder = RuntimeFolder.create(config.data_dir)
        except OSError as error:
            reason = f"data directory {config.data_dir} cannot be used: {error.strerror}"
            raise StartError(ExitCode.LOCKED, reason) from None
        stack.callback(folder.remove)
        (grpc_host, grpc_port), (http_host, http_port) = host_and_port_of(grpc), host_and_port_of(http)
        chosen = {"grpc_host": grpc_host, "grpc_port": grpc_port, "http_host": http_host, "http_port": http_port}
        segments = _segments(config.workers, data.shard_count)
        shared = Shared.create(
            config.workers,
            data.shard_count,
            data.placement_key,
            keys,
            folder=identity_of(config.data_dir),
            temporal_keys=temporal_keys,
        )
        reserved = Reserved(grpc, http, folder, shared, segments, package)
        return config.model_copy(update=chosen), reserved, stack.pop_all()


def _segments(workers: int, shards: int) -> dict[str, Segment]:
    """A worker's has room for a note of each of its shards."""
    per_worker = -(-shards // workers)
    names = [child_identity(Role.WORKER, index) for index in range(workers)]
    segments = {name: Segment(notes=per_worker) for name in names}
    others = [child_identity(role, 0) for role in (Role.WEB, Role.REPLICA)]
    return {**segments, **{name: Segment() for name in (*others, SUPERVISOR)}}


def require_descriptors(workers: int, shards: int) -> None:
    """Raises StartError if a process of the runner could not open what it needs: else its files would be blamed."""
    per_worker = limits.DESCRIPTORS_PER_SHARD * -(-shards // workers) + limits.DESCRIPTORS_PER_WORKER * workers
    needed = limits.DESCRIPTORS_MIN + per_worker
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise StartError(
            ExitCode.CONFIGURATION,
            f"the limit on open files is {hard}, and each process of {workers} workers with {shards} shards needs "
            f"{needed}, and one more for every connection: raise it (`ulimit -Hn`, or LimitNOFILE= of the service)",
        )


def announcement(config: Config, reserved: Reserved) -> Callable[[], None]:
    """What to do once the runner is ready: write the ports file and say so on stdout."""

    def announce() -> None:
        ports = {"grpc_port": config.grpc_port, "http_port": config.http_port, "pid": os.getpid()}
        grpc, http = address_of(config.grpc_host, config.grpc_port), address_of(config.http_host, config.http_port)
        try:
            write_ports_file(config.data_dir, {**ports, "runtime_dir": str(reserved.folder.path)})
            ready = (
                f"fastrunner is ready: grpc {grpc}, http {http}, workers {config.workers}, "
                f"shards {reserved.shared.shard_count}, data {config.data_dir}"
            )
            if config.env is Environment.LOCAL:
                sys.stdout.write(f"{ready}\n{_first_steps(config, grpc, http)}")
            else:
                # Whoever gathers logs takes both streams as one.
                sys.stdout.write(json_line("supervisor", log.name, ready) + "\n")
            sys.stdout.flush()
        except (AttributeError, OSError, ValueError) as error:
            # A closed stdout or a full disk is no reason to stop what works.
            log.warning("ready, but cannot say so: %s", error)

    return announce


def _first_steps(config: Config, grpc: str, http: str) -> str:
    """What somebody who has started a runner for the first time may want to type."""
    target = "" if grpc == "127.0.0.1:9090" else f" --target {grpc}"
    target += " --tls" if config.tls_certificate_file else ""
    where = config.stigmer_service_endpoint or "nowhere (STIGMER_SERVICE_ENDPOINT is not set)"
    return (
        f"progress is kept, and called back to {where}\n"
        "in another terminal:\n"
        f"  echo '{_HELLO}' | fastrunner submit -{target} --follow\n"
        f"  fastrunner status{target}{f' --http-target {http}' if target else ''}\n"
    )


_HELLO: Final = (
    "{document: {dsl: 1.0.3, namespace: try, name: hello, version: 1.0.0}, do: [{greet: {set: {text: hello}}}]}"
)


def warn_of_lost_connections(config: Config) -> None:
    """Says what a replaced worker costs with this kernel's settings."""
    with contextlib.suppress(OSError):
        if config.workers > 1 and _MIGRATE_SETTING.read_text(encoding="ascii").strip() == "0":
            log.debug(
                "net.ipv4.tcp_migrate_req is 0: connections a worker has not accepted yet are reset when it is "
                "replaced; clients retry them, or set it to 1"
            )
