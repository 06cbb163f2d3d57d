"""Stage 3, journal: what makes two requests to execute the same: their digest, and the text of what goes into it.

Rule: a request that is repeated is answered as the first time, so its digest means the same in every version.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from fastrunner.engine import Submission

if TYPE_CHECKING:
    from _hashlib import HASH

__all__ = ["env_text", "request_digest"]


def env_text(env_vars: Mapping[str, str]) -> bytes:
    """The env_vars as they are stored: JSON in the order of their names."""
    return orjson.dumps(dict(env_vars), option=orjson.OPT_SORT_KEYS) if env_vars else b"{}"


def request_digest(submission: Submission, document: "HASH", input_value: object, env_json: bytes) -> bytes:
    """Equal for requests that ask for the same; the order of an input's keys is no difference.

    `document` has taken in the document already.
    """
    digest = document.copy()
    input_json, metadata = orjson.dumps(input_value, option=orjson.OPT_SORT_KEYS), submission.metadata
    limits_text = b"%d %d" % (submission.timeout_s_max, submission.debug)
    parts = (input_json, env_json, metadata, limits_text)
    digest.update(b"".join([each for part in parts for each in (len(part).to_bytes(8, "little"), part)]))
    return digest.digest()
