"""Support: refusals of the HTTP API as `application/problem+json` (RFC 9457)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web
from pydantic import ValidationError

from fastrunner.errors import DocumentRefused, RunnerError, TooLarge, code_of
from fastrunner.web.api.shapes import FieldProblem, Problem

__all__ = ["Refused", "problem", "refusal_of", "wrong_fields"]

_STATUS_OF_CODE: Final = {3: 400, 5: 404, 6: 409, 7: 403, 8: 429, 9: 409, 12: 501, 14: 503, 16: 401}
"""By gRPC status code; another one is 500."""


class Refused(Exception):
    """A request that is refused with a status of its own."""

    def __init__(
        self,
        status: int,
        detail: str,
        problems: Sequence[FieldProblem] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        """Of the answer."""
        self.detail = detail
        """For people."""
        self.problems = problems
        """Every single one, where there are several."""
        self.headers = headers or {}
        """That the answer has, too."""


def refusal_of(error: RunnerError) -> Refused:
    """A refusal as HTTP has it."""
    if isinstance(error, TooLarge):
        return Refused(413, error.message)
    status = _STATUS_OF_CODE.get(code_of(error), 500)
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, DocumentRefused):
        found = [
            FieldProblem(field=each.pointer, message=each.message, code=each.code, line=each.line, column=each.column)
            for each in error.problems
        ]
        return Refused(status, error.message, found)
    return Refused(status, error.message, headers=headers)


def wrong_fields(error: ValidationError) -> Refused:
    """What pydantic finds wrong with a body. Values are not repeated: they may be secret."""
    problems = [
        FieldProblem(field=".".join(map(str, each["loc"])) or "(body)", message=each["msg"]) for each in error.errors()
    ]
    words = "; ".join(f"{each.field}: {each.message}" for each in problems[:3])
    return Refused(400, f"the body is not what this operation takes: {words}", problems)


def problem(refused: Refused) -> web.Response:
    """The answer to a refused request."""
    found = Problem(
        title=HTTPStatus(refused.status).phrase,
        status=refused.status,
        detail=refused.detail,
        problems=None if refused.problems is None else list(refused.problems),
    )
    fields: dict[str, Any] = found.model_dump(exclude_none=True)
    return web.Response(
        body=orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE),
        status=refused.status,
        headers=refused.headers,
        content_type="application/problem+json",
    )
