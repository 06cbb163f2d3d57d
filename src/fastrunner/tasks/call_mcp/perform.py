"""Stage 5, tasks: performs `call: mcp` effects: a session for each, over HTTP or with a server that is started for it.

Rules: outcomes are returned, never raised; cancelling the coroutine tells the server that its answer is not wanted,
and aborts the request, or ends the process and all it has started. A server over stdio is a program like those of
`run`, and gets what they get: a place, isolation, an environment of its own. The SDK comes with the first effect.
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Mapping
from typing import Any

import httpx2
import orjson
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import limits
from fastrunner.tasks.bridge import Bridge
from fastrunner.tasks.call_http.arguments import RequestProblem, prepare
from fastrunner.tasks.call_http.client import Client
from fastrunner.tasks.call_http.failures import CallProblem
from fastrunner.tasks.call_http.room import Room
from fastrunner.tasks.call_http.slices import in_slices
from fastrunner.tasks.call_mcp.arguments import McpCall, call_of
from fastrunner.tasks.call_mcp.outcome import error_of, problem_in
from fastrunner.tasks.call_mcp.session import REQUEST_ID, result_over
from fastrunner.tasks.call_mcp.stdio import Heard, Told
from fastrunner.tasks.counted import Counted
from fastrunner.tasks.credentials.keyring import Keyring
from fastrunner.tasks.rpc import RpcProblem, failure_of, host_of, of_other_side, refused, value_of
from fastrunner.tasks.run.arguments import PATH, RunProblem, argv_of, encoded, environment_of, text_of
from fastrunner.tasks.run.outcome import how_it_ended, overflow_of, problem_of_launch
from fastrunner.tasks.run.process import Command, LaunchProblem, Process
from fastrunner.tasks.surroundings import Surroundings

__all__ = ["CallMcp", "build"]

_log = logging.getLogger(__name__)

_KIND = "call_mcp"
_KEY = "Idempotency-Key"
_SESSION = "mcp-session-id"
_OF_MESSAGES = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
_UNWANTED = orjson.dumps(
    {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": REQUEST_ID, "reason": "cancelled"}}
)


def build(around: Surroundings) -> "CallMcp":
    """See `tasks.demand`."""
    return CallMcp(around)


class CallMcp:
    """Performer of `call_mcp` effects."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._client = Client(
            around.config, around.metrics, around.egress, resolver=around.resolver, ssl_context=around.ssl_context
        )
        self._keyring = Keyring(self._client)
        self._room = Room()
        self._counted = Counted(_KIND, around.metrics)
        self._ending: set[asyncio.Task[None]] = set()
        """Sessions that are being ended."""

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """Gives the method's JSON-RPC result, or the DSL error that its lack means."""
        return await self._counted.outcome_of(self._performed(effect, arguments))

    async def authorize(self, effect: PerformEffect, policy: Mapping[str, Any]) -> Mapping[str, Any] | EffectFailure:
        """See `Authorizer`."""
        return await self._around.http.authorize(effect, policy)

    async def close(self) -> None:
        """Ends connections, and waits until all servers that were started have ended."""
        await asyncio.gather(*self._ending)
        await self._keyring.close()
        await self._client.close()
        await self._around.runs.close()

    async def _performed(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        where = "call: mcp"
        share = self._room.share()
        bridge = Bridge(
            self._client,
            self._keyring,
            arguments.get("authentication"),
            share,
            size_bytes_max=limits.MCP_RESPONSE_SIZE_BYTES_MAX,
        )
        try:
            call = call_of(arguments)
            timeout_s = call.timeout_s if call.timeout_s is not None else self._around.config.http_timeout_s
            try:
                async with asyncio.timeout(timeout_s):
                    if call.stdio is not None:
                        result = await self._over_stdio(call, call.stdio, effect.idempotency_key)
                    else:
                        where = f"call: mcp of {host_of(arguments.get('endpoint'))}"
                        result = await self._over_http(call, arguments, bridge, effect.idempotency_key)
            except TimeoutError:
                raise RunProblem("timeout", 408, "No Response In Time", f"no result within {timeout_s:g} s") from None
            value = await in_slices(value_of(result))
        except (CallProblem, RunProblem) as problem:
            return failure_of(effect, where, problem)
        finally:
            share.close()
        return EffectResult(effect.effect_id, value, bridge.authorization)

    # --- over HTTP ---

    async def _over_http(self, call: McpCall, arguments: Mapping[str, Any], bridge: Bridge, key: str) -> Any:
        try:
            request = prepare(
                {
                    "method": "POST",
                    "uri": arguments.get("endpoint"),
                    "headers": (call.http or {}).get("headers"),
                    "authentication": arguments.get("authentication"),
                },
                key,
            )
        except RequestProblem as problem:
            raise refused(problem.type, problem.detail) from None
        # Of a session's requests it is the method's own that may be performed again.
        of_method = {_KEY: request.headers.pop(_KEY)}
        url = str(request.url)
        client = bridge.http_client(httpx2, request.headers, holds_back=_asks_for_more)
        of_session: dict[str, str] = {}
        client.event_hooks = {"response": [_session_into(of_session)]}
        is_wanted = True
        try:
            async with (
                client,
                streamable_http_client(
                    url,
                    http_client=client,
                    terminate_on_close=False,
                    max_sse_event_size=limits.MCP_RESPONSE_SIZE_BYTES_MAX,
                ) as streams,
            ):
                return await result_over(streams, call, of_session, of_method, tells=False)
        except asyncio.CancelledError:
            is_wanted = False
            raise
        except Exception as error:
            raise self._problem_of(error, bridge) from None
        finally:
            if _SESSION in of_session:
                headers = {**request.headers, **of_session}
                ending = asyncio.create_task(_ended(bridge, url, headers, is_wanted=is_wanted))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)

    def _problem_of(self, error: Exception, bridge: Bridge) -> CallProblem:
        """What a call over HTTP failed of: the wire knows better than the SDK."""
        found = problem_in(error)
        if isinstance(found, CallProblem):
            return of_other_side(found)
        if bridge.problem is not None:
            return of_other_side(bridge.problem)
        if isinstance(found, MCPError):
            problem = error_of(found, bridge.status)
            problem.retry_after_ms = bridge.retry_after_ms
            return problem
        return _unexpected(found)

    # --- over stdio ---

    async def _over_stdio(self, call: McpCall, stdio: Mapping[str, Any], key: str) -> Any:
        command = text_of(stdio.get("command"), "command")
        refusal = self._around.config.refusal("mcp", command)
        if refusal:
            raise RunProblem.of_argument("configuration", refusal)
        argv = [_program(command), *argv_of(stdio.get("arguments"))]
        environment = environment_of(stdio.get("environment"), key)
        environment.setdefault(b"PATH", PATH.encode())
        isolation = await self._around.runs.isolation()
        heard = Heard()
        async with self._around.runs.place() as place:
            process = place.start(
                Command(
                    argv=argv,
                    environment=environment,
                    folder=place.folder,
                    listener=heard,
                    namespaces=isolation.namespaces,
                    cgroup=isolation.cgroup(),
                    limits=isolation.limits,
                )
            )
            try:
                return await result_over((heard.messages, Told(process)), call, {}, {}, tells=True)
            except Exception as error:
                if heard.problem is not None:
                    raise heard.problem from None
                found = problem_in(error)
                if isinstance(found, (CallProblem, RunProblem)):
                    raise found from None
                if not isinstance(found, MCPError):
                    raise _unexpected(found) from None
                # A server that is gone has a reason that tells more.
                raise (
                    await _end_of(process) if found.error.code == CONNECTION_CLOSED else error_of(found, 0)
                ) from None


