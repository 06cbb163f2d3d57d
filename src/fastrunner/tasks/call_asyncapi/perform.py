"""Stage 5, tasks: performs `call: asyncapi`: publishes a message, or takes what a subscription has.

Rules: an outcome is returned, never raised; cancelling the coroutine closes what it opened. Opening and publishing are
bounded by the time that calls have; waiting for messages by what the task says alone. Documents are kept as they were
read, by their digests.
"""

import asyncio
import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import aiohttp

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import limits
from fastrunner.tasks.call_asyncapi.arguments import Route, operation_of, route_to
from fastrunner.tasks.call_asyncapi.clients import Target
from fastrunner.tasks.call_asyncapi.content import message_to_send, published, received
from fastrunner.tasks.call_asyncapi.document import Application, ConfigurationProblem, Operation, read_document
from fastrunner.tasks.call_asyncapi.keeper import Keeper, Kept, is_settled_by_ids
from fastrunner.tasks.call_asyncapi.outcome import failure_of
from fastrunner.tasks.call_http.client import Client
from fastrunner.tasks.call_http.failures import CallProblem, connection_problem
from fastrunner.tasks.counted import Counted
from fastrunner.tasks.credentials.policy import text
from fastrunner.tasks.descriptions import NoDescription
from fastrunner.tasks.surroundings import Surroundings

__all__ = ["CallAsyncapi", "build"]

_log = logging.getLogger(__name__)

_KIND = "call_asyncapi"


def build(around: Surroundings) -> "CallAsyncapi":
    """See `tasks.demand`."""
    return CallAsyncapi(around)


