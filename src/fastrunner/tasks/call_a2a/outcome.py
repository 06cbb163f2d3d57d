"""Stage 5, tasks: why a call of an agent has no result, out of what the SDK raises."""

from typing import Any

from a2a.utils.errors import JSON_RPC_ERROR_CODE_MAP, A2AError

from fastrunner.tasks.rpc import RpcProblem, told

__all__ = ["error_of", "result_in"]

_TITLE = "Agent Error"


def error_of(error: A2AError) -> RpcProblem:
    """The problem of an error of the protocol."""
    return told(JSON_RPC_ERROR_CODE_MAP.get(type(error), "without a code"), error, 500, _TITLE)


def result_in(answer: Any, status: int) -> Any:
    """The result of a JSON-RPC response. Raises RpcProblem."""
    if not isinstance(answer, dict):
        raise RpcProblem("Malformed Response", "the answer is no JSON-RPC response")
    error = answer.get("error")
    if isinstance(error, dict):
        raise told(error.get("code"), error.get("message", ""), status, _TITLE)
    if error is not None:
        raise RpcProblem("Malformed Response", "the answer is no JSON-RPC response")
    return answer.get("result")
