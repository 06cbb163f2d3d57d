"""Stage 5, tasks: performs `call: grpc`.

Rules: an outcome is returned, never raised; cancelling the coroutine cancels the call on the wire. Nothing is shared
between executions but connections and descriptions. A call that streams takes what comes, and waits where there is no
room for more; it ends as a whole.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from string import punctuation
from typing import Any, Final
from urllib.parse import quote

import grpc
import grpc.aio

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import clock, limits
from fastrunner.base.destinations import Destinations
from fastrunner.tasks.call_grpc.arguments import Call, Target, prepare
from fastrunner.tasks.call_grpc.channels import Channels
from fastrunner.tasks.call_grpc.compiler import Compiler
from fastrunner.tasks.call_grpc.described import Described
from fastrunner.tasks.call_grpc.exchange import Exchange, Metadata
from fastrunner.tasks.call_grpc.messages import are_small, decoded, encoded, requests_of
from fastrunner.tasks.call_grpc.outcome import STATUSES, invalid_call, problem_of_status
from fastrunner.tasks.call_grpc.reflection import reflected
from fastrunner.tasks.call_grpc.sources import Gatherer
from fastrunner.tasks.call_http.failures import OUT_OF_RESOURCES, CallProblem
from fastrunner.tasks.call_http.room import Room
from fastrunner.tasks.counted import Counted
from fastrunner.tasks.surroundings import Surroundings
from fastrunner.tracing.context import current_headers

__all__ = ["CallGrpc", "build"]

_KIND: Final = "call_grpc"
_SENDABLE: Final = re.compile(r"[ -~]+")
_SENT_AS_IT_IS: Final = punctuation.replace("%", "")


def build(around: Surroundings) -> "CallGrpc":
    """See `tasks.demand`."""
    return CallGrpc(around)


class CallGrpc:
    """Performer of `call_grpc` effects."""

    def __init__(self, around: Surroundings) -> None:
        assert around.descriptions is not None, "there is no performer of described calls without descriptions"
        self._http = around.http
        self._timeout_s = around.config.http_timeout_s
        self._tls = Destinations.parse(around.config.grpc_tls)
        self._counted = Counted(_KIND, around.metrics)
        self._gatherer = Gatherer(around.descriptions)
        self.compiler = Compiler()
        """That of this worker."""
        self.channels = Channels(around)
        """Those of this worker."""
        self._reflected: dict[tuple[Target, str, Metadata], tuple[float, Described]] = {}
        """What servers said of services, and when."""
        self._room = Room()
        # One thread: of large messages one is converted at a time.
        self._converting = ThreadPoolExecutor(1, "fastrunner-grpc")

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """Calls the method and gives the task's raw output, or the DSL error that the call's status means."""
        return await self._counted.outcome_of(self._call(effect, arguments))

    async def authorize(self, effect: PerformEffect, policy: Mapping[str, Any]) -> Mapping[str, Any] | EffectFailure:
        """See `Authorizer`."""
        return await self._http.authorize(effect, policy)

    async def close(self) -> None:
        """Closes the connections; calls still in flight fail."""
        await self.compiler.close()
        await self.channels.close()
        self._converting.shutdown(wait=False, cancel_futures=True)

    async def _call(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        shown = ""
        try:
            call = prepare(arguments, self._tls)
            shown = f"{call.shown}: "
            async with asyncio.timeout(self._timeout_s) as bound:
                return await self._performed(effect, call, arguments.get("authentication"), bound)
        except _Refused as refused:
            return refused.failure
        except CallProblem as problem:
            found = problem
        except grpc.aio.AioRpcError as error:
            found = problem_of_status(error)
        except (grpc.aio.UsageError, grpc.aio.InternalError) as error:
            found = CallProblem("Request Failed", f"gRPC could not send the request ({type(error).__name__})")
        except TimeoutError:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            found = CallProblem(code.name, f"{code.name}: no end within {self._timeout_s:g} s", STATUSES[code])
        except (OSError, RuntimeError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
            found = CallProblem(OUT_OF_RESOURCES, f"no connection could be made ({reason})", 503)
        return EffectFailure(
            effect.effect_id,
            found.type,
            found.status,
            found.title,
            shown + found.sentence,
            retry_after_ms=found.retry_after_ms,
        )

    async def _performed(
        self, effect: PerformEffect, call: Call, policy: Mapping[str, Any] | None, bound: asyncio.Timeout
    ) -> EffectResult:
        authorization = None if policy is None else await self._authorization(effect, policy)
        key = quote(effect.idempotency_key, safe=_SENT_AS_IT_IS)
        metadata = (("idempotency-key", key), *current_headers(), *_header(authorization))
        described = await self._described(effect, call, authorization, bound)
        method = described.method(call.service, call.method)
        requests = requests_of(method, call.arguments)
        if are_small(requests):
            messages = encoded(method, described.pool, requests)
        else:
            messages = await self._in_thread(encoded, method, described.pool, requests)
        share = self._room.share()
        try:
            async with self.channels.channel(call.target) as channel:
                replies = await Exchange(channel, method, share).replies(messages, metadata, _left_s(bound))
            size_bytes = sum(map(len, replies))
            if len(replies) <= limits.GRPC_SMALL_COUNT and size_bytes <= limits.GRPC_SMALL_SIZE_BYTES:
                value = decoded(method, described.pool, replies)
            else:
                value = await self._in_thread(decoded, method, described.pool, replies)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._reflected = {key: kept for key, kept in self._reflected.items() if kept[1] is not described}
            raise
        finally:
            share.close()
        return EffectResult(effect.effect_id, value, authorization)

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._converting, work, *arguments)

    async def _authorization(self, effect: PerformEffect, policy: Mapping[str, Any]) -> dict[str, Any]:
        """What a policy resolves to. Raises _Refused, CallProblem."""
        found = await self._http.authorize(effect, policy)
        if isinstance(found, EffectFailure):
            raise _Refused(found)
        if found["parameter"] is None:
            raise invalid_call(
                "configuration", f"{found['scheme']} answers challenges, which gRPC has not: use another authentication"
            )
        if not _SENDABLE.fullmatch(str(found["parameter"])):
            raise invalid_call("configuration", f"{found['scheme']}: its text has characters that metadata cannot hold")
        return dict(found)

    async def _described(
        self, effect: PerformEffect, call: Call, authorization: Mapping[str, Any] | None, bound: asyncio.Timeout
    ) -> Described:
        if call.reflection is None:
            return await self.compiler.described(await self._gatherer.gather(call.proto))
        policy = call.proto.get("authentication")
        if policy is not None:
            authorization = await self._authorization(effect, policy)
        elif call.reflection != call.target:
            authorization = None
        metadata = _header(authorization)
        key = (call.reflection, call.service, metadata)
        now_s = clock.monotonic_s()
        kept = self._reflected.get(key)
        if kept is not None and now_s - kept[0] <= limits.GRPC_REFLECTED_S_MAX:
            return kept[1]
        try:
            async with self.channels.channel(call.reflection) as channel:
                described = await reflected(channel, call.service, metadata, _left_s(bound))
        except grpc.aio.AioRpcError as error:
            problem = problem_of_status(error)
            problem.sentence = f"reflection of {call.reflection.authority}: {problem.sentence}"
            raise problem from None
        self._keep_reflected(key, described)
        return described

    def _keep_reflected(self, key: tuple[Target, str, Metadata], described: Described) -> None:
        self._reflected.pop(key, None)
        self._reflected[key] = (clock.monotonic_s(), described)
        sizes = [kept.size_bytes for _, kept in self._reflected.values()]
        while len(sizes) > limits.GRPC_COMPILED_COUNT_MAX or sum(sizes) > limits.GRPC_COMPILED_KEPT_SIZE_BYTES_MAX:
            del self._reflected[next(iter(self._reflected))]
            sizes.pop(0)


class _Refused(Exception):
    """A policy that resolves to nothing, with the failure of the call."""

    def __init__(self, failure: EffectFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def _left_s(bound: asyncio.Timeout) -> float:
    """What is left of a call's time."""
    ends_s = bound.when()
    assert ends_s is not None
    return max(0.001, ends_s - asyncio.get_running_loop().time())


def _header(authorization: Mapping[str, Any] | None) -> Metadata:
    if authorization is None:
        return ()
    return (("authorization", f"{authorization['scheme']} {authorization['parameter']}"),)