class _Refused(Exception):
    """A policy that leads to no proof."""

    def __init__(self, failure: EffectFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class CallAsyncapi:
    """Performer of `call_asyncapi` effects."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._timeout_s = around.config.http_timeout_s
        self._keeper = Keeper()
        self._documents: dict[bytes, Application] = {}
        """The one used last at the end."""
        self._client = Client(
            around.config, around.metrics, around.egress, resolver=around.resolver, ssl_context=around.ssl_context
        )
        self._counted = Counted(_KIND, around.metrics)

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """See `EffectPerformer`."""
        return await self._counted.outcome_of(self._call(effect, arguments))

    async def authorize(self, effect: PerformEffect, policy: Mapping[str, Any]) -> Mapping[str, Any] | EffectFailure:
        """See `Authorizer`."""
        return await self._around.http.authorize(effect, policy)

    def keeps(self, outcome: EffectResult) -> bool:
        """See `KeepingPerformer`: a subscription is open after messages that came."""
        value = outcome.value
        return isinstance(value, Mapping) and "position" in value and bool(value.get("messages"))

    async def close(self) -> None:
        """See `EffectPerformer`."""
        await self._keeper.close()
        await self._client.close()

    async def _call(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        where = [""]
        try:
            if "subscription" in arguments:
                return EffectResult(effect.effect_id, await self._consume(effect, arguments, where))
            return EffectResult(effect.effect_id, await self._publish(effect, arguments, where))
        except CallProblem as problem:
            return failure_of(effect, problem, where[0])
        except _Refused as refused:
            return refused.failure
        except NoDescription as missing:
            undescribed = CallProblem("No Description", str(missing), missing.status or 500)
            undescribed.type = missing.type
            return failure_of(effect, undescribed, "")
        except TimeoutError:
            late = CallProblem("No Response In Time", f"nothing within {self._timeout_s:g} s")
            return failure_of(effect, late, where[0])
        except (aiohttp.ClientError, OSError) as error:
            return failure_of(effect, connection_problem(error), where[0])

    # --- publishing ---

    async def _publish(
        self, effect: PerformEffect, arguments: Mapping[str, Any], where: list[str]
    ) -> Mapping[str, Any]:
        given = _checked_message(arguments["message"])
        async with asyncio.timeout(self._timeout_s):
            target, route = await self._target(effect, arguments, where)
            message = message_to_send(route.operation, given)
            await _client(route).publish(target, message, effect.idempotency_key)
        return published(given, message)

    # --- subscribing ---

    async def _consume(
        self, effect: PerformEffect, arguments: Mapping[str, Any], where: list[str]
    ) -> Mapping[str, Any]:
        wanted = arguments["subscription"]
        if wanted["amount"] == 0:
            await self._end(effect, arguments, where)
            return _told([], None)
        async with asyncio.timeout(self._timeout_s):
            kept, operation = await self._opened(effect, arguments, where)
        try:
            async with asyncio.timeout(self._timeout_s):
                await kept.taken(wanted["after"], wanted["taken"])
            found = await kept.messages(wanted["amount"], wanted["ends_at_ms"])
            told = [await received(operation, message) for message in found]
        except BaseException:
            self._keeper.end(kept)
            raise
        if not found:
            self._keeper.end(kept)
            return _told([], None)
        self._keeper.give_back(wanted["consumer"], kept)
        return _told(told, kept.position)

    async def _opened(
        self, effect: PerformEffect, arguments: Mapping[str, Any], where: list[str]
    ) -> tuple[Kept, Operation]:
        wanted = arguments["subscription"]
        target, route = await self._target(effect, arguments, where)
        kept = await self._keeper.take(
            wanted["consumer"], wanted["after"], lambda: _client(route).subscribe(target, wanted["consumer"])
        )
        return kept, route.operation

    async def _end(self, effect: PerformEffect, arguments: Mapping[str, Any], where: list[str]) -> None:
        """Nothing more is wanted. What cannot be acknowledged comes again, to whoever subscribes next: the task has had
        its messages, so that is no failure of it."""
        wanted = arguments["subscription"]
        kept = self._keeper.find(wanted["consumer"], wanted["after"])
        try:
            async with asyncio.timeout(self._timeout_s):
                if kept is None and is_settled_by_ids(wanted["after"]):
                    kept, _ = await self._opened(effect, arguments, where)
                if kept is not None:
                    await kept.taken(wanted["after"], wanted["taken"])
        except (CallProblem, OSError) as problem:
            _log.warning("last messages of a subscription could not be acknowledged and may come again: %s", problem)
        finally:
            if kept is not None:
                self._keeper.end(kept)

    # --- where a call goes ---

    async def _target(
        self, effect: PerformEffect, arguments: Mapping[str, Any], where: list[str]
    ) -> tuple[Target, Route]:
        application = await self._application(arguments["document"])
        operation = operation_of(application, arguments)
        route = route_to(application, operation, arguments)
        where[0] = f"{route.server.protocol} {route.host}:{route.port}"
        sections = {"server": route.server.section, **operation.sections}
        return Target(
            protocol=route.server.protocol,
            host=route.host,
            port=route.port,
            is_tls=route.protocol.is_tls,
            path=route.path,
            address=route.address,
            bindings=application.bindings(route.protocol.names, sections),
            policy=await self._proof(effect, arguments.get("authentication")),
            around=self._around,
            connect_timeout_s=min(self._timeout_s, limits.HTTP_CONNECT_TIMEOUT_S_MAX),
            security=application.security(route.server, operation),
            client=self._client,
        ), route

    async def _application(self, resource: Mapping[str, Any]) -> Application:
        descriptions = self._around.descriptions
        assert descriptions is not None, "without descriptions there is no performer"
        description = await descriptions.get(resource)
        application = self._documents.pop(description.digest, None)
        if application is None:
            application = read_document(description.text, description.url)
        self._documents[description.digest] = application
        while len(self._documents) > limits.ASYNCAPI_DOCUMENTS_KEPT_MAX:
            del self._documents[next(iter(self._documents))]
        return application

    async def _proof(
        self, effect: PerformEffect, policy: Mapping[str, Any] | None
    ) -> Mapping[str, Mapping[str, str]] | None:
        if policy is None:
            return None
        [(scheme, fields)] = policy.items()
        if scheme == "digest":
            raise ConfigurationProblem("digest authentication answers HTTP's challenges: brokers have none of them")
        # It hides what is secret, too.
        answer = await self._around.http.authorize(effect, policy)
        if isinstance(answer, EffectFailure):
            raise _Refused(answer)
        if scheme != "basic":
            return {"bearer": {"token": answer["parameter"]}}
        password = text("basic", fields, "password", is_required=False)
        return {"basic": {"username": text("basic", fields, "username"), "password": password}}


def _client(route: Route) -> Any:
    """The module that speaks the route's protocol: loaded when it is called for the first time."""
    return import_module(f"fastrunner.tasks.call_asyncapi.clients.{route.protocol.client}")


def _told(messages: list[dict[str, Any]], position: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {"messages": messages, "position": position}


def _checked_message(message: Any) -> Mapping[str, Any]:
    """What came from expressions may be anything. Raises ConfigurationProblem."""
    if not isinstance(message, dict) or not isinstance(message.get("headers", {}), dict):
        raise ConfigurationProblem("`message` is no object with `payload` and `headers`")
    return message
