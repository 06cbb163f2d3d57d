"""Ports that tests tell processes to listen on, before anybody does.

Rules: none of those that the system gives to connections that go out, which whoever else runs tests makes by the
thousand: it would take one of them between the moment that it is found free and the moment that it is listened on.
"""

import random
import socket
from pathlib import Path

__all__ = ["free_port"]

_LOWEST = 10_000
_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on; another one each time."""
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # Of its own for each process, whatever tests seed theirs with.
    choice = random.SystemRandom()
    while True:
        port = choice.randrange(_LOWEST, end)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port
