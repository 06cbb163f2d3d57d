"""Stage 5, tasks: agents of version 1.0: parameters and results of 0.3, the DSL's version, made theirs and back.

Rules: the SDK converts and speaks; what it has no form for in 0.3, a list of tasks, is made of the parts that it has.
"""

from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from typing import Any

from a2a.client.transports.jsonrpc import JsonRpcTransport
from a2a.compat.v0_3 import conversions, types
from a2a.types.a2a_pb2 import ListTasksRequest, ListTasksResponse
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from pydantic import BaseModel, ValidationError

from fastrunner.tasks.call_a2a.arguments import STREAMS, A2aCall
from fastrunner.tasks.rpc import refused

__all__ = ["converted_result_of"]


@dataclass(frozen=True, slots=True)
class _Method:
    """How a method is asked and what it answers."""

    asked: Any
    """The request's model in 0.3; None: there are no parameters."""
    to_modern: Callable[[Any], Any]
    """From that to the request in 1.0."""
    name: str
    """Of the transport's method."""
    from_modern: Callable[[Any], Any]
    """From a response in 1.0 to a result in 0.3."""


_METHODS = {
    "message/send": _Method(
        types.SendMessageRequest,
        conversions.to_core_send_message_request,
        "send_message",
        lambda answer: conversions.to_compat_send_message_response(answer, 0).root.result,  # type: ignore[union-attr]
    ),
    "message/stream": _Method(
        types.SendStreamingMessageRequest,
        conversions.to_core_send_message_request,
        "send_message_streaming",
        lambda answer: conversions.to_compat_stream_response(answer, 0).result,
    ),
    "tasks/get": _Method(
        types.GetTaskRequest, conversions.to_core_get_task_request, "get_task", conversions.to_compat_task
    ),
    "tasks/list": _Method(None, lambda given: _list_of_tasks(given), "list_tasks", lambda answer: _tasks(answer)),
    "tasks/cancel": _Method(
        types.CancelTaskRequest, conversions.to_core_cancel_task_request, "cancel_task", conversions.to_compat_task
    ),
    "tasks/resubscribe": _Method(
        types.TaskResubscriptionRequest,
        conversions.to_core_subscribe_to_task_request,
        "subscribe",
        lambda answer: conversions.to_compat_stream_response(answer, 0).result,
    ),
    "tasks/pushNotificationConfig/set": _Method(
        types.SetTaskPushNotificationConfigRequest,
        conversions.to_core_create_task_push_notification_config_request,
        "create_task_push_notification_config",
        conversions.to_compat_task_push_notification_config,
    ),
    "tasks/pushNotificationConfig/get": _Method(
        types.GetTaskPushNotificationConfigRequest,
        conversions.to_core_get_task_push_notification_config_request,
        "get_task_push_notification_config",
        conversions.to_compat_task_push_notification_config,
    ),
    "tasks/pushNotificationConfig/list": _Method(
        types.ListTaskPushNotificationConfigRequest,
        conversions.to_core_list_task_push_notification_config_request,
        "list_task_push_notification_configs",
        lambda answer: [conversions.to_compat_task_push_notification_config(each) for each in answer.configs],
    ),
    "tasks/pushNotificationConfig/delete": _Method(
        types.DeleteTaskPushNotificationConfigRequest,
        conversions.to_core_delete_task_push_notification_config_request,
        "delete_task_push_notification_config",
        lambda _: None,
    ),
    "agent/getAuthenticatedExtendedCard": _Method(
        None,
        lambda _: conversions.to_core_get_extended_agent_card_request(types.GetAuthenticatedExtendedCardRequest(id=0)),
        "get_extended_agent_card",
        # One of an agent without 0.3 has no form in it.
        MessageToDict,
    ),
}


async def converted_result_of(transport: JsonRpcTransport, call: A2aCall) -> Any:
    """The result, or all of them in order. Raises CallProblem, and what the SDK raises."""
    method = _METHODS[call.method]
    request = _asked(method, call)
    answer = getattr(transport, method.name)(request)
    if call.method in STREAMS:
        return [_plain(method.from_modern(each)) async for each in _each_of(answer)]
    return _plain(method.from_modern(await answer))


def _each_of(answers: Any) -> AsyncIterable[Any]:
    return answers  # type: ignore[no-any-return]


def _asked(method: _Method, call: A2aCall) -> Any:
    try:
        if method.asked is None:
            return method.to_modern(call.parameters or {})
        return method.to_modern(method.asked(id=0, params=call.parameters))
    except ValidationError as error:
        [first, *_] = error.errors(include_input=False, include_url=False, include_context=False)
        place = ".".join(str(part) for part in first["loc"][1:]) or "parameters"
        raise refused("configuration", f"parameters are none of {call.method}: {place}: {first['msg']}") from None
    except (ParseError, ValueError):
        raise refused("configuration", f"parameters are none of {call.method}") from None


def _list_of_tasks(parameters: Any) -> ListTasksRequest:
    return ParseDict(parameters, ListTasksRequest())


def _tasks(answer: ListTasksResponse) -> dict[str, Any]:
    return {
        "tasks": [_plain(conversions.to_compat_task(task)) for task in answer.tasks],
        "nextPageToken": answer.next_page_token,
        "pageSize": answer.page_size,
        "totalSize": answer.total_size,
    }


def _plain(result: Any) -> Any:
    if isinstance(result, list):
        return [_plain(each) for each in result]
    return result.model_dump(by_alias=True, exclude_none=True, mode="json") if isinstance(result, BaseModel) else result
