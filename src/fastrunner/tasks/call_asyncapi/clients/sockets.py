"""Stage 5, tasks: the connections that clients of brokers are given: made here, to permitted addresses, before any
library has a say.

Rule: a library gets a connected socket, or the means to get one, and never a name to look up. What fails here is told
in the same words for all protocols.
"""

import asyncio
import errno
import os
import socket
import ssl
from functools import cache

from fastrunner.tasks.call_asyncapi.clients import Target
from fastrunner.tasks.call_http.failures import OUT_OF_RESOURCES, CallProblem
from fastrunner.tasks.dialing import permitted_addresses
from fastrunner.tasks.surroundings import Surroundings

__all__ = ["Unreachable", "dial", "lost", "refused_login", "tls_context", "tls_problem", "too_large"]

_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class Unreachable(CallProblem):
    """No connection, or none any more: a later one may do better."""


async def dial(target: Target, host: str = "", port: int = 0) -> socket.socket:
    """A socket that is connected to the target, or to another server that a broker names: to the first address that
    takes it, without blocking. Raises CallProblem."""
    host, port = host or target.host, port or target.port
    loop = asyncio.get_running_loop()
    problem: CallProblem | None = None
    try:
        async with asyncio.timeout(target.connect_timeout_s):
            for address in await permitted_addresses(target.around, host, port):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                try:
                    sock = socket.socket(family, socket.SOCK_STREAM)
                except OSError as error:
                    raise _connection_problem(error) from None
                try:
                    sock.setblocking(False)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await loop.sock_connect(sock, (address, port))
                except OSError as error:
                    sock.close()
                    problem = problem or _connection_problem(error)
                except BaseException:
                    sock.close()
                    raise
                else:
                    return sock
    except TimeoutError:
        raise Unreachable("No Response In Time", "no connection in time") from None
    assert problem is not None
    raise problem


async def tls_context(around: Surroundings) -> ssl.SSLContext:
    """Whom TLS trusts. Reading the system's authorities blocks, so a thread does."""
    if around.ssl_context is not None:
        return around.ssl_context
    return await asyncio.to_thread(_system_context)


@cache
def _system_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def tls_problem() -> CallProblem:
    """The problem of a server that shows no certificate which is trusted for its name."""
    return CallProblem("TLS Failed", "no trusted TLS connection could be made")


def lost() -> Unreachable:
    """The problem of a connection that the other side has ended."""
    return Unreachable("Connection Lost", "the connection to the broker ended")


def refused_login() -> CallProblem:
    """The problem of credentials that a broker does not take, or of none."""
    return CallProblem("Login Refused", "the broker refuses the credentials, or demands some", 401)


def too_large(size_bytes: int, bound_bytes: int) -> CallProblem:
    """The problem of a message beyond the bound."""
    return CallProblem("Message Too Large", f"a message of {size_bytes} bytes exceeds {bound_bytes} bytes")


def _connection_problem(error: OSError) -> CallProblem:
    if error.errno in _SCARCE and error.errno is not None:
        return Unreachable(OUT_OF_RESOURCES, f"no connection could be made ({os.strerror(error.errno)})", 503)
    reason = os.strerror(error.errno) if error.errno else "no reason given"
    return Unreachable("Connection Failed", f"no connection could be made ({reason})")
