"""Stage 5, tasks: OpenID Connect: the discovery document of an authority, and how long it may be kept.

Rules: pure, no I/O. An authority that is asked over TLS sends nobody to an endpoint without.
"""

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from yarl import URL

from fastrunner.base import limits
from fastrunner.tasks.credentials.policy import CredentialsProblem

__all__ = ["Discovery", "discovery_of", "freshness_s"]

_MAX_AGE = re.compile(r'(?:^|[,\s])max-age\s*=\s*"?(\d{1,9})', re.IGNORECASE)
_UNKEPT = re.compile(r"(?:^|[,\s])(?:no-store|no-cache)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What is used of a discovery document."""

    issuer: str
    """Who the authority says it is."""
    token_endpoint: str
    """Where it gives tokens."""
    tag: str
    """Its ETag; empty if it has none."""
    until_s: float
    """How long it may be used unasked, on the monotonic clock."""


def discovery_of(url: URL, status: int, body: bytes, tag: str, until_s: float) -> Discovery:
    """The document in a response. Raises CredentialsProblem."""
    host = url.host_port_subcomponent
    if status >= 500 or status == 429:
        sentence = f"the authority at {host} answered discovery with status {status}"
        raise CredentialsProblem("communication", status, "Authority Unavailable", sentence)
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    issuer, endpoint = (said.get("issuer"), said.get("token_endpoint")) if isinstance(said, dict) else (None, None)
    if status != 200 or not isinstance(issuer, str) or not isinstance(endpoint, str):
        raise CredentialsProblem(
            "authentication", 401, "Authority Unusable", f"the authority at {host} gave no discovery document"
        )
    if url.scheme == "https" and not endpoint.lower().startswith("https://"):
        raise CredentialsProblem(
            "authentication", 401, "Authority Unusable", f"the authority at {host} names a token endpoint without TLS"
        )
    return Discovery(issuer, endpoint, tag, until_s)


def freshness_s(headers: Mapping[str, str]) -> float:
    """Seconds a response may be used unasked (RFC 9111)."""
    control = headers.get("Cache-Control", "")
    if _UNKEPT.search(control):
        return 0.0
    age_s = float(headers["Age"]) if headers.get("Age", "").isdecimal() else 0.0
    match = _MAX_AGE.search(control)
    if match is not None:
        lasts_s = float(match[1])
    elif "Expires" in headers:
        lasts_s = _between_s(headers.get("Date", ""), headers["Expires"])
    else:
        lasts_s = limits.DISCOVERY_UNDATED_S
    return min(max(0.0, lasts_s - age_s), limits.DISCOVERY_S_MAX)


def _between_s(date: str, expires: str) -> float:
    """From one HTTP date to another; 0 if one is none, which means that it has passed."""
    try:
        return (email.utils.parsedate_to_datetime(expires) - email.utils.parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return 0.0
