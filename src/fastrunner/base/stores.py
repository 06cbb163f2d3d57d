"""Support: where blobs lie, by a URL: what one may be, as settings and stores read it."""

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from fastrunner.base.extras import store_refusal

__all__ = ["bucket_of", "checked_url", "folder_of"]

_SCHEMES: Final = ("file", "s3")
_EXPECTED: Final = "expected file:///folder or s3://bucket/prefix"


def checked_url(url: str) -> str:
    """The URL of a store. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{_EXPECTED}, without user information, query and fragment")
    if parts.scheme == "file" and (parts.netloc not in ("", "localhost") or len(parts.path) < 2):
        raise ValueError(f"{_EXPECTED}: a folder of this machine, by its whole path")
    if parts.scheme == "file" and "\0" in unquote(parts.path):
        raise ValueError(f"{_EXPECTED}: no folder has the character U+0000 in its name")
    if parts.scheme == "s3" and not parts.netloc:
        raise ValueError(f"{_EXPECTED}: there is no bucket in it")
    if parts.scheme == "s3" and store_refusal():
        raise ValueError(store_refusal())
    return url


def folder_of(url: str) -> Path | None:
    """The folder that a URL names; None if it names a bucket."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def bucket_of(url: str) -> tuple[str, str]:
    """The bucket that a URL names, and the prefix of all names in it."""
    parts = urlsplit(url)
    return parts.netloc, parts.path.strip("/")
