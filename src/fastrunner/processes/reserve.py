"""Support: what a runner takes before it forks (ports, data directory, runtime folder) and what it says when ready.

Rule: everything is taken in one place and given up in one place; what cannot be had is a StartError with its exit code.
"""

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.config import Config
from fastrunner.engine.embedded.store.manifest import DataDirectoryRefused, open_data_directory
from fastrunner.processes.folder import RuntimeFolder
from fastrunner.processes.link import ExitCode, StartError
from fastrunner.processes.ports import remove_ports_file, reserve_port, write_ports_file

_MIGRATE_SETTING: Final = Path("/proc/sys/net/ipv4/tcp_migrate_req")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reserved:
    """What the supervisor holds for its children."""

    grpc: socket.socket
    """Bound, not listening."""
    http: socket.socket
    """Bound and listening."""
    folder: RuntimeFolder
    """Sockets and metrics of this run."""
    shards: int
    """Shards of the data directory."""


def reserve(config: Config) -> tuple[Config, Reserved, contextlib.ExitStack]:
    """Takes everything that only one runner may have, waiting a moment for what children of a killed one still hold.

    Gives the settings with the chosen ports, what was taken, and a stack that gives it up again. Raises StartError.
    """
    give_up_s = monotonic_s() + limits.START_WAIT_S_MAX
    while True:
        try:
            return _reserve(config)
        except StartError:
            if monotonic_s() >= give_up_s:
                raise
            time.sleep(limits.START_WAIT_S_MAX / 20)


def _reserve(config: Config) -> tuple[Config, Reserved, contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        grpc = stack.enter_context(reserve_port(config.grpc_host, config.grpc_port, "GRPC_PORT", shared=True))
        http = stack.enter_context(reserve_port(config.http_host, config.http_port, "FASTRUNNER_HTTP_PORT"))
        try:
            data = open_data_directory(config.data_dir, config.workers, config.shards)
        except DataDirectoryRefused as error:
            raise StartError(ExitCode.LOCKED, str(error)) from None
        stack.callback(data.close)
        remove_ports_file(config.data_dir)
        stack.callback(remove_ports_file, config.data_dir)
        try:
            folder = RuntimeFolder.create(config.data_dir)
        except OSError as error:
            reason = f"data directory {config.data_dir} cannot be used: {error.strerror}"
            raise StartError(ExitCode.LOCKED, reason) from None
        stack.callback(folder.remove)
        chosen = {"grpc_port": grpc.getsockname()[1], "http_port": http.getsockname()[1]}
        reserved = Reserved(grpc, http, folder, data.shard_count)
        return config.model_copy(update=chosen), reserved, stack.pop_all()


def announcement(config: Config, reserved: Reserved) -> Callable[[], None]:
    """What to do once the runner is ready: write the ports file and say so on stdout."""

    def announce() -> None:
        ports = {"grpc_port": config.grpc_port, "http_port": config.http_port, "pid": os.getpid()}
        try:
            write_ports_file(config.data_dir, {**ports, "runtime_dir": str(reserved.folder.path)})
            sys.stdout.write(
                f"fastrunner is ready: grpc {config.grpc_host}:{config.grpc_port}, http {config.http_host}:"
                f"{config.http_port}, workers {config.workers}, shards {reserved.shards}, data {config.data_dir}\n"
            )
            sys.stdout.flush()
        except (AttributeError, OSError, ValueError) as error:
            # A closed stdout or a full disk is no reason to stop what works.
            log.warning("ready, but cannot say so: %s", error)

    return announce


def warn_of_lost_connections(config: Config) -> None:
    """Says what a replaced worker costs with this kernel's settings."""
    with contextlib.suppress(OSError):
        if config.workers > 1 and _MIGRATE_SETTING.read_text(encoding="ascii").strip() == "0":
            log.info(
                "net.ipv4.tcp_migrate_req is 0: connections a worker has not accepted yet are reset when it is "
                "replaced; clients retry them, or set it to 1"
            )
