"""Support: where in a trace something is: W3C's `traceparent` and `tracestate`, read and written.

Rules: pure. What is no valid `traceparent` is as if there were none, as the recommendation has it; a `tracestate` that
is too long or not sendable is left out. An id of a span is a hash, never chosen.
"""

import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from random import getrandbits
from typing import Final

from fastrunner.base import limits

__all__ = ["CURRENT", "NO_SPAN", "TRACEPARENT", "TRACESTATE", "TraceContext", "current_headers", "span_id_of"]

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
NO_SPAN: Final = "0" * 16
"""In the place of a parent: there is none."""

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_STATE: Final = re.compile(r"[\x20-\x7e]*")
_NO_TRACE: Final = "0" * 32


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """The span that is the parent of whatever comes next: 16 hexadecimal digits; NO_SPAN: none."""
    is_sampled: bool
    """Whether spans of this trace are recorded."""
    state: str = ""
    """What vendors have to say of it, passed on as it came."""

    @classmethod
    def read(cls, parent: str | None, state: str | None) -> "TraceContext | None":
        """What two headers say; None where that is nothing."""
        match = None if parent is None else _PARENT.fullmatch(parent.strip())
        if match is None:
            return None
        version, trace_id, span_id, flags, rest = match.groups()
        if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE or span_id == NO_SPAN:
            return None
        is_kept = state and len(state) <= limits.TRACE_STATE_SIZE_CHARS_MAX and _STATE.fullmatch(state)
        return cls(trace_id, span_id, bool(int(flags, 16) & 1), state or "" if is_kept else "")

    @classmethod
    def sent(cls, parents: Sequence[str], states: Sequence[str]) -> "TraceContext | None":
        """What all headers of the two names say: `tracestate` may be in parts, two of `traceparent` tell nothing."""
        return cls.read(parents[0], ",".join(states)) if len(parents) == 1 else None

    @classmethod
    def unsampled(cls) -> "TraceContext":
        """Tells whoever is called that nothing is recorded, so that nobody begins a trace in the middle."""
        return cls(f"{getrandbits(128) or 1:032x}", f"{getrandbits(64) or 1:016x}", False)

    @property
    def parent(self) -> str:
        """The header `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"

    def at(self, span_id: str) -> "TraceContext":
        """A place within another span of the same trace."""
        return TraceContext(self.trace_id, span_id, self.is_sampled, self.state)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What goes along with a call."""
        if self.state:
            return (TRACEPARENT, self.parent), (TRACESTATE, self.state)
        return ((TRACEPARENT, self.parent),)


CURRENT: Final[ContextVar[TraceContext | None]] = ContextVar("trace", default=None)
"""Where the task that runs is: set by what performs effects and callbacks, read by what sends."""


def current_headers() -> tuple[tuple[str, str], ...]:
    """What goes along with a call that is made now; nothing where nobody traces."""
    context = CURRENT.get()
    return () if context is None else context.headers


def span_id_of(trace_id: str, execution_id: str, what: str) -> str:
    """The id of a span of an execution: the same whenever it is asked for."""
    name = f"{trace_id} {what} {execution_id}".encode("utf-8", "surrogatepass")
    digest = blake2b(name, digest_size=8).hexdigest()
    # No hash may be the one that means none.
    return digest if digest != NO_SPAN else "1" * 16
