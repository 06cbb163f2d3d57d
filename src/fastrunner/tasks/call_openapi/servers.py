"""Stage 5, tasks: where an operation's requests go: the URL of a server, after variables and the document's own URL.

Rules: pure. Of several servers the first that speaks HTTP counts, the operation's before the path's before the
document's. A document's variables have the values that it gives them.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from fastrunner.tasks.call_http.arguments import RequestProblem
from fastrunner.tasks.call_openapi.document import Document, malformed, shown

__all__ = ["server_of_version_2", "server_of_version_3"]

_SCHEMES: Final = ("https", "http")
_VARIABLE = re.compile(r"\{([^{}]+)\}")


def server_of_version_3(document: Document, url: str, lists: Iterable[Any]) -> str:
    """The URL without a slash at its end; `lists` are the `servers` there may be, the nearest first. Raises
    RequestProblem."""
    found = next((servers for each in lists if (servers := document.sequence(each, "servers"))), [{"url": "/"}])
    document.check_count(found, "the document", "servers")
    return _first(url, [_filled(document, document.mapping(each, "a server")) for each in found])


def server_of_version_2(document: Document, url: str, operation: Mapping[str, Any]) -> str:
    """The same from `schemes`, `host` and `basePath`; what is not there is the document's own URL's."""
    root = document.root
    own = urlsplit(url)
    schemes = document.sequence(operation.get("schemes") or root.get("schemes"), "schemes") or [own.scheme]
    document.check_count(schemes, "the document", "schemes")
    host = document.text(root.get("host"), "host") or own.netloc.rpartition("@")[2]
    path = document.text(root.get("basePath"), "basePath")
    return _first(url, [f"{scheme}://{host}/{path.lstrip('/')}" for scheme in schemes])


def _filled(document: Document, server: Mapping[str, Any]) -> str:
    variables = document.mapping(server.get("variables"), "variables")

    def value(match: re.Match[str]) -> str:
        variable = document.mapping(variables.get(match[1]), "a variable")
        given = variable.get("default")
        if given is None:
            raise malformed(f"the server's variable {shown(match[1])} has no default")
        return str(given)

    return _VARIABLE.sub(value, document.text(server.get("url"), "a server's url") or "/")


def _first(url: str, servers: Iterable[str]) -> str:
    refused = ""
    for server in servers:
        try:
            parts = urlsplit(urljoin(url, server))
        except ValueError:
            refused = refused or server
            continue
        if parts.scheme in _SCHEMES and parts.netloc and not parts.query and not parts.fragment:
            return parts.geturl().rstrip("/")
        refused = refused or server
    if urlsplit(url).scheme not in _SCHEMES and "://" not in refused:
        raise RequestProblem(
            "configuration",
            f"the document's server {shown(refused)} is relative to the document, which came from no server",
        )
    raise RequestProblem("configuration", f"the document's server {shown(refused)} is no http or https URL")
