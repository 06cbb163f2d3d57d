"""Stage 5, tasks: how long a text over HTTP is good for, and how to ask whether it still is.

Rules: pure, no I/O, no clock but the one that is given. RFC 9111 as a private cache has it: what a server says of
caches that many share is passed over, because who asks is a part of what a text is kept by.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

from fastrunner.base import limits

__all__ = ["Freshness"]

_HEADERS: Final = ("Age", "Cache-Control", "Date", "ETag", "Expires", "Last-Modified", "Vary")
_OF_ONE_RESPONSE: Final = ("Age", "Date")
_DIRECTIVE: Final = re.compile(r'([A-Za-z-]+)(?:\s*=\s*(?:"([^"]*)"|([^\s,"]*)))?')


@dataclass(frozen=True, slots=True)
class Freshness:
    """What a response says of being kept."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Those that say so, by the names they have in `_HEADERS`; repeated ones joined by a comma."""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Freshness":
        """What a response's headers say; a mapping whose names are compared as HTTP has it."""
        return cls({name: headers[name] for name in _HEADERS if name in headers})

    def renewed(self, headers: Mapping[str, str]) -> "Freshness":
        """The same text after a server has said that it has not changed."""
        lasting = {name: value for name, value in self.headers.items() if name not in _OF_ONE_RESPONSE}
        return Freshness({**lasting, **Freshness.of(headers).headers})

    @property
    def is_storable(self) -> bool:
        """Whether the text may be kept at all."""
        return "no-store" not in self._directives()

    @property
    def conditions(self) -> dict[str, str]:
        """The headers that ask whether the text is still the same; none where the server gave no validator."""
        names = (("ETag", "If-None-Match"), ("Last-Modified", "If-Modified-Since"))
        return {condition: self.headers[name] for name, condition in names if self.headers.get(name)}

    def fresh_s(self, now_ms: int) -> float:
        """Seconds for which the text is good without asking. `now_ms`: the wall clock when it came."""
        directives = self._directives()
        if "no-cache" in directives or self.headers.get("Vary", "").strip() == "*":
            return 0.0
        age_s = _seconds(self.headers.get("Age", "")) or 0.0
        if "max-age" in directives:
            # What is no number is as good as 0: a server that wants its text kept says so.
            lifetime_s = _seconds(directives["max-age"]) or 0.0
        elif "Expires" in self.headers:
            expires_s = _moment_s(self.headers["Expires"])
            sent_s = _moment_s(self.headers.get("Date", ""))
            lifetime_s = 0.0 if expires_s is None else expires_s - (now_ms / 1000 if sent_s is None else sent_s)
        else:
            lifetime_s = limits.DESCRIPTION_FRESH_S
        return min(max(lifetime_s - age_s, 0.0), limits.DESCRIPTION_FRESH_S_MAX)

    def _directives(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, quoted, bare in _DIRECTIVE.findall(self.headers.get("Cache-Control", "")):
            found.setdefault(name.lower(), quoted or bare)
        return found


def _seconds(text: str) -> float | None:
    text = text.strip()
    return float(min(int(text[:12]), 10**9)) if text.isascii() and text.isdigit() else None


def _moment_s(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
