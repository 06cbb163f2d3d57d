"""Stage 5, tasks: how long a server asks to be left alone: `Retry-After` of RFC 9110.

Rules: pure. A date is taken against the server's own clock where its response tells it, so that a clock that is wrong
changes nothing. What cannot be read asks for nothing; what asks for very long asks for the most there is.
"""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from multidict import CIMultiDictProxy

from fastrunner.base import limits

__all__ = ["retry_after_ms"]

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?", re.ASCII)


def retry_after_ms(headers: CIMultiDictProxy[str], now_ms: int) -> int:
    """The longest that a response asks for, in milliseconds; 0 if for nothing."""
    asked_s = [_asked_s(headers, value.strip(), now_ms) for value in headers.getall("Retry-After", ())]
    return int(min(max([0.0, *asked_s]), limits.HTTP_RETRY_AFTER_S_MAX) * 1000)


def _asked_s(headers: Mapping[str, str], value: str, now_ms: int) -> float:
    if _SECONDS.fullmatch(value):
        return float(value)
    until_s = _moment_s(value)
    if until_s is None:
        return 0.0
    server_s = _moment_s(headers.get("Date", ""))
    return until_s - (now_ms / 1000 if server_s is None else server_s)


def _moment_s(date: str) -> float | None:
    """An HTTP date, in any of its three forms, as seconds since the epoch; None if it is none."""
    try:
        moment = parsedate_to_datetime(date)
        # The third form says no zone; all three mean GMT.
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (IndexError, OverflowError, TypeError, ValueError):
        return None
