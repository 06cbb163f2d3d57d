"""Stage 5, tasks: the evaluated arguments of `call: http` as the request that is sent.

Rules: pure, no I/O; what cannot be sent is refused before a socket opens; an expanded URI is never encoded twice; no
problem's text holds a value, because values may be secrets.
"""

import base64
import io
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import orjson
from multidict import CIMultiDict
from yarl import URL

from fastrunner import __version__
from fastrunner.base import limits
from fastrunner.tasks.call_http import charsets
from fastrunner.tasks.call_http.codings import ACCEPTED
from fastrunner.tasks.call_http.content import MediaType
from fastrunner.tasks.scalars import json_kind, scalar_text

__all__ = ["HttpRequest", "RequestProblem", "basic", "check_head", "headers_of", "origin_of", "parse_uri", "prepare"]

FORM = "application/x-www-form-urlencoded"

_RUNNER_HEADERS = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Framing and hop-by-hop headers: they follow from the request and the connection; a wrong one desynchronizes both.
`Expect` would have the request wait for a server that says nothing; the runner sends bodies at once."""

_LARGE_BODY_SIZE_BYTES = 1_048_576
"""From here on a body is streamed into the socket instead of copied in one piece."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_URI = re.compile(r"(https?)://([^/?#\\]*)([^#]*)", re.IGNORECASE | re.DOTALL)
_ENCODED = re.compile(r"https?%3A", re.IGNORECASE)
_HOST = re.compile(r"(?=.{1,253}\.?$)(?:[A-Za-z0-9_~\-]{1,63}\.)*[A-Za-z0-9_~\-]{1,63}\.?")
_PORT = re.compile(r"(?::[0-9]{0,5})?", re.ASCII)
_METHOD_SIZE_CHARS_MAX = 32
"""Longer than any registered method: texts of errors name it."""
_SHOWN_NAME_SIZE_CHARS_MAX = 100
_NOT_IN_URI = re.compile(r"%(?![0-9A-Fa-f]{2})|[^!$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]")
_NOT_IN_KEY = re.compile(r"[^!-$&-~]")


class RequestProblem(ValueError):
    """Arguments no request can be made of. `type` is a DSL error's short name; the text never holds a value."""

    def __init__(self, type_: str, detail: str) -> None:
        super().__init__(detail)
        self.type = type_
        """`configuration`, or `expression` for a value of the wrong JSON type."""
        self.detail = detail
        """One sentence naming the argument."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request, ready to be sent."""

    method: str
    """In upper case."""
    url: URL
    """Percent-encoded, with the query, without user information and fragment."""
    headers: CIMultiDict[str]
    """All but those the connection decides."""
    body: bytes | None
    """None sends no body."""
    private_headers: tuple[str, ...] = ()
    """Names of headers that prove the caller: they stay within the origin, and nobody is shown them."""

    @property
    def data(self) -> bytes | io.BytesIO | None:
        """The body in the form the client sends best."""
        if self.body is not None and len(self.body) > _LARGE_BODY_SIZE_BYTES:
            return io.BytesIO(self.body)
        return self.body


def prepare(arguments: Mapping[str, Any], idempotency_key: str) -> HttpRequest:
    """The request for rendered arguments (see `Plan.render`). Raises RequestProblem.

    Whatever else is performed as such a request may give the body as bytes, with their Content-Type, and
    `private_headers`: names of headers that prove the caller.
    """
    try:
        method = _method(arguments["method"])
        url, user_information = _url(arguments["uri"], arguments.get("query"))
        headers = headers_of(arguments.get("headers"))
        body = _body(arguments.get("body"), headers)
        headers.setdefault("Idempotency-Key", _NOT_IN_KEY.sub(_percent_encoded, idempotency_key))
    except UnicodeEncodeError:
        raise RequestProblem("configuration", "the request holds characters that its encoding cannot carry") from None
    if user_information:
        headers.setdefault("Authorization", basic(user_information))
    if arguments.get("authentication") is not None and "Authorization" in headers:
        raise RequestProblem(
            "configuration",
            "the endpoint has `authentication` beside an Authorization header, or user information in its URI: leave "
            "one of them out",
        )
    headers.setdefault("User-Agent", f"fastrunner/{__version__}")
    headers.setdefault("Accept-Encoding", ACCEPTED)
    check_head(url, headers)
    return HttpRequest(method, url, headers, body, tuple(arguments.get("private_headers", ())))


def check_head(url: URL, headers: CIMultiDict[str]) -> None:
    """Raises RequestProblem for more than servers take."""
    size_bytes = len(str(url)) + sum(len(name) + len(value.encode()) for name, value in headers.items())
    if size_bytes > limits.HTTP_HEADERS_SIZE_BYTES_MAX:
        raise RequestProblem(
            "configuration",
            f"endpoint, query and headers take more than {limits.HTTP_HEADERS_SIZE_BYTES_MAX} bytes: "
            "send large data as the body",
        )


