"""Stage 5, tasks: performs `call: a2a` effects: the agent's card if there is one, then the method's request.

Rules: outcomes are returned, never raised; cancelling the coroutine aborts the request on the wire. Cards come from
where all descriptions do. The SDK comes with the first effect.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import httpx
from a2a.client.errors import A2AClientError
from a2a.client.transports.jsonrpc import JsonRpcTransport
from a2a.utils.constants import PROTOCOL_VERSION_1_0, VERSION_HEADER
from a2a.utils.errors import A2AError

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import limits
from fastrunner.tasks.bridge import Bridge
from fastrunner.tasks.call_a2a.arguments import A2aCall, call_of
from fastrunner.tasks.call_a2a.card import Agent, agent_of
from fastrunner.tasks.call_a2a.converted import converted_result_of
from fastrunner.tasks.call_a2a.outcome import error_of
from fastrunner.tasks.call_a2a.wire import result_of
from fastrunner.tasks.call_http.arguments import RequestProblem, prepare
from fastrunner.tasks.call_http.client import Client
from fastrunner.tasks.call_http.failures import CallProblem
from fastrunner.tasks.call_http.room import Room
from fastrunner.tasks.call_http.slices import in_slices
from fastrunner.tasks.counted import Counted
from fastrunner.tasks.credentials.keyring import Keyring
from fastrunner.tasks.descriptions import Description, NoDescription
from fastrunner.tasks.rpc import RpcProblem, failure_of, host_of, of_other_side, refused, value_of
from fastrunner.tasks.surroundings import Surroundings

__all__ = ["CallA2a", "build"]

_log = logging.getLogger(__name__)

_KIND = "call_a2a"


def build(around: Surroundings) -> "CallA2a":
    """See `tasks.demand`."""
    return CallA2a(around)


class CallA2a:
    """Performer of `call_a2a` effects."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._client = Client(
            around.config, around.metrics, around.egress, resolver=around.resolver, ssl_context=around.ssl_context
        )
        self._keyring = Keyring(self._client)
        self._room = Room()
        self._counted = Counted(_KIND, around.metrics)

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """Gives the method's JSON-RPC result, of a stream all of them, or the DSL error that its lack means."""
        return await self._counted.outcome_of(self._performed(effect, arguments))

    async def authorize(self, effect: PerformEffect, policy: Mapping[str, Any]) -> Mapping[str, Any] | EffectFailure:
        """See `Authorizer`."""
        return await self._around.http.authorize(effect, policy)

    async def close(self) -> None:
        """Ends connections; calls in flight fail."""
        await self._keyring.close()
        await self._client.close()

    async def _performed(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        where = "call: a2a"
        share = self._room.share()
        timeout_s = self._around.config.http_timeout_s
        try:
            call = call_of(arguments, effect.idempotency_key)
            try:
                async with asyncio.timeout(timeout_s):
                    agent = agent_of(call, await self._described(call))
                    where = f"call: a2a of {host_of(agent.url)}"
                    bridge = Bridge(
                        self._client,
                        self._keyring,
                        agent.policy,
                        share,
                        size_bytes_max=limits.A2A_RESPONSE_SIZE_BYTES_MAX,
                    )
                    result = await self._asked(agent, call, bridge, effect.idempotency_key)
            except TimeoutError:
                late = RpcProblem("No Response In Time", f"no complete response within {timeout_s:g} s", 408)
                late.type = "timeout"
                raise late from None
            value = await in_slices(value_of(result))
        except CallProblem as problem:
            return failure_of(effect, where, problem)
        finally:
            share.close()
        return EffectResult(effect.effect_id, value, bridge.authorization)

    async def _described(self, call: A2aCall) -> Description | None:
        """The text of the agent's card, if there is one. Raises CallProblem."""
        if call.card is None:
            return None
        assert self._around.descriptions is not None
        try:
            return await self._around.descriptions.get(call.card)
        except NoDescription as why:
            raise _undescribed(why) from None

    async def _asked(self, agent: Agent, call: A2aCall, bridge: Bridge, key: str) -> Any:
        """The result. Raises CallProblem."""
        arguments = {"method": "POST", "uri": agent.url, "headers": dict(agent.headers)}
        if agent.policy is not None:
            arguments["authentication"] = agent.policy
        try:
            request = prepare(arguments, key)
        except RequestProblem as problem:
            raise refused(problem.type, problem.detail) from None
        url = str(request.url)
        try:
            if not agent.is_modern or agent.card is None:
                async with bridge.http_client(httpx, request.headers) as client:
                    return await result_of(client, bridge, url, call, key)
            headers = {**request.headers, VERSION_HEADER: PROTOCOL_VERSION_1_0}
            async with bridge.http_client(httpx, headers) as client:
                return await converted_result_of(JsonRpcTransport(client, agent.card, url), call)
        except CallProblem as problem:
            raise of_other_side(problem) from None
        except Exception as error:
            raise _problem_of(error, bridge) from None


def _undescribed(why: NoDescription) -> CallProblem:
    problem = CallProblem("No Agent Card", str(why), why.status or 500)
    problem.type = why.type
    return problem


def _problem_of(error: Exception, bridge: Bridge) -> CallProblem:
    """What a call failed of: the wire knows better than the SDK."""
    if bridge.problem is not None:
        return of_other_side(bridge.problem)
    if bridge.status:
        problem = RpcProblem("Request Refused", f"the response has status {bridge.status}", bridge.status)
        problem.retry_after_ms = bridge.retry_after_ms
        return problem
    if isinstance(error, (A2AClientError, ValueError)):
        return RpcProblem("Malformed Response", "the answer is not what the protocol has")
    if isinstance(error, A2AError):
        return error_of(error)
    _log.warning("a call of an agent failed in a way that has no words: %s", type(error).__name__)
    return RpcProblem("Agent Error", f"no result could be had ({type(error).__name__})")
