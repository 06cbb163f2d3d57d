"""Support: documents whose calls are made of data: of much of it, or of what cannot be rendered."""

import json

from tests.integration.engines import document

__all__ = ["CAUGHT", "FAN_OUT", "FAN_OUT_COUNT", "ORDER", "ORDER_JSON", "UNRENDERABLE"]

_HTTP = "call: http\n{pad}with: {{method: post, endpoint: 'http://127.0.0.1:1/x', body: '{body}'}}\n"
_NO_BODY = '${ error("no body") }'
UNRENDERABLE = document("  - ask:\n      " + _HTTP.format(pad=" " * 6, body=_NO_BODY))
"""Its effect cannot be rendered."""

CAUGHT = document(
    "  - careful:\n      try:\n        - ask:\n            "
    + _HTTP.format(pad=" " * 12, body=_NO_BODY)
    + "      catch:\n        errors: {with: {status: 400}}\n        as: problem\n"
    "        do:\n          - keep:\n              set: {at: '${ $problem.instance }'}\n"
)
"""Neither can this one's, but the error is caught."""

FAN_OUT_COUNT = 100
"""Calls of FAN_OUT."""

ORDER = {"lines": [{"number": number, "text": f"line {number:04} of the order"} for number in range(400)]}
ORDER_JSON = json.dumps(ORDER).encode()
"""Input for it."""

FAN_OUT = document(
    "  - all:\n      fork:\n        branches:\n"
    + "".join(
        f"          - ask{n}:\n              " + _HTTP.format(pad=" " * 14, body="${ . }") for n in range(FAN_OUT_COUNT)
    )
)
"""Calls, all at once, that send the whole input each."""
