"""Stage 5, tasks: where a response sends a request on to, and what of it goes there.

Rules: pure, no I/O. A Location is followed as it was sent: nothing is encoded again but what no URI may hold, and dots
are resolved in relative paths only. What names or proves the caller stays within its origin.
"""

import re
from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from fastrunner.tasks.call_http.arguments import HttpRequest, RequestProblem, basic, parse_uri
from fastrunner.tasks.call_http.failures import CallProblem

__all__ = ["redirected"]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_OF_THE_ORIGIN: Final = ("Authorization", "Cookie", "Host", "Proxy-Authorization")
_OF_THE_BODY: Final = (
    "Content-Digest",
    "Content-Encoding",
    "Content-Language",
    "Content-Location",
    "Content-MD5",
    "Content-Type",
    "Digest",
    "Repr-Digest",
)
_REFERENCE = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.\-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?", re.DOTALL)
"""A URI reference without its fragment, after RFC 3986, appendix B."""


def redirected(request: HttpRequest, status: int, headers: CIMultiDictProxy[str]) -> HttpRequest | None:
    """The request that follows a response; None if it leads nowhere. Raises CallProblem."""
    locations = set(headers.getall("Location", ()))
    if status not in _REDIRECTS or not locations:
        return None
    if len(locations) > 1:
        raise CallProblem("Bad Redirect", "a redirect names several URIs")
    try:
        location = _as_text(locations.pop()).strip()
        url, user_information = parse_uri(_resolved(request.url, location))
    except (RequestProblem, UnicodeError):
        raise CallProblem("Bad Redirect", "a redirect leads to no usable http or https URI") from None
    kept = CIMultiDict(request.headers)
    if url.origin() != request.url.origin():
        _drop(kept, (*_OF_THE_ORIGIN, *request.private_headers))
    if user_information:
        kept["Authorization"] = basic(user_information)
    becomes_get = request.method == "POST" if status in (301, 302) else status == 303 and request.method != "HEAD"
    if not becomes_get:
        return HttpRequest(request.method, url, kept, request.body, request.private_headers)
    _drop(kept, _OF_THE_BODY)
    return HttpRequest("GET", url, kept, None, request.private_headers)


def _drop(headers: CIMultiDict[str], names: tuple[str, ...]) -> None:
    for name in names:
        headers.popall(name, None)


def _as_text(location: str) -> str:
    """A header's value with each byte that is no UTF-8 percent-encoded."""
    return "".join(
        f"%{ord(character) - 0xDC00:02X}" if "\udc80" <= character <= "\udcff" else character for character in location
    )


def _resolved(base: URL, reference: str) -> str:
    """A URI reference as an absolute URI, after RFC 3986, section 5.2.2; strict but for dots in absolute paths."""
    match = _REFERENCE.match(reference)
    assert match is not None
    scheme, authority, path, query = match.groups()
    if scheme is not None:
        return reference
    if authority is not None:
        return f"{base.scheme}:{reference}"
    if not path:
        path, query = base.raw_path, query if query is not None else f"?{base.raw_query_string}"
    elif not path.startswith("/"):
        path = _without_dots(base.raw_path.rpartition("/")[0] + "/" + path)
    return f"{base.origin()}{path}{query or ''}"


def _without_dots(path: str) -> str:
    """A path that begins with a slash, after RFC 3986, section 5.2.4."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
