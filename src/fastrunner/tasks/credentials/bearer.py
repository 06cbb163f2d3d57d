"""Stage 5, tasks: bearer tokens (RFC 6750) that a document or a secret gives."""

import re
from collections.abc import Mapping
from typing import Any

from fastrunner.tasks.credentials.policy import Authorization, malformed, text

__all__ = ["authorization"]

_TOKEN = re.compile(r"[\x21-\x7e]+")


def authorization(fields: Mapping[str, Any]) -> Authorization:
    """Raises CredentialsProblem."""
    token = text("bearer", fields, "token")
    if not _TOKEN.fullmatch(token):
        raise malformed("bearer", "token has characters that no header may hold, such as spaces or line breaks")
    return Authorization("Bearer", token)
