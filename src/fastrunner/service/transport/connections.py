"""Stage 1, service: cuts the connections of a server that stops, which grpcio offers no way to.

A server of grpcio that stops takes no further calls, but its clients learn that only after a while: what they
send meanwhile it ends as CANCELLED, which no client retries. A cut connection is UNAVAILABLE, which they do.

Rules: call it when everything that was taken up has been answered. It needs no descriptor: there may be none left.
"""

import os
import resource
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["borrowed", "cut_connections", "is_of", "sockets", "stop_listening"]


def stop_listening(port: int) -> None:
    """Has the kernel give further connections to a local port to whoever else listens on it, or refuse them.

    Call it before connections are cut: their clients connect again at once, and must not come here. grpcio notices that
    its listening socket has ended.
    """
    for number in sockets():
        with suppress(OSError), borrowed(number) as listener:
            if is_of(listener, port) and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                listener.shutdown(socket.SHUT_RDWR)


def sockets() -> Iterator[int]:
    """Descriptors of this process that are sockets."""
    for number in _descriptors():
        # Descriptors may be closed while they are looked at: those were nobody's connection.
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                yield number


def _descriptors() -> Iterable[int]:
    try:
        return map(int, os.listdir("/dev/fd"))
    except OSError:
        # The list itself takes one.
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


@contextmanager
def borrowed(number: int) -> Iterator[socket.socket]:
    """A socket of grpcio's, which stays open."""
    borrowed = socket.socket(fileno=number)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def is_of(end: socket.socket, port: int) -> bool:
    """Whether a socket is bound to a local port: listens on it, or was accepted there."""
    return end.family in (socket.AF_INET, socket.AF_INET6) and end.getsockname()[1] == port


def cut_connections(port: int) -> int:
    """Shuts every accepted TCP connection to a local port down, after what is written already; how many."""
    cut = 0
    for number in sockets():
        with suppress(OSError):
            cut += _cut(number, port)
    return cut


def _cut(number: int, port: int) -> bool:
    with borrowed(number) as connection:
        if not is_of(connection, port):
            return False
        # Raises for a socket that listens.
        connection.getpeername()
        connection.shutdown(socket.SHUT_RDWR)
        return True
