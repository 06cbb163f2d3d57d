"""Stage 5, tasks: Basic authentication (RFC 7617): name and password in every request, in UTF-8."""

import base64
from collections.abc import Mapping
from typing import Any

from fastrunner.tasks.credentials.policy import Authorization, malformed, text

__all__ = ["authorization"]


def authorization(fields: Mapping[str, Any]) -> Authorization:
    """Raises CredentialsProblem."""
    name, password = text("basic", fields, "username"), text("basic", fields, "password")
    if ":" in name:
        raise malformed("basic", "username has a colon, which would end it")
    try:
        pair = f"{name}:{password}".encode()
    except UnicodeEncodeError:
        raise malformed("basic", "username or password has an unpaired surrogate: it is no text") from None
    return Authorization("Basic", base64.b64encode(pair).decode("ascii"))
