"""Support: who else listens where this runner does.

Workers share their port with SO_REUSEPORT, and the kernel lets any process of the same user join: it then gets a share
of the connections, and nobody is told. It cannot be prevented, so it is found and named.

Rules: no grpc, no threads and no event loop here, because the supervisor uses it. Only Linux says who listens;
elsewhere nobody is found. Asked often, it costs a few lines of /proc: established connections are not read, and
descriptors of processes only when a socket appears that was not there before.
"""

import contextlib
import ipaddress
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LISTENING: Final = "0A"
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket."""

    address: Address
    """Where it listens; may be a wildcard."""
    inode: int
    """What identifies it."""
    user_id: int
    """Whose it is."""


class PortWatch:
    """Watches one host and port for listeners that are not the runner's."""

    def __init__(self, host: str, port: int) -> None:
        """`host` is an IP address."""
        self._address = ipaddress.ip_address(host.partition("%")[0])
        self._port = port
        self._ours: set[int] = set()
        self._named: dict[int, str] = {}

    def strangers(self, pids: Iterable[int]) -> list[str]:
        """A sentence for each listener that belongs to none of these processes."""
        found = {each.inode: each for each in listeners(self._port) if _overlaps(self._address, each.address)}
        self._ours &= set(found)
        self._named = {inode: text for inode, text in self._named.items() if inode in found}
        if set(found) - self._ours - set(self._named):
            self._ours |= {inode for pid in pids for inode in _sockets(pid)} & set(found)
            # One that belonged to a child that has just died is gone by now.
            still = {each.inode for each in listeners(self._port)}
            for inode in (set(found) & still) - self._ours - set(self._named):
                self._named[inode] = self._sentence(found[inode])
        return [text for _, text in sorted(self._named.items())]

    def _sentence(self, listener: Listener) -> str:
        who = _owner(listener.inode) or f"a process of user id {listener.user_id} that cannot be seen from here"
        return f"{who} listens on port {self._port}, too, and takes connections of this runner: stop it"


def listeners(port: int) -> Iterator[Listener]:
    """Every socket that listens on a TCP port, in this network namespace."""
    for table in _TABLES:
        with contextlib.suppress(OSError), table.open(encoding="ascii") as lines:
            next(lines, None)
            for line in lines:
                fields = line.split()
                # Those that listen come first.
                if fields[3] != _LISTENING:
                    break
                address, _, number = fields[1].partition(":")
                if int(number, 16) == port:
                    yield Listener(_address(address), int(fields[9]), int(fields[7]))


def _address(text: str) -> Address:
    """Of the kernel's words in host byte order."""
    words = [int(text[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(text), 8)]
    packed = b"".join(words)
    return ipaddress.IPv4Address(packed) if len(packed) == 4 else ipaddress.IPv6Address(packed)


def _overlaps(ours: Address, other: Address) -> bool:
    """Whether a listener there can get connections to us. `::` may serve IPv4 as well."""
    if isinstance(other, ipaddress.IPv6Address) and other.ipv4_mapped is not None:
        other = other.ipv4_mapped
    if ours.version == other.version:
        return ours == other or ours.is_unspecified or other.is_unspecified
    wildcard6 = ours if ours.version == 6 else other
    return wildcard6.is_unspecified


def _sockets(pid: int) -> Iterator[int]:
    """Inodes of a process's sockets; those that may not be seen are left out."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                target = os.readlink(f"{folder}/{name}")
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def _owner(inode: int) -> str:
    """The process that has a socket, in words; empty if it cannot be seen."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit() and inode in _sockets(int(name)):
                return f"process {name} ({_command(int(name))})"
    return ""


def _command(pid: int) -> str:
    """The name of the program; its arguments may hold secrets."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return "gone"
