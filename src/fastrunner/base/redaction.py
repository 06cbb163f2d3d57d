"""Support: values that no text for people may show: secrets, and what proves a caller.

Rules: whoever reads or is given such a value tells it here before anything else; logs and errors that hold texts from
outside pass through `redact`. Data is never changed. Values below SECRET_HIDDEN_SIZE_CHARS_MIN are not looked for: they
are parts of ordinary words.
"""

import base64
import json
from collections import OrderedDict
from typing import Any
from urllib.parse import quote, quote_plus

from fastrunner.base import limits

__all__ = ["HIDDEN", "hide", "redact"]

HIDDEN = "***"

_hidden: OrderedDict[str, tuple[str, ...]] = OrderedDict()
"""Each value with the forms it takes in URIs, in JSON and in base64, the latest last."""


def hide(value: Any) -> None:
    """Texts in a JSON value are hidden from here on; of very many the latest."""
    if isinstance(value, str):
        if len(value) >= limits.SECRET_HIDDEN_SIZE_CHARS_MIN:
            if value not in _hidden:
                _hidden[value] = _forms(value)
            _hidden.move_to_end(value)
            while len(_hidden) > limits.SECRETS_HIDDEN_MAX:
                _hidden.popitem(last=False)
    elif isinstance(value, dict):
        for part in value.values():
            hide(part)
    elif isinstance(value, list):
        for part in value:
            hide(part)


def redact(text: str) -> str:
    """The text without hidden values."""
    for forms in _hidden.values():
        for form in forms:
            if form in text:
                text = text.replace(form, HIDDEN)
    return text


def _forms(value: str) -> tuple[str, ...]:
    escaped = json.dumps(value)[1:-1]
    plain = json.dumps(value, ensure_ascii=False)[1:-1]
    raw = value.encode("utf-8", "surrogatepass")
    encoded = base64.b64encode(raw).decode()
    forms = {value, escaped, plain, quote(raw, safe=""), quote(raw), quote_plus(raw), encoded}
    return tuple(sorted(forms, key=len, reverse=True))