def _method(given: Any) -> str:
    if not isinstance(given, str):
        raise RequestProblem("expression", f"method is {json_kind(given)}, a string is needed")
    method = given.strip().upper()
    if not _TOKEN.fullmatch(method) or method == "CONNECT" or len(method) > _METHOD_SIZE_CHARS_MAX:
        raise RequestProblem("configuration", "method is not one a call can use")
    return method


def _url(uri: Any, query: Any) -> tuple[URL, str]:
    """The URL to request, and the URI's user information (empty if none)."""
    if not isinstance(uri, str):
        raise RequestProblem("expression", f"endpoint is {json_kind(uri)}, a string is needed")
    pairs = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in _pairs(query, "query"))
    return parse_uri(uri.strip(), pairs)


def parse_uri(uri: str, query: str = "") -> tuple[URL, str]:
    """The URL of an absolute http or https URI with more of a query, and its user information (empty if none).

    Characters no URI may hold are percent-encoded; everything else stays as it is. Raises RequestProblem and
    UnicodeEncodeError.
    """
    match = _URI.match(uri)
    if match is None:
        hint = ": {name} percent-encodes what it stands for; build whole URIs in ${ }" if _ENCODED.match(uri) else ""
        raise RequestProblem("configuration", f"endpoint is not an absolute http or https URI{hint}")
    scheme, authority, rest = match.groups()
    user_information, _, host_and_port = authority.rpartition("@")
    origin = origin_of(scheme.lower(), host_and_port)
    rest = _NOT_IN_URI.sub(_percent_encoded, rest)
    if not rest.startswith("/"):
        rest = "/" + rest
    if query:
        joint = "" if rest.endswith(("?", "&")) else "&" if "?" in rest else "?"
        rest += joint + query
    return URL(f"{origin}{rest}", encoded=True), user_information


def origin_of(scheme: str, host_and_port: str) -> URL:
    """The origin of a host that can be looked up and a port that can be connected to. Raises RequestProblem.

    Addresses have no zones: those that need one are on the link, where no call may go.
    """
    end = host_and_port.find("]") + 1 or host_and_port.find(":")
    port = host_and_port[end:] if end >= 0 else ""
    try:
        origin = URL(f"{scheme}://{host_and_port}").origin()
        host = origin.raw_host or ""
        if host_and_port.startswith("["):
            host = "" if "%" in host else host
            ipaddress.IPv6Address(host)
    except ValueError:
        host = ""
    if not _PORT.fullmatch(port) or not (":" in host or _HOST.fullmatch(host)) or origin.port == 0:
        raise RequestProblem("configuration", "endpoint names no valid host and port")
    return origin


def _percent_encoded(match: re.Match[str]) -> str:
    return quote(match[0], safe="")


def basic(user_information: str) -> str:
    """The Authorization header that a URI's user information stands for."""
    user, _, password = user_information.partition(":")
    return "Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode("ascii")


def headers_of(given: Any) -> CIMultiDict[str]:
    """The headers that a map stands for, none of which can be taken for another part of a request. Raises
    RequestProblem and UnicodeEncodeError."""
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in _pairs(given, "headers"):
        if not _TOKEN.fullmatch(name):
            raise RequestProblem("configuration", "headers has a name that is no HTTP token")
        if name.lower() in _RUNNER_HEADERS:
            raise RequestProblem("configuration", f"header {name} is the runner's to set: leave it out")
        if _CONTROL_CHARACTER.search(value):
            shown = name[:_SHOWN_NAME_SIZE_CHARS_MAX]
            raise RequestProblem("configuration", f"header {shown} has a control character in its value")
        # Lone surrogates are refused here, not by the client half-way through writing.
        value.encode()
        headers.add(name, value.strip())
    return headers


def _body(body: Any, headers: CIMultiDict[str]) -> bytes | None:
    """The body's bytes; sets Content-Type unless the author did."""
    if body is None or isinstance(body, bytes):
        return body
    media_type = MediaType.parse(headers.get("Content-Type"))
    if isinstance(body, str) and not media_type.is_json:
        headers.setdefault("Content-Type", "text/plain; charset=utf-8")
        return charsets.encode(body, media_type.charset)
    if isinstance(body, dict) and media_type.essence == FORM:
        return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in _pairs(body, "body")).encode()
    headers.setdefault("Content-Type", "application/json")
    return _json(body)


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # orjson refuses integers beyond 64 bits, which jq can make; the standard library writes them exactly.
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        except RecursionError:
            raise RequestProblem("expression", "body is nested too deeply") from None


def _pairs(given: Any, argument: str) -> Iterable[tuple[str, str]]:
    """Names and values of a map: an array repeats its name, null drops it, scalars become text."""
    if given is None:
        return
    if not isinstance(given, dict):
        raise RequestProblem("expression", f"{argument} is {json_kind(given)}, a map is needed")
    for name, value in given.items():
        for item in value if isinstance(value, list) else (value,):
            if item is not None:
                yield name, _text(item, argument)


def _text(value: Any, argument: str) -> str:
    text = scalar_text(value)
    if text is None:
        raise RequestProblem("expression", f"{argument} holds {json_kind(value)}, where only scalars can be sent")
    return text
