"""Stage 5, tasks: the JSON-RPC of version 0.3, whose names are the DSL's: parameters and results go as they are."""

import json
from collections.abc import Mapping
from typing import Any

from a2a.client.transports.http_helpers import send_http_request, send_http_stream_request
from a2a.utils.constants import PROTOCOL_VERSION_0_3, VERSION_HEADER

from fastrunner.tasks.bridge import Bridge
from fastrunner.tasks.call_a2a.arguments import STREAMS, A2aCall
from fastrunner.tasks.call_a2a.outcome import result_in

__all__ = ["result_of"]


async def result_of(client: Any, bridge: Bridge, url: str, call: A2aCall, request_id: str) -> Any:
    """The result, or all of them in order. Raises RpcProblem, and what the SDK raises."""
    payload: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": call.method}
    if call.parameters is not None:
        payload["params"] = call.parameters
    headers: Mapping[str, str] = {VERSION_HEADER: PROTOCOL_VERSION_0_3}
    if call.method not in STREAMS:
        request = client.build_request("POST", url, json=payload, headers=headers)
        return result_in(await send_http_request(client, request), bridge.status)
    results = []
    async for data in send_http_stream_request(client, "POST", url, json=payload, headers=headers):
        results.append(result_in(json.loads(data), bridge.status))
    return results
