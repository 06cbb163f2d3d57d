"""Support: what the supervisor and a child owe each other: roles, exit codes, what a child gets, the messages between.

Rules: no grpc, no threads and no event loop here, because the supervisor uses it before every fork.
"""

import ctypes
import math
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Self

import orjson

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.base.deaths import Death
from fastrunner.config import Config
from fastrunner.counts.cells import Segment
from fastrunner.processes.folder import RuntimeFolder
from fastrunner.processes.shared import Shared


class ExitCode(IntEnum):
    """How a runner, or one of its processes, ends."""

    OK = 0
    """Drained as asked."""
    CRASH = 1
    """A defect: an exception nobody expected."""
    CONFIGURATION = 2
    """The configuration cannot be used, or not within the limits that the system sets."""
    BOOT = 3
    """A process could not start. It ends the runner only if that was never ready."""
    PORT = 4
    """A port cannot be bound."""
    LOCKED = 5
    """The data directory belongs to another runner, or cannot be used."""
    FORCED = 130
    """Ended by a second Ctrl-C, without draining."""


class StartError(Exception):
    """The runner cannot start; the message is one line with the remedy."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        """What the process exits with."""


class Role(StrEnum):
    """What a child of the supervisor is."""

    WORKER = "worker"
    WEB = "web"
    REPLICA = "replica"


class Link:
    """One end of the socket pair between the supervisor and a child: small JSON messages, none blocks."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self.sent: set[str] = set()
        """Kinds of messages sent so far."""
        self.received_s: dict[str, float] = {}
        """When a message of each kind was last received, on the monotonic clock."""

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """The supervisor's end and the child's."""
        # SOCK_SEQPACKET keeps message boundaries and tells of the other side's end.
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(left), cls(right)

    def fileno(self) -> int:
        """The descriptor, for a selector or an event loop."""
        return self._end.fileno()

    def send(self, kind: str, **fields: Any) -> bool:
        """Sends a message; false if the other side is gone or does not read."""
        try:
            self._end.send(orjson.dumps({"kind": kind, **fields}))
        except OSError:
            return False
        self.sent.add(kind)
        return True

    def receive(self) -> dict[str, Any] | None:
        """The next message; an empty one if there is none yet, None if the other side is gone."""
        try:
            message = self._end.recv(1 << 18)
        except BlockingIOError:
            return {}
        except OSError:
            return None
        if not message:
            return None
        decoded: dict[str, Any] = orjson.loads(message)
        self.received_s[decoded["kind"]] = monotonic_s()
        return decoded

    def wait_to_go(self) -> bool:
        """Says that this child is prepared, and waits for its predecessor's end; false if nobody tells it to go."""
        self.send("prepared")
        while (message := self.receive()) is not None:
            if message.get("kind") == "go":
                return True
            select.select([self], [], [])
        return False

    def close(self) -> None:
        """Closes this end."""
        self._end.close()


@dataclass(frozen=True, slots=True)
class ChildContext:
    """What a child gets from the supervisor."""

    config: Config
    """The settings, with the chosen ports."""
    role: Role
    """What the child is."""
    index: int
    """Its number among those of its role."""
    shared: Shared
    """Memory that all workers share, and what it is about."""
    folder: RuntimeFolder
    """Where the workers' sockets are."""
    link: Link
    """To the supervisor: `ready`, `prepared`, `trouble`, `failed` and `pong` go up, `ping`, `state`, `go`, `hand_over`
    and `replacing` come down."""
    http: socket.socket | None
    """The listening HTTP socket; only the web process has it."""
    segment: Segment
    """What this child counts in; its predecessors counted there, too."""
    segments: tuple[Segment, ...]
    """What all processes of the runner count in."""
    follows_crash: bool = False
    """Whether the predecessor crashed, or could not start."""
    death: Death | None = None
    """How the predecessor died, if nobody asked it to end."""
    waits: bool = False
    """Whether a predecessor still serves: prove that this one can, and start when told to `go`."""

    def is_short_handed(self) -> bool:
        """Whether a worker is being replaced, or has just been: what it took, others and its successor have to take."""
        told_s = self.link.received_s.get("replacing", -math.inf)
        return monotonic_s() - told_s < limits.ROUTER_OWNER_WAIT_S_MAX


def die_with_parent(parent_pid: int) -> None:
    """Has the kernel kill this process when its parent dies, so that no orphan keeps ports, shards or locks."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        # It died before the request above.
        os._exit(ExitCode.CRASH)
