"""Stage 5, tasks: what calls by JSON-RPC share: of a method of an MCP server, of an agent.

Rules: whatever fails at the other side, or on the way there, is `runtime`, as the DSL has it; what the document or the
operator can mend is `configuration`. Details hold the other side's code and words, searched for secrets and cut; never
an argument, a header or a URL beyond its host.
"""

import json
from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit

import orjson

from fastrunner._core import EffectFailure, PerformEffect
from fastrunner.base.redaction import redact
from fastrunner.tasks.call_http.failures import CallProblem
from fastrunner.tasks.call_http.json_text import TooComplex, parse
from fastrunner.tasks.run.arguments import RunProblem
from fastrunner.tasks.scalars import json_kind, scalar_text

__all__ = ["RpcProblem", "failure_of", "host_of", "map_of", "of_other_side", "refused", "text_of", "told", "value_of"]

_SHOWN_SIZE_CHARS_MAX = 1_000


class RpcProblem(CallProblem):
    """What went wrong at the other side, or on the way there."""

    type = "runtime"


def refused(type_: str, sentence: str) -> CallProblem:
    """The problem of arguments with which nothing can be asked; `type_` is a DSL error's short name."""
    problem = CallProblem("Invalid Call", sentence, 400)
    problem.type = type_
    return problem


def of_other_side(problem: CallProblem) -> CallProblem:
    """The same problem, as the DSL has those of the wire for these calls."""
    if problem.type == "communication":
        problem.type = "runtime"
    return problem


def map_of(given: Any, argument: str) -> dict[str, Any]:
    """An argument that has to be a map. Raises CallProblem."""
    if not isinstance(given, dict):
        raise refused("expression", f"{argument} is {json_kind(given)}, where a map is needed")
    return given


def text_of(given: Any, argument: str) -> str:
    """An argument that has to be text. Raises CallProblem."""
    text = scalar_text(given)
    if not text:
        kind = "empty" if text == "" else json_kind(given)
        raise refused("expression", f"{argument} is {kind}, where a string with something in it is needed")
    return text


def value_of(result: Any) -> Generator[None, None, Any]:
    """A result as the workflow may have it, in pieces. Raises RpcProblem."""
    try:
        return (yield from parse(orjson.dumps(result)))
    except (TypeError, TooComplex) as error:
        reason = str(error) if isinstance(error, TooComplex) else "holds what JSON text cannot carry"
        raise RpcProblem("Malformed Response", f"the result {reason}") from None


def told(code: object, message: object, status: int, title: str) -> RpcProblem:
    """The problem of a JSON-RPC error; `status` is that of the HTTP response, if it tells something."""
    shown = json.dumps(redact(str(message))[:_SHOWN_SIZE_CHARS_MAX], ensure_ascii=False)
    return RpcProblem(title, f"the answer is error {redact(str(code))[:20]}, {shown}", status if status >= 400 else 500)


def host_of(uri: object) -> str:
    """Where a call goes, for people."""
    try:
        return urlsplit(uri).netloc.rpartition("@")[2] if isinstance(uri, str) else "?"
    except ValueError:
        return "?"


def failure_of(effect: PerformEffect, where: str, problem: CallProblem | RunProblem) -> EffectFailure:
    """The error of a call without a result."""
    sentence, retry_after_ms = (
        (problem.detail, 0) if isinstance(problem, RunProblem) else (problem.sentence, problem.retry_after_ms)
    )
    return EffectFailure(
        effect.effect_id,
        problem.type,
        problem.status,
        problem.title,
        f"{where}: {sentence}",
        retry_after_ms=retry_after_ms,
    )
