"""Stage 1, service: the registry of workflows. Any worker answers, because all of them read one file.

Rules: a document is registered only if it would be executed; compiling it is most of the work, so it is paced like a
submission; a page token belongs to the filters it was given with.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from fastrunner._pb.ai.stigmer.workflow.runner.v1.registry_pb2 import (
    DeleteWorkflowRequest,
    DeleteWorkflowResponse,
    GetWorkflowRequest,
    GetWorkflowResponse,
    ListWorkflowsRequest,
    ListWorkflowsResponse,
    RegisteredWorkflow,
    RegisterWorkflowRequest,
    RegisterWorkflowResponse,
)
from fastrunner.access.principal import check_namespace, check_references
from fastrunner.base import limits
from fastrunner.engine import Definition, DefinitionRef, Engine, Lookups
from fastrunner.errors import InvalidRequest
from fastrunner.routing.facts import CallFacts
from fastrunner.service.decode import check_document, checked_ref, parse
from fastrunner.service.submissions import warning_lines

if TYPE_CHECKING:
    from fastrunner._core import Plan

__all__ = ["Registry", "WorkflowRegistry"]

_PAGE_SIZE_DEFAULT: Final = 100


class WorkflowRegistry(Lookups, Protocol):
    """What the service needs of the registry (see `registry/`)."""

    async def register(self, plan: "Plan", document: str) -> tuple[Definition, bool]:
        """Durable, and seen by every worker, when it returns. Raises AlreadyRegistered, StorageFailed, StorageFull."""

    async def delete(self, ref: DefinitionRef) -> None:
        """The same. Raises UnknownWorkflow, StorageFailed, StorageFull."""

    async def page(
        self,
        namespace: str,
        name: str,
        within: frozenset[str] | None,
        after: tuple[str, str, str] | None,
        count_max: int,
    ) -> Sequence[Definition]:
        """Definitions after (namespace, name, version), of some namespaces (None: of all). Raises StorageFailed,
        StorageFull."""


class Registry:
    """Answers the methods of the registry."""

    def __init__(self, engine: Engine, registry: WorkflowRegistry, admit: Callable[[str, int], None]) -> None:
        self._engine = engine
        self._registry = registry
        self._admit = admit
        """Raises AtCapacity if a client asks for more than the worker can do now."""

    async def register(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers RegisterWorkflow. Raises DocumentRefused, AlreadyRegistered, AtCapacity, Unavailable."""
        self._admit(facts.peer, 1)
        request = parse(RegisterWorkflowRequest, payload)
        check_document(request.workflow_yaml)
        plan = await self._engine.plan_of(request.workflow_yaml, facts.peer)
        check_namespace(facts.principal, plan.namespace)
        check_references(facts.principal, plan.namespaces_run)
        definition, created = await self._registry.register(plan, request.workflow_yaml)
        return RegisterWorkflowResponse(
            workflow=_shown(definition, with_document=False), created=created, warnings=warning_lines(plan.warnings)
        ).SerializeToString()

    async def get(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers GetWorkflow. Raises UnknownWorkflow."""
        ref = checked_ref(parse(GetWorkflowRequest, payload).workflow_ref)
        check_namespace(facts.principal, ref.namespace)
        definition = await self._registry.look_up(ref)
        return GetWorkflowResponse(workflow=_shown(definition, with_document=True)).SerializeToString()

    async def list(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers ListWorkflows."""
        request = parse(ListWorkflowsRequest, payload)
        if request.page_size < 0:
            raise InvalidRequest("page_size", f"page_size is {request.page_size}: it must be 0 (100) or more")
        count_max = min(request.page_size or _PAGE_SIZE_DEFAULT, limits.LIST_PAGE_SIZE_MAX)
        within = None if facts.principal is None else facts.principal.namespaces
        if request.namespace:
            check_namespace(facts.principal, request.namespace)
        found = await self._registry.page(request.namespace, request.name, within, _after(request), count_max)
        token = _token(request, found[-1]) if len(found) == count_max else ""
        shown = [_shown(definition, with_document=False) for definition in found]
        return ListWorkflowsResponse(workflows=shown, next_page_token=token).SerializeToString()

    async def delete(self, payload: bytes, facts: CallFacts) -> bytes:
        """Answers DeleteWorkflow. Raises UnknownWorkflow."""
        ref = checked_ref(parse(DeleteWorkflowRequest, payload).workflow_ref)
        if not ref.version:
            raise InvalidRequest(
                "workflow_ref.version",
                "workflow_ref.version does not say a version: name the one to remove, `latest` may be another by now",
            )
        check_namespace(facts.principal, ref.namespace)
        await self._registry.delete(ref)
        return DeleteWorkflowResponse().SerializeToString()


def _shown(definition: Definition, *, with_document: bool) -> RegisteredWorkflow:
    return RegisteredWorkflow(
        namespace=definition.ref.namespace,
        name=definition.ref.name,
        version=definition.ref.version,
        registered_ms=definition.registered_ms,
        latest=definition.is_latest,
        workflow_yaml=definition.document if with_document else "",
    )


def _token(request: ListWorkflowsRequest, last: Definition) -> str:
    place = [request.namespace, request.name, last.ref.namespace, last.ref.name, last.ref.version]
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode("ascii")


def _after(request: ListWorkflowsRequest) -> tuple[str, str, str] | None:
    if not request.page_token:
        return None
    try:
        of_namespace, of_name, *place = orjson.loads(base64.urlsafe_b64decode(request.page_token))
        namespace, name, version = place
    except (binascii.Error, ValueError, TypeError):
        namespace = None
    if not (isinstance(namespace, str) and isinstance(name, str) and isinstance(version, str)):
        raise InvalidRequest("page_token", "page_token is none: give next_page_token of the page before")
    if (of_namespace, of_name) != (request.namespace, request.name):
        raise InvalidRequest("page_token", "page_token belongs to other filters: keep them while paging")
    return namespace, name, version
