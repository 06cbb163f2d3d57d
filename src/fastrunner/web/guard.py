"""Support: who may ask for which path of the HTTP port.

Rules: the gate and the table of roles are those of gRPC; what is open answers without looking at credentials, so that
probes work whatever they are; a path that is not served is not found, for everybody.
"""

from collections.abc import Sequence
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from fastrunner.access.certificates import names_of
from fastrunner.access.gate import Gate
from fastrunner.access.principal import Principal
from fastrunner.access.roles import ROLE_OF_PATH, Open, Wanted, check_role
from fastrunner.errors import PermissionDenied, RunnerError, Unauthenticated
from fastrunner.web.static import wants_page

__all__ = ["GATE", "METRICS_OPEN", "PRINCIPAL", "certificate_names", "guard"]

GATE: Final = web.AppKey("gate", Gate)
"""Who lets callers in; there where callers are told apart."""
METRICS_OPEN: Final = web.AppKey("metrics_open", bool)
"""Whether /metrics needs no credentials all the same."""

PRINCIPAL: Final = web.RequestKey("principal", Principal)
"""Of a request: who asks; there where callers are told apart."""


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers 401 and 403 where a caller may not ask for a path."""
    gate, resource = request.app.get(GATE), request.match_info.route.resource
    if gate is None or resource is None or _has_own_guard(request, resource.canonical):
        return await handler(request)
    wanted = _wanted(request.app, resource.canonical)
    if wanted is not Open.TO_ALL:
        try:
            admitted = gate.admit(request.headers.get("Authorization"), lambda: certificate_names(request))
            principal = admitted if isinstance(admitted, Principal) else await admitted
            check_role(principal, wanted, request.path)
            request[PRINCIPAL] = principal
        except Unauthenticated as error:
            raise web.HTTPUnauthorized(text=f"{error.message}\n", headers={"WWW-Authenticate": "Bearer"}) from None
        except PermissionDenied as error:
            raise web.HTTPForbidden(text=f"{error.message}\n") from None
        except RunnerError as error:
            raise web.HTTPServiceUnavailable(text=f"{error.message}\n") from None
    return await handler(request)


def _has_own_guard(request: web.Request, canonical: str) -> bool:
    """Whether a path is the HTTP API's, which looks at credentials itself, or a page or file of the console, which is
    open."""
    is_of_console = canonical == "/{path}" or (canonical == "/" and wants_page(request))
    return is_of_console or canonical.startswith(("/api/", "/openapi.json"))


def _wanted(app: web.Application, path: str) -> Wanted:
    return Open.TO_ALL if path == "/metrics" and app[METRICS_OPEN] else ROLE_OF_PATH[path]


def certificate_names(request: web.Request) -> Sequence[str]:
    """As `Call.certificate_names`."""
    return names_of(request.get_extra_info("peercert") or {})
