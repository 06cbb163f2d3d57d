"""Stage 1, service: whether whoever has an open call may still have it: credentials are taken back while streams last.

    the gate knows others than before -> every stream, and every call whose request has not come, is judged again
    every few seconds                 -> the same of those with tokens that end

Rules: what ends so is told as a call that begins with such credentials: UNAUTHENTICATED, or PERMISSION_DENIED. Its
caller did not go away, so what was executed for it goes on. Credentials that cannot be judged now leave it as it is.
Judging goes in slices: there may be tens of thousands.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from fastrunner._http2 import Call
from fastrunner.access.gate import Gate
from fastrunner.access.principal import Principal
from fastrunner.access.roles import Wanted, check_role
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.errors import PermissionDenied, RunnerError, Unauthenticated
from fastrunner.routing.facts import CallFacts

__all__ = ["Standing", "authorization_of"]


def authorization_of(call: Call) -> str | bytes | None:
    """The header that proves who calls; None without one."""
    return call.header(b"authorization")


class Standing:
    """The open calls of one worker whose callers have proved who they are."""

    def __init__(
        self, gate: Gate, coming: Callable[[], Iterable[Call]], refuse: Callable[[Call, RunnerError], None]
    ) -> None:
        """`coming` are calls whose requests are on their way; `refuse` ends one of them."""
        self._gate = gate
        self._coming = coming
        self._refuse = refuse
        self._streams: dict[asyncio.Task[None], tuple[Call, CallFacts]] = {}
        self._ended: dict[asyncio.Task[None], RunnerError] = {}
        self._seen = gate.changes
        self._looked_s = monotonic_s()
        self._looking: asyncio.Task[None] | None = None

    def begin(self, call: Call, wanted: Wanted, method: str) -> None:
        """Keeps what a call has been admitted for."""
        call.admitted = (wanted, method, self._gate.changes)

    @contextmanager
    def kept(self, call: Call, facts: CallFacts) -> Iterator[None]:
        """Judges a stream for as long as it is open. Raises in the place of a cancellation why it has been ended."""
        task = asyncio.current_task()
        if call.admitted is None or task is None:
            yield
            return
        self._streams[task] = (call, facts)
        if call.admitted[2] != self._gate.changes:
            # Taken back between its headers and here.
            self._seen = -1
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            raise self._ended[task] from None
        finally:
            del self._streams[task]
            self._ended.pop(task, None)

    def look(self) -> None:
        """Judges what has to be; call again and again."""
        if self._looking is not None and not self._looking.done():
            return
        is_due = monotonic_s() - self._looked_s >= limits.STREAM_CREDENTIALS_LOOK_INTERVAL_S
        if self._gate.changes != self._seen or (is_due and self._gate.knows_tokens_that_end):
            self._seen, is_all = self._gate.changes, self._gate.changes != self._seen
            self._looked_s = monotonic_s()
            self._looking = asyncio.get_running_loop().create_task(self._judge(is_all=is_all))

    def close(self) -> None:
        """Judges no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _judge(self, *, is_all: bool) -> None:
        count = 0
        for task, (call, facts) in list(self._streams.items()):
            refusal = await self._refusal(call, is_all=is_all)
            if refusal is not None and task in self._streams:
                facts.is_turned_away = True
                self._ended[task] = refusal
                task.cancel()
            count += 1
            if count % limits.STREAM_CREDENTIALS_SLICE == 0:
                await asyncio.sleep(0)
        for call in list(self._coming()):
            refusal = await self._refusal(call, is_all=is_all)
            if refusal is not None:
                self._refuse(call, refusal)
            count += 1
            if count % limits.STREAM_CREDENTIALS_SLICE == 0:
                await asyncio.sleep(0)

    async def _refusal(self, call: Call, *, is_all: bool) -> RunnerError | None:
        """Why a call may not go on; None if it may, or nobody can say now."""
        before = call.principal
        if call.admitted is None or before is None or not (is_all or self._gate.ends_by_itself(before)):
            return None
        try:
            admitted = self._gate.admit(authorization_of(call), lambda: call.certificate_names)
            now = admitted if isinstance(admitted, Principal) else await admitted
            check_role(now, call.admitted[0], call.admitted[1])
            _check_same(before, now)
        except (Unauthenticated, PermissionDenied) as refusal:
            return refusal
        except RunnerError:
            return None
        return None


def _check_same(before: Principal, now: Principal) -> None:
    """Raises Unauthenticated for the credentials of somebody else by now, PermissionDenied for fewer namespaces."""
    if before.name != now.name:
        raise Unauthenticated("the credentials are another caller's by now: call again")
    if now.namespaces is not None and (before.namespaces is None or not before.namespaces <= now.namespaces):
        raise PermissionDenied(f"{now.name} has access to fewer namespaces than when the call began: call again")