async def _end_of(process: Process) -> CallProblem | RunProblem:
    """Why a server says no more."""
    try:
        async with asyncio.timeout(limits.RUN_GRACE_S):
            ended = await process.ended()
    except LaunchProblem as problem:
        return problem_of_launch(problem)
    except TimeoutError:
        return RpcProblem("Server Gone", "the server has closed its output without an answer")
    if ended.overflowed:
        return overflow_of(ended)
    return RpcProblem("Server Gone", f"the server ended without an answer: {how_it_ended(ended)}")


def _program(command: str) -> bytes:
    """The path of a command: one without a slash is looked for where the runner says, whatever the document's PATH is,
    because an entry of FASTRUNNER_RUN_ALLOWED means the one there. Raises RunProblem."""
    path = command if "/" in command else shutil.which(command, path=PATH)
    if path is None:
        raise RunProblem.of_argument("configuration", f"transport.stdio.command is in none of the folders {PATH}")
    return encoded(path, "command")


def _asks_for_more(request: Any) -> bool:
    """Whether a request is for what a server says of its own accord, which nobody reads."""
    return request.method == "GET" and "last-event-id" not in request.headers


def _session_into(headers: dict[str, str]) -> Any:
    """A hook that notes the session that a server has begun, among the headers of its further requests."""

    async def noted(response: Any) -> None:
        session = response.headers.get(_SESSION)
        if session:
            headers.setdefault(_SESSION, session)

    return noted


async def _ended(bridge: Bridge, url: str, headers: Mapping[str, str], *, is_wanted: bool) -> None:
    """Tells a server that its answer is not wanted any more, and ends the session. One that does not hear of it ends it
    by itself, some time."""
    with contextlib.suppress(CallProblem, TimeoutError):
        async with asyncio.timeout(limits.MCP_CLOSE_S_MAX):
            if not is_wanted:
                answer = await bridge.send("POST", url, {**headers, **_OF_MESSAGES}.items(), _UNWANTED)
                await answer.close()
            answer = await bridge.send("DELETE", url, headers.items(), b"")
            await answer.close()


def _unexpected(error: BaseException) -> RpcProblem:
    _log.warning("a call of an MCP server failed in a way that has no words: %s", type(error).__name__)
    return RpcProblem("MCP Error", f"no result could be had ({type(error).__name__})")
