"""Stage 5, tasks: why a call of an MCP server has no result, out of what the SDK raises."""

from mcp.shared.exceptions import MCPError

from fastrunner.tasks.call_http.failures import CallProblem
from fastrunner.tasks.rpc import RpcProblem, told
from fastrunner.tasks.run.arguments import RunProblem

__all__ = ["error_of", "problem_in"]

_GROUPS_MAX = 10


def error_of(error: MCPError, status: int) -> RpcProblem:
    """The problem of a JSON-RPC error; `status` is that of the HTTP response, if it tells something."""
    return told(error.error.code, error.error.message, status, "MCP Error")


def problem_in(error: BaseException) -> BaseException:
    """What a group of exceptions is about: one that has words, if there is one, else the first."""
    members = [error]
    for _ in range(_GROUPS_MAX):
        members = [
            inner
            for each in members
            for inner in (each.exceptions if isinstance(each, BaseExceptionGroup) else (each,))
        ]
    worded = (each for each in members if isinstance(each, (CallProblem, RunProblem, MCPError)))
    return next(worded, members[0])
