"""Stage 5, tasks: performs calls of operations that OpenAPI documents describe.

Rule: what goes over HTTP goes by `call: http`'s performer, which has the idempotency key, the policy of where calls may
go, redirects, errors, tokens and bounds; here is only what the request is.
"""

from collections.abc import Mapping
from typing import Any

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base.redaction import hide
from fastrunner.tasks.call_http.arguments import RequestProblem
from fastrunner.tasks.call_openapi.arguments import request_of
from fastrunner.tasks.call_openapi.kept import Operations
from fastrunner.tasks.call_openapi.operation import Operation
from fastrunner.tasks.call_openapi.outcome import refusal_of, undescribed
from fastrunner.tasks.call_openapi.security import place_of_token, with_scopes
from fastrunner.tasks.counted import Counted
from fastrunner.tasks.descriptions import Descriptions, NoDescription
from fastrunner.tasks.scalars import json_kind
from fastrunner.tasks.surroundings import Surroundings

__all__ = ["CallOpenApi", "build"]

_KIND = "call_openapi"


def build(around: Surroundings) -> "CallOpenApi":
    """See `tasks.demand`."""
    assert around.descriptions is not None
    return CallOpenApi(around, around.descriptions)


class CallOpenApi:
    """Performer of `call_openapi` effects."""

    def __init__(self, around: Surroundings, descriptions: Descriptions) -> None:
        self._http = around.http
        self._descriptions = descriptions
        self._operations = Operations()
        self._counted = Counted(_KIND, around.metrics)

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """Sends the operation's request and gives the task's raw output, or a DSL error."""
        return await self._counted.outcome_of(self._call(effect, arguments))

    async def authorize(self, effect: PerformEffect, policy: Mapping[str, Any]) -> Mapping[str, Any] | EffectFailure:
        """See `Authorizer`."""
        return await self._http.authorize(effect, policy)

    async def close(self) -> None:
        """Nothing is open: connections are those of `call: http`."""

    async def _call(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        name, given = arguments["operationId"], arguments.get("parameters") or {}
        try:
            if not isinstance(name, str):
                raise RequestProblem("expression", f"operationId is {json_kind(name)}, a string is needed")
            if not isinstance(given, dict):
                raise RequestProblem("expression", f"parameters is {json_kind(given)}, a map is needed")
            operation = await self._operations.get(await self._descriptions.get(arguments["document"]), name)
            return await self._exchange(effect, arguments, operation, given)
        except NoDescription as problem:
            return undescribed(effect, problem)
        except RequestProblem as problem:
            return refusal_of(effect, problem, name if isinstance(name, str) else "")
        except UnicodeEncodeError:
            lone = RequestProblem("validation", "a parameter has an unpaired surrogate: it is no text")
            return refusal_of(effect, lone, name)

    async def _exchange(
        self, effect: PerformEffect, arguments: Mapping[str, Any], operation: Operation, given: Mapping[str, Any]
    ) -> EffectResult | EffectFailure:
        asked = {name: arguments[name] for name in ("output", "redirect") if name in arguments}
        for key in operation.parameters:
            if key.is_key:
                hide([given.get(name) for name in key.given_as])
        policy = arguments.get("authentication")
        if policy is None:
            return await self._http.perform(effect, {**request_of(operation, given), **asked})
        policy = with_scopes(operation, policy)
        place = place_of_token(operation, policy, given)
        if place is None:
            request = request_of(operation, given)
            return await self._http.perform(effect, {**request, **asked, "authentication": policy})
        proof = await self._http.authorize(effect, policy)
        if isinstance(proof, EffectFailure):
            return proof
        request = request_of(operation, given, (place, str(proof["parameter"])))
        outcome = await self._http.perform(effect, {**request, **asked})
        return EffectResult(outcome.effect_id, outcome.value, proof) if isinstance(outcome, EffectResult) else outcome
