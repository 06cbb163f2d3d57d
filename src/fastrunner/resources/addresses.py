"""Stage 2, compile: where a text really is: pages of code hosts that show a file stand for the file itself.

Rules: pure, no I/O. What is no page of a code host stays as it is.
"""

import re
from typing import Final

__all__ = ["raw_url"]

_GITHUB: Final = re.compile(r"https://(?:www\.)?github\.com/([^/]+/[^/]+)/(?:(?:blob|tree|raw)/(.+)|(functions/[^?]+))")
_GITLAB: Final = re.compile(r"(https://(?:[^/]*\.)?gitlab\.[^/]+/.+?)/(?:-/(?:blob|tree|raw)/(.+)|(functions/[^?]+))")


def raw_url(url: str) -> str:
    """The URL of a file's text. A repository without a branch, as catalogs name it, is taken at its default one."""
    found = _GITHUB.fullmatch(url)
    if found is not None:
        return f"https://raw.githubusercontent.com/{found[1].removesuffix('.git')}/{found[2] or f'HEAD/{found[3]}'}"
    found = _GITLAB.fullmatch(url)
    if found is not None:
        return f"{found[1].removesuffix('.git')}/-/raw/{found[2] or f'HEAD/{found[3]}'}"
    return url
