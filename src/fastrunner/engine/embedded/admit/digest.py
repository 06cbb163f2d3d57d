"""Stage 3, journal: what makes two requests to execute the same: their digest, and the text of what goes into it.

Rules: a request that is repeated is answered as the first time, so its digest means the same in every version. Requests
that differ in a digit are different ones, although decoding may lose it: numbers that are neither integers of 64 bits
nor the shortest text of a double go into the digest with all their digits.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import orjson

from fastrunner._wire import framed
from fastrunner.engine import DefinitionRef, Submission

if TYPE_CHECKING:
    from _hashlib import HASH

__all__ = ["env_text", "ref_hash", "request_digest"]

_INT64_MIN: Final = -(2**63)
_UINT64_MAX: Final = 2**64 - 1
_DIGITS_EXACT_MAX: Final = 15
"""Every decimal number of so many digits is a double of its own, unless it is close to zero."""
_SHAPE: Final = bytes(
    0x30 if byte in b".0123456789" else 0x65 if byte in b"eE" else 0x2D if byte in b"+-" else 0x20
    for byte in range(256)
)
"""How numbers look: digits and points are `0`, signs `-`, what begins an exponent is `e`, and all else is blank."""
_LONG: Final = b"0" * (_DIGITS_EXACT_MAX + 1)
_NEAR_ZERO: Final = b"0e-000"
_SUSPECT: Final = re.compile(_LONG + b"|" + _NEAR_ZERO)
_NUMBERS_SPELT_OUT_MAX: Final = 1_000
_NO_DOCUMENT: Final = b"\xff" * 8
"""In the place of a document's size, where a request names a registered one."""


def ref_hash(ref: DefinitionRef) -> "HASH":
    """What a request's digest begins with that names a registered workflow: `latest` is the same request tomorrow."""
    hashed = sha256(_NO_DOCUMENT)
    hashed.update(framed((ref.namespace.encode(), ref.name.encode(), ref.version.encode())))
    return hashed


def env_text(env_vars: Mapping[str, str]) -> bytes:
    """The env_vars as they are stored: JSON in the order of their names."""
    return orjson.dumps(dict(env_vars), option=orjson.OPT_SORT_KEYS) if env_vars else b"{}"


def request_digest(submission: Submission, document: "HASH", env_json: bytes) -> bytes:
    """Equal for requests that ask for the same; the order of an input's keys is no difference.

    `document` has taken in the document already, or the name of a registered one.
    """
    digest = document.copy()
    input_json, metadata = orjson.dumps(submission.input_value, option=orjson.OPT_SORT_KEYS), submission.metadata
    limits_text = b"%d %d" % (submission.timeout_s_max, submission.debug)
    parts: tuple[bytes, ...] = (input_json, env_json, metadata, limits_text)
    if submission.labels or submission.silent:
        # Nothing where there are none, so that digests of earlier versions stay what they were. No text is like it.
        labels_json = orjson.dumps(dict(submission.labels), option=orjson.OPT_SORT_KEYS)
        parts += (b"\0labels", labels_json, b"\0silent" if submission.silent else b"")
    shape = submission.input_json.translate(_SHAPE)
    if _LONG in shape or _NEAR_ZERO in shape:
        spelt_out = _spelt_out(submission.input_json, shape)
        if spelt_out:
            parts += (spelt_out,)
    digest.update(framed(parts))
    return digest.digest()


def _spelt_out(text: bytes, shape: bytes) -> bytes:
    """The input with each number that decoding changes as a text of its digits; empty if there is none.

    With very many of them it is the text as it came, where the order of keys is a difference.
    """
    # With escapes out of the way every quote begins or ends a string.
    quotes = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    parts: list[bytes] = []
    done_at = counted_at = quotes_count = 0
    for suspect in _SUSPECT.finditer(shape):
        if suspect.start() < done_at:
            continue
        quotes_count += quotes.count(b'"', counted_at, suspect.start())
        counted_at = suspect.start()
        begin = shape.rfind(b" ", 0, counted_at) + 1
        end = shape.find(b" ", counted_at)
        end = len(text) if end < 0 else end
        digits = b"" if quotes_count % 2 else _digits_lost(text[begin:end])
        if digits:
            parts += (text[done_at:begin], b'"\\u0000', digits, b'"')
            done_at = end
        if len(parts) > 4 * _NUMBERS_SPELT_OUT_MAX:
            return text
    if not parts:
        return b""
    parts.append(text[done_at:])
    return orjson.dumps(orjson.loads(b"".join(parts)), option=orjson.OPT_SORT_KEYS)


def _digits_lost(number: bytes) -> bytes:
    """A number in the one way to write it, if decoding does not keep it; else nothing."""
    if number.lstrip(b"-").isdigit() and len(number) <= 20 and _INT64_MIN <= int(number) <= _UINT64_MAX:
        return b""
    written = _plain(number)
    return b"" if written == _plain(repr(float(number)).encode()) else written


def _plain(number: bytes) -> bytes:
    """The same for every way to write a number: its digits without zeros around them, and the place of the point."""
    mantissa, _, exponent = number.lower().partition(b"e")
    whole, _, fraction = mantissa.lstrip(b"-").partition(b".")
    digits = (whole + fraction).lstrip(b"0")
    if not digits:
        return b"0"
    sign = b"-" if mantissa.startswith(b"-") else b""
    significant = digits.rstrip(b"0")
    if len(exponent) > 20:
        # Beyond any number that has a double: far below every other one.
        return sign + significant + b"e" + exponent
    place = int(exponent or b"0") - len(fraction) + len(digits) - len(significant)
    return b"%s%se%d" % (sign, significant, place)
