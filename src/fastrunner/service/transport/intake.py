"""Stage 1, service: calls whose request is still on its way.

A message is kept as it comes, up to its bound. A request that comes with its headers costs nobody anything; one that
has not come a moment later may hold as much as a request may be, as long as its client likes. So there may be only so
many of those: of more, the client with most of them loses its oldest.

Rules: a call is heard until its request is there, and what comes of it later is dropped; it is late only if its request
was not there when the connections were last read; one that merely waits for this worker to read it is not.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fastrunner._http2 import Call
from fastrunner.base import clock, limits
from fastrunner.errors import AtCapacity, RunnerError

__all__ = ["Intake"]

Received = Callable[[bytes | None], None]
"""Takes a request; None if there is none."""
Refuse = Callable[[Exception], None]
"""Ends a call with a refusal."""


@dataclass(slots=True)
class _Coming:
    """A call whose request has not come."""

    client: str
    since_s: float
    refuse: Refuse


class Intake:
    """The calls of one worker whose requests are on their way."""

    def __init__(self, client_of: Callable[[Call], str], read_s: Callable[[], float]) -> None:
        """`read_s` tells when everything had last been read that had arrived by then."""
        self._client_of = client_of
        self._read_s = read_s
        self._coming: dict[Call, _Coming] = {}
        """The oldest first."""
        self._look: asyncio.TimerHandle | None = None

    @property
    def coming(self) -> Iterable[Call]:
        """Calls whose requests have not come."""
        return self._coming

    def receive(self, call: Call, received: Received, refuse: Refuse) -> None:
        """Hands the request to `received` when it is there; `refuse` is called instead if it does not come in time."""
        if call.has_message:
            payload = call.take()
            call.hear_no_more()
            received(payload)
            return

        def got(payload: bytes | None) -> None:
            call.hear_no_more()
            if self._coming.pop(call, None) is not None:
                received(payload)

        self._coming[call] = _Coming(self._client_of(call), clock.monotonic_s(), refuse)
        call.receive(got)
        if len(self._coming) > limits.GRPC_REQUESTS_COMING_MAX and self._look is None:
            self._look_soon(limits.GRPC_REQUEST_LATE_S)

    def refuse(self, call: Call, error: RunnerError) -> None:
        """Waits for the request of a call no more, if it has not come."""
        coming = self._coming.pop(call, None)
        if coming is not None:
            coming.refuse(error)

    def _look_soon(self, delay_s: float) -> None:
        self._look = asyncio.get_running_loop().call_later(delay_s, self._refuse_late)

    def _refuse_late(self) -> None:
        self._look = None
        late_s = self._read_s() - limits.GRPC_REQUEST_LATE_S
        late: dict[str, list[Call]] = {}
        """By client, the oldest last."""
        for call, coming in reversed(self._coming.items()):
            if coming.since_s < late_s:
                late.setdefault(coming.client, []).append(call)
        surplus = sum(map(len, late.values())) - limits.GRPC_REQUESTS_COMING_MAX
        most = [(-len(calls), client) for client, calls in late.items()]
        heapq.heapify(most)
        for _ in range(min(surplus, limits.GRPC_REQUESTS_REFUSED_SLICE)):
            count, client = most[0]
            self._coming.pop(late[client].pop()).refuse(
                AtCapacity("too many requests are on their way: send fewer at once")
            )
            heapq.heapreplace(most, (count + 1, client))
        if len(self._coming) > limits.GRPC_REQUESTS_COMING_MAX:
            self._look_soon(limits.GRPC_REQUEST_LATE_S if surplus <= limits.GRPC_REQUESTS_REFUSED_SLICE else 0.0)
