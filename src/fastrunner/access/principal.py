"""Support: who calls: a name that credentials prove, the roles it has, and the namespaces it is confined to.

Rules: the name says how it was proved (`token:ci`, `jwt:alice`, `certificate:gateway`), so that no two kinds of
credentials are taken for one another. A principal is made once and shared by all its calls: it is immutable.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from fastrunner.errors import PermissionDenied

__all__ = ["ALL_ROLES", "Principal", "Role", "check_namespace", "check_references", "with_implied"]


class Role(StrEnum):
    """What a caller may do."""

    READ = "read"
    """Look at executions, their events and definitions, validate documents, read metrics."""
    SUBMIT = "submit"
    """Have documents executed."""
    CONTROL = "control"
    """Cancel, pause and resume executions, send them events."""
    ADMIN = "admin"
    """All of that; change definitions, delete executions."""


ALL_ROLES: Final = frozenset(Role)


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose credentials have been checked."""

    name: str
    """Who it is: for the audit log, for fair shares and limits."""
    roles: frozenset[Role]
    """Every role it has, those that others imply included."""
    namespaces: frozenset[str] | None = None
    """The namespaces whose workflows it sees and controls; None: all."""


def with_implied(roles: frozenset[Role]) -> frozenset[Role]:
    """Roles with those that they imply: `admin` is all of them."""
    return ALL_ROLES if Role.ADMIN in roles else roles


def check_namespace(principal: Principal | None, namespace: str) -> None:
    """Raises PermissionDenied unless a caller (None: callers are not told apart) may see workflows of a namespace."""
    if principal is None or principal.namespaces is None or namespace in principal.namespaces:
        return
    raise PermissionDenied(
        f"{principal.name} has no access to namespace {namespace!r}: its namespaces are "
        f"{', '.join(sorted(principal.namespaces)) or 'none'}"
    )


def check_references(principal: Principal | None, document: Mapping[str, Any]) -> None:
    """Raises PermissionDenied unless a caller may see every workflow that a document of its own runs in turn.

    What is registered runs others on the word of whoever registered it. A namespace that only an expression tells is
    refused: nobody asks again when the task begins.
    """
    if principal is None or principal.namespaces is None:
        return
    is_loose = (document.get("evaluate") or {}).get("mode") == "loose"
    for namespace in _namespaces_run(document):
        if is_loose or not isinstance(namespace, str) or namespace.lstrip().startswith("${"):
            raise PermissionDenied(
                f"{principal.name} is confined to namespaces, and the document's `run.workflow.namespace` may be an "
                "expression: write the namespace itself, without `evaluate.mode: loose`"
            )
        check_namespace(principal, namespace)


def _namespaces_run(document: Mapping[str, Any]) -> Iterator[Any]:
    """The namespace of each `run: workflow`, in tasks and functions; and of what only looks like one."""
    left: list[Any] = [document]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            match value.get("run"):
                case {"workflow": {"namespace": namespace}}:
                    yield namespace
            left.extend(value.values())
        elif isinstance(value, list | tuple):
            left.extend(value)
