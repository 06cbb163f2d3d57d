"""Stage 1, service: what a call says of who calls, and where that is in a trace.

Rule: metadata is read when it is asked for, and no more of it than that.
"""

import math
from functools import lru_cache
from typing import Final

from fastrunner._http2 import Call
from fastrunner.base import limits
from fastrunner.routing.facts import CallFacts
from fastrunner.tracing.context import TRACEPARENT, TRACESTATE, TraceContext

__all__ = ["client_of", "facts_of", "host_of"]

_CLIENT_KEY: Final = b"fastrunner-client"
"""Metadata in which a client may name itself: several behind one address get shares of their own."""
_PARENT_KEY: Final = TRACEPARENT.encode()


def facts_of(call: Call, traced_s: float | None) -> CallFacts:
    """What handlers may know of a call; `traced_s`: when it arrived, on the monotonic clock, for those who trace; None:
    nothing is traced."""
    deadline_ms = 0 if math.isinf(call.deadline_s) else int(call.deadline_s * 1000)
    facts = CallFacts(peer=client_of(call), deadline_ms=deadline_ms, local=False, principal=call.principal)
    if traced_s is not None:
        facts.received_s = traced_s
        if call.header(_PARENT_KEY) is not None:
            facts.trace = _trace_of(call)
    return facts


def _trace_of(call: Call) -> TraceContext | None:
    parents = [str(value) for key, value in call.metadata if key == TRACEPARENT]
    return TraceContext.sent(parents, [str(value) for key, value in call.metadata if key == TRACESTATE])


def client_of(call: Call) -> str:
    """The client, for fair shares and limits."""
    if not call.client:
        call.client = _named(call) or host_of(call)
    return call.client


def _named(call: Call) -> str:
    """What a client calls itself; empty if it does not."""
    name = call.header(_CLIENT_KEY)
    return name if isinstance(name, str) and len(name) <= limits.CLIENT_NAME_SIZE_BYTES_MAX else ""


def host_of(call: Call) -> str:
    """Where a call comes from."""
    return _host_in(call.peer)


@lru_cache
def _host_in(peer: str) -> str:
    # Of `ipv4:10.0.0.7:51234` the port is another one for every connection.
    return peer.rpartition(":")[0] if peer.startswith("ipv") else peer
