"""Support: who calls: a name that credentials prove, the roles it has, and the namespaces it is confined to.

Rules: the name says how it was proved (`token:ci`, `jwt:alice`, `certificate:gateway`), so that no two kinds of
credentials are taken for one another. A principal is made once and shared by all its calls: it is immutable.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fastrunner.errors import PermissionDenied

__all__ = ["ALL_ROLES", "Principal", "Role", "check_namespace", "check_references", "with_implied"]


class Role(StrEnum):
    """What a caller may do."""

    READ = "read"
    """Look at executions, their events and definitions, validate documents, read metrics."""
    SUBMIT = "submit"
    """Have documents executed, send events."""
    CONTROL = "control"
    """Cancel, pause and resume executions."""
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


def check_references(principal: Principal | None, namespaces: Iterable[str | None]) -> None:
    """Raises PermissionDenied unless a caller may see every workflow that a document of its own runs in turn.

    `namespaces` are those workflows'; None is one that an expression tells, which is refused: nobody asks again when
    the task begins. What is registered runs others on the word of whoever registered it.
    """
    if principal is None or principal.namespaces is None:
        return
    for namespace in namespaces:
        if namespace is None:
            raise PermissionDenied(
                f"{principal.name} is confined to namespaces, and an expression tells a `run.workflow.namespace` of "
                "the document: write the namespace itself"
            )
        check_namespace(principal, namespace)
