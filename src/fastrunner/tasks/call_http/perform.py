"""Stage 5, tasks: performs `call: http` over the worker's one client.

Rules: an outcome is returned, never raised; cancelling the coroutine aborts the request on the wire. Nothing is shared
between executions but connections, and tokens among calls whose policies are the same to the letter: no cookies.
Redirects are followed here and bodies unpacked in `codings`, because the client library would rewrite the ones and
accept the others cut.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import aiohttp

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.tasks.call_http.arguments import RequestProblem, prepare
from fastrunner.tasks.call_http.client import Client
from fastrunner.tasks.call_http.failures import OUT_OF_RESOURCES, CallProblem, connection_problem
from fastrunner.tasks.call_http.outcome import Exchange, Unauthorized, failure_of, refusal_of, result_of
from fastrunner.tasks.call_http.redirects import redirected
from fastrunner.tasks.call_http.room import Room
from fastrunner.tasks.counted import Counted
from fastrunner.tasks.surroundings import Surroundings

if TYPE_CHECKING:
    from fastrunner.tasks.credentials.keyring import Keyring

__all__ = ["CallHttp", "build"]

_log = logging.getLogger(__name__)

_KIND = "call_http"


def build(around: Surroundings) -> "CallHttp":
    """See `tasks.demand`."""
    client = Client(
        around.config, around.metrics, around.egress, resolver=around.resolver, ssl_context=around.ssl_context
    )
    return CallHttp(client, timeout_s=around.config.http_timeout_s, metrics=around.metrics)


class CallHttp:
    """Performer of `call_http` effects."""

    def __init__(
        self,
        client: Client,
        *,
        timeout_s: float,
        metrics: Metrics,
    ) -> None:
        """`client` is closed with the performer."""
        self._timeout_s = timeout_s
        self._client = client
        self.room = Room()
        """Memory for the bodies that are being read."""
        self._turn = asyncio.Lock()
        self._keyring: Keyring | None = None
        self._is_out_of_resources = False
        self._counted = Counted(_KIND, metrics)

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """Sends the request and gives the task's raw output, or the DSL error the response or its absence means."""
        return await self._counted.outcome_of(self._call(effect, arguments))

    async def close(self) -> None:
        """Closes the pooled connections; calls still in flight fail."""
        if self._keyring is not None:
            await self._keyring.close()
        await self._client.close()

    async def authorize(self, effect: PerformEffect, policy: Mapping[str, Any]) -> Mapping[str, Any] | EffectFailure:
        """See `EffectPerformer`."""
        try:
            proof = await self._keys().proof(policy)
        except CallProblem as problem:
            return EffectFailure(
                effect.effect_id,
                problem.type,
                problem.status,
                problem.title,
                problem.sentence,
                retry_after_ms=problem.retry_after_ms,
            )
        return {"scheme": proof.authorization.scheme, "parameter": proof.authorization.parameter}

    def _keys(self) -> "Keyring":
        """The worker's credentials, loaded by the first call that has a policy."""
        if self._keyring is None:
            from fastrunner.tasks.credentials.keyring import Keyring

            self._keyring = Keyring(self._client)
        return self._keyring

    async def _call(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        try:
            request = prepare(arguments, effect.idempotency_key)
        except RequestProblem as problem:
            return refusal_of(effect, problem)
        exchange = Exchange(effect, arguments, request)
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await self._proven(exchange, arguments.get("authentication"))
        except CallProblem as problem:
            return failure_of(exchange, problem)
        # One of the library's own is a TimeoutError as well.
        except (aiohttp.ClientError, ValueError) as error:
            return self._failure(exchange, error)
        except TimeoutError:
            late = CallProblem("No Response In Time", f"no complete response within {self._timeout_s:g} s")
            return failure_of(exchange, late)
        except OSError as error:
            return self._failure(exchange, error)
        self._is_out_of_resources = False
        return result

    async def _proven(self, exchange: Exchange, policy: Mapping[str, Any] | None) -> EffectResult:
        """Sends the request as its policy has it; once more if the service refuses a token, which may be revoked."""
        if policy is None:
            return await self._exchange(exchange)
        proof = await self._keys().proof(policy)
        exchange.begin(proof)
        try:
            return await self._exchange(exchange)
        except Unauthorized:
            if not self._keys().refused(proof):
                raise
        exchange.begin(await self._keys().proof(policy))
        return await self._exchange(exchange)

    async def _exchange(self, exchange: Exchange) -> EffectResult:
        """Sends the request, and those that redirects lead to."""
        share = self.room.share()
        try:
            for _ in range(limits.HTTP_REDIRECTS_MAX + 1):
                request = exchange.current
                async with self._client.request(
                    request.method,
                    request.url,
                    headers=request.headers,
                    data=request.data,
                    middlewares=exchange.middlewares,
                ) as response:
                    exchange.sent_headers = exchange.sent_headers or response.request_info.headers
                    following = (
                        redirected(request, response.status, response.headers) if exchange.follows_redirects else None
                    )
                    if following is None:
                        return await result_of(exchange, response, share, self._turn)
                exchange.current = following
        finally:
            share.close()
        raise CallProblem("Too Many Redirects", f"more than {limits.HTTP_REDIRECTS_MAX} redirects")

    def _failure(self, exchange: Exchange, error: Exception) -> EffectFailure:
        """The failure of a call without a response. Of several in a row for want of resources the first is logged."""
        problem = connection_problem(error)
        if problem.title == OUT_OF_RESOURCES:
            if not self._is_out_of_resources:
                _log.warning("calls fail for want of resources, until one succeeds: %s", problem.sentence)
            self._is_out_of_resources = True
        return failure_of(exchange, problem)
