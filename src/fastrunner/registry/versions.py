"""Stage 3, journal: the order of versions, as bytes that sort like SemVer.

    1.2.0-alpha < 1.2.0-alpha.1 < 1.2.0-beta < 1.2.0 < 1.10.0

Rule: build metadata is no part of the order; where versions differ in nothing else, their text decides.
"""

from typing import Final

__all__ = ["rank_of"]

_NUMBER: Final = b"\x01"
_WORD: Final = b"\x02"
_END: Final = b"\x00"
_RELEASE: Final = b"\xff"


def rank_of(version: str) -> bytes:
    """What a semantic version sorts by."""
    precedence, _, _ = version.partition("+")
    core, separator, pre_release = precedence.partition("-")
    rank = b"".join(_number(part) for part in core.split("."))
    if not separator:
        return rank + _RELEASE
    return rank + b"".join(map(_identifier, pre_release.split("."))) + _END


def _number(digits: str) -> bytes:
    """More digits are a higher number; SemVer has no leading zeros."""
    return len(digits).to_bytes(4, "big") + digits.encode()


def _identifier(text: str) -> bytes:
    """Numbers come before words."""
    return _NUMBER + _number(text) if text.isdigit() else _WORD + text.encode() + _END
