"""Stage 5, tasks: messages between the workflow's values and what a channel carries.

Rules: pure. What is published is JSON. What is received is never refused for its content: one odd message would keep a
subscription from all that follow. JSON is parsed where it is said to be JSON or nothing is said; what is no JSON is
text, and what is no text is base64.
"""

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from fastrunner.base import limits
from fastrunner.tasks.call_asyncapi.arguments import value_at
from fastrunner.tasks.call_asyncapi.clients import Message
from fastrunner.tasks.call_asyncapi.document import ConfigurationProblem, Operation
from fastrunner.tasks.call_http.content import MalformedContent, MediaType, decode
from fastrunner.tasks.call_http.failures import CallProblem
from fastrunner.tasks.call_http.slices import in_slices
from fastrunner.tasks.scalars import json_kind, scalar_text

__all__ = ["message_to_send", "published", "received"]


def message_to_send(operation: Operation, given: Mapping[str, Any]) -> Message:
    """What `message` is on the wire. Raises CallProblem."""
    essence = MediaType.parse(operation.content_type)
    if not (essence.is_json or essence.is_text):
        raise ConfigurationProblem(
            f"messages of the channel {operation.channel!r:.99} are {operation.content_type:.99}: only JSON is written"
        )
    body = orjson.dumps(given["payload"]) if "payload" in given else b""
    if len(body) > limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
        raise CallProblem(
            "Message Too Large", f"the message exceeds {limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX} bytes", 413
        )
    headers = {}
    for name, value in (given.get("headers") or {}).items():
        text = scalar_text(value)
        if text is None:
            raise ConfigurationProblem(f"the header {name!r:.100} is {json_kind(value)}, where a text or a number goes")
        headers[name] = text
    found = scalar_text(value_at(_correlation(operation), given))
    return Message(body, headers, operation.content_type, found)


def published(given: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """The task's output: the message as it was published."""
    return {
        "payload": given.get("payload"),
        "headers": dict(message.headers),
        "correlationId": message.correlation_id,
    }


async def received(operation: Operation, message: Message) -> dict[str, Any]:
    """A message for the workflow: payload, headers, correlationId."""
    told = {
        "payload": await _payload(message.body, message.content_type or operation.content_type),
        "headers": dict(message.headers),
    }
    found = value_at(_correlation(operation), told)
    return {**told, "correlationId": message.correlation_id if found is None else found}


def _correlation(operation: Operation) -> Any:
    section = operation.sections["message"].get("correlationId")
    return section.get("location") if isinstance(section, dict) else None


async def _payload(body: bytes, content_type: str) -> Any:
    if not body:
        return None
    media_type = MediaType.parse(content_type)
    try:
        if media_type.is_json or media_type.is_text:
            return await in_slices(decode(body, content_type))
    except (MalformedContent, LookupError, ValueError):
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode()
