"""Support: the ports of a runner: how they are reserved, and the file that tells which.

Rules: no grpc, no threads and no event loop here, because the supervisor uses it before every fork.
"""

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from fastrunner.processes.folder import forget_folder
from fastrunner.processes.link import ExitCode, StartError


def reserve_port(host: str, port: int, variable: str, *, shared: bool = False) -> socket.socket:
    """Binds `port` of `host` (0: a free one); raises StartError, naming `variable`, if somebody else has it.

    A shared port is bound with SO_REUSEPORT and not listened on: the workers listen on it. With SO_REUSEPORT a second
    runner could bind the same port and steal connections, so the first bind goes without. A port that is not shared is
    listened on here, so that connections wait in its backlog while the process that serves it is replaced.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        host_variable = variable if variable.startswith("FASTRUNNER") else f"FASTRUNNER_{variable}"
        host_variable = host_variable.replace("PORT", "HOST")
        raise StartError(ExitCode.PORT, f"{host_variable}={host}: {_why(error)}") from None
    family, _, _, _, address = found[0]
    try:
        # SO_REUSEADDR lets a restart pass connections in TIME_WAIT, but not a listener.
        probe = _bound(family, address, socket.SO_REUSEADDR)
        if not shared:
            probe.listen(socket.SOMAXCONN)
            return probe
        chosen = probe.getsockname()
        probe.close()
        return _bound(family, chosen, socket.SO_REUSEPORT)
    except OSError as error:
        raise _taken(variable, host, port, error) from None


def host_and_port_of(bound: socket.socket) -> tuple[str, int]:
    """The IP address and the port of a socket: what a name or a short form stood for when it was bound."""
    host, port, *rest = bound.getsockname()
    if rest and rest[1] and "%" not in host:
        host = f"{host}%{rest[1]}"
    return host, port


def address_of(host: str, port: int) -> str:
    """As gRPC and people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or "no host name")


def _taken(variable: str, host: str, port: int, error: OSError) -> StartError:
    return StartError(
        ExitCode.PORT,
        f"{variable}={port}: cannot bind {address_of(host.strip('[]'), port)}: "
        f"{os.strerror(error.errno or 0).lower()}; stop what uses it, choose another port, or 0 for a free one",
    )


def _bound(family: int, address: Any, option: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6:
            # `::` serves both protocols.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


PORTS_FILE: Final = "ports.json"


def write_ports_file(data_dir: Path, ports: Mapping[str, Any]) -> None:
    """Tells in the data directory where the runner answers; there while it runs, complete whenever it can be read."""
    temporary = data_dir / f".{PORTS_FILE}.new"
    temporary.write_bytes(orjson.dumps(ports, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    temporary.replace(data_dir / PORTS_FILE)


def remove_ports_file(data_dir: Path) -> None:
    """Removes the file, and a runtime folder elsewhere of a runner that was killed before it could do so itself.

    The file may be a copy, of a data directory whose runner lives: its folder stays.
    """
    path = data_dir / PORTS_FILE
    with contextlib.suppress(OSError, orjson.JSONDecodeError, KeyError, TypeError):
        stale = Path(orjson.loads(path.read_bytes())["runtime_dir"])
        forget_folder(stale)
    path.unlink(missing_ok=True)
