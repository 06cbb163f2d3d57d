"""Support: text from outside as it may be shown to people: on one line, and without power over a terminal.

Ids, names, reasons, error texts and what a receiver answers are other people's words. Printed as they are, a newline
forges a line of a log and an escape sequence recolours, moves or types.
"""

import re
from typing import Final

__all__ = ["escaped_json", "printable"]

_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls: with them terminals are driven
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction: with them what is read differs from what is there
    "\u2028\u2029"  # lines to some
    "\ud800-\udfff]"  # halves of characters, which cannot be written
)


def printable(text: str) -> str:
    """The text with escapes (`\\n`, `\\x1b`, `\\u202e`) in place of what does not print as itself."""
    return text if text.isprintable() else _UNPRINTABLE.sub(_escape, text)


def escaped_json(text: str) -> str:
    """JSON text of one line, the same to a program, with JSON's escapes in place of what does not print as itself."""
    return text if text.isprintable() else _UNPRINTABLE.sub(_escape_json, text)


def _escape_json(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    code = ord(character)
    return _ESCAPES.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
