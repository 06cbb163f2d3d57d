"""Stage 1, service: cuts the connections of a server that stops, which grpcio offers no way to.

A server of grpcio that stops takes no further calls, but its clients learn that only after a while: what they
send meanwhile it ends as CANCELLED, which no client retries. A cut connection is UNAVAILABLE, which they do.

Rule: call it when everything that was taken up has been answered.
"""

import os
import socket
import stat
from contextlib import suppress

__all__ = ["cut_connections"]


def cut_connections(port: int) -> int:
    """Shuts every accepted TCP connection to a local port down, after what is written already; how many."""
    cut = 0
    for number in map(int, os.listdir("/dev/fd")):
        # Descriptors may be closed while they are looked at: those were nobody's connection.
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                cut += _cut(number, port)
    return cut


def _cut(number: int, port: int) -> bool:
    with socket.socket(fileno=os.dup(number)) as connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.getsockname()[1] != port:
            return False
        # Raises for a socket that listens.
        connection.getpeername()
        connection.shutdown(socket.SHUT_RDWR)
        return True
