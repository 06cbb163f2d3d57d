"""Stage 5, tasks: one session with an MCP server: the handshake, one request, its result.

Rules: the SDK's dispatcher writes and matches messages, its session is left aside: that offers a version of its own,
and changes results. What a server asks meanwhile is answered: a ping, or that there is no such method.
"""

from collections.abc import Mapping
from typing import Any

import anyio
from mcp.client._transport import TransportStreams
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS
from mcp_types import METHOD_NOT_FOUND

from fastrunner.tasks.call_mcp.arguments import McpCall
from fastrunner.tasks.rpc import RpcProblem

__all__ = ["REQUEST_ID", "result_over"]

REQUEST_ID = "call"
"""Of a session's one request."""

_VERSION_HEADER = "mcp-protocol-version"


async def result_over(
    streams: TransportStreams, call: McpCall, of_session: dict[str, str], of_method: Mapping[str, str], *, tells: bool
) -> Any:
    """The result of a call's method, as the server has it.

    Where there are headers, `of_session` get the version's, and `of_method` go with the method's request alone. If
    `tells`, whoever is cancelled has told the server so. Raises MCPError, RpcProblem, and what the streams raise.
    """
    dispatcher: JSONRPCDispatcher[Any] = JSONRPCDispatcher(*streams)
    async with anyio.create_task_group() as group:
        await group.start(dispatcher.run, _answer, _ignore)
        try:
            of_session[_VERSION_HEADER] = await _agreed(dispatcher, call)
            await dispatcher.notify("notifications/initialized", None, {"headers": dict(of_session)})
            return await dispatcher.send_raw_request(
                call.method,
                call.parameters,
                {"request_id": REQUEST_ID, "headers": {**of_session, **of_method}, "cancel_on_abandon": tells},
            )
        finally:
            group.cancel_scope.cancel()


async def _agreed(dispatcher: "JSONRPCDispatcher[Any]", call: McpCall) -> str:
    """The version that both sides speak: the one that is offered, or the server's answer to it."""
    offer = {"protocolVersion": call.version, "capabilities": {}, "clientInfo": dict(call.client)}
    # The protocol forbids to cancel it.
    answer = await dispatcher.send_raw_request("initialize", offer, {"cancel_on_abandon": False})
    version = answer.get("protocolVersion")
    if version not in HANDSHAKE_PROTOCOL_VERSIONS:
        shown = repr(version)[:100]
        raise RpcProblem(
            "Protocol Version Unknown",
            f"the server was offered version {call.version} of the protocol and answers with {shown}",
        )
    return str(version)


async def _answer(_: object, method: str, __: object) -> dict[str, Any]:
    if method == "ping":
        return {}
    raise MCPError(METHOD_NOT_FOUND, "Method not found")


async def _ignore(*_: object) -> None:
    """Notifications are about progress and logs, which nobody reads."""
