"""Stages 2 and 3: the texts from elsewhere that a document was compiled with, as they are kept beside it.

Rules: what an execution was accepted with stays with it, whatever becomes of the places that the texts came from. They
are kept as one JSON text, empty for a document that needs none, so that equal texts are equal and can be looked up.
"""

from collections.abc import Mapping
from hashlib import sha256

import orjson

__all__ = ["document_digest", "pinned_text", "texts_of"]


def pinned_text(resources: Mapping[str, str | None]) -> str:
    """Texts by reference as they are kept, without those that could not be had; see `Plan.resources`."""
    texts = {reference: text for reference, text in resources.items() if text is not None}
    return orjson.dumps(texts, option=orjson.OPT_SORT_KEYS).decode() if texts else ""


def texts_of(pinned: str) -> dict[str, str]:
    """The texts by reference. Raises ValueError for what is no such text."""
    if not pinned:
        return {}
    texts = orjson.loads(pinned)
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("no object of texts")
    return texts


def document_digest(document: str, pinned: str) -> bytes:
    """What a plan knows its document by: `Plan.digest`. Raises ValueError for texts that are none."""
    own = _hash(document)
    texts = texts_of(pinned)
    if not texts:
        return own
    return sha256(own + b"".join(_hash(name) + _hash(texts[name]) for name in sorted(texts))).digest()


def _hash(text: str) -> bytes:
    return sha256(text.encode()).digest()
