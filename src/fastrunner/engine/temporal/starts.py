"""Stage 3, journal: from an accepted request to the input, the memo and the search attributes of its workflow.

Rule: clients and parents start the same: what is known of an execution without asking its workflow is in the memo.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
)

from fastrunner._core import Plan
from fastrunner.base import limits
from fastrunner.engine.temporal.messages import WalkStart
from fastrunner.errors import InvalidRequest, TooLarge

__all__ = ["ATTRIBUTES", "LABELS", "Memo", "check_env", "check_size", "keywords", "typed"]

ATTRIBUTES: Final = ("FastrunnerNamespace", "FastrunnerName", "FastrunnerVersion", "FastrunnerPhase")
"""Search attributes that are keywords."""
LABELS: Final = "FastrunnerLabels"
"""The one that is a list of them: `name=value` each."""


@dataclass(frozen=True)
class Memo:
    """What the memo of a workflow has."""

    digest: str
    """The request's, in hexadecimal; of a child empty."""
    namespace: str
    """The document's."""
    name: str
    """The document's."""
    version: str
    """The document's."""
    accepted_ms: int
    """When it was accepted, in milliseconds since the epoch."""
    metadata: str = ""
    """The request's WorkflowMetadata, serialized, in base64."""
    labels: Mapping[str, str] | None = None
    """What the caller calls it."""
    parent_id: str = ""
    """Who has started it; empty if a client has."""
    document_metadata_json: str = ""
    """JSON text of the document's `metadata`."""

    def entries(self) -> dict[str, Any]:
        """As Temporal has it."""
        return {"fastrunner": {name: value for name, value in vars(self).items() if value}}

    @classmethod
    def of(
        cls, plan: Plan, accepted_ms: int, digest: bytes, metadata: bytes, labels: Mapping[str, str], parent_id: str
    ) -> "Memo":
        """That of an execution of a plan."""
        of_document = plan.document["document"].get("metadata")
        return cls(
            digest=digest.hex(),
            namespace=plan.namespace,
            name=plan.name,
            version=plan.version,
            accepted_ms=accepted_ms,
            metadata=b64encode(metadata).decode(),
            labels=dict(labels),
            parent_id=parent_id,
            document_metadata_json="" if of_document is None else orjson.dumps(of_document).decode(),
        )


def keywords(plan: Plan) -> dict[str, str]:
    """The search attributes of an execution that begins, but for labels."""
    return dict(zip(ATTRIBUTES, (plan.namespace, plan.name, plan.version, "running"), strict=True))


def typed(words: Mapping[str, str], labels: Mapping[str, str]) -> TypedSearchAttributes:
    """The same with labels, as Temporal wants them."""
    pairs: list[SearchAttributePair[Any]] = [
        SearchAttributePair(SearchAttributeKey.for_keyword(name), value) for name, value in words.items()
    ]
    if labels:
        values: Sequence[str] = [f"{name}={value}" for name, value in sorted(labels.items())]
        pairs.append(SearchAttributePair(SearchAttributeKey.for_keyword_list(LABELS), values))
    return TypedSearchAttributes(pairs)


def check_size(start: WalkStart) -> None:
    """Raises TooLarge for what nothing has room for; with a blob store the service's own bounds hold."""
    size_bytes, bound = 0 if start.has_blobs else start.size_bytes, limits.TEMPORAL_PAYLOAD_SIZE_BYTES_MAX
    if size_bytes > bound:
        raise TooLarge(
            f"document, input and env_vars have {size_bytes} bytes together: at most {bound} are allowed where "
            "Temporal keeps executions (TEMPORAL_SERVICE_ADDRESS) without a blob store (FASTRUNNER_BLOB_URL)"
        )


def check_env(plan: Plan, env: Mapping[str, str], is_sealed: bool) -> None:
    """Raises InvalidRequest for a variable that the document holds to be secret, where histories are not sealed."""
    for name in () if is_sealed else plan.secrets:
        if name in env:
            raise InvalidRequest(
                "env_vars",
                f"env_vars has {name!r}, which the document names in use.secrets: env_vars are data, kept in histories "
                "that nothing seals, so give the value to the runner as a secret, choose another name for the "
                "variable, or have histories sealed (FASTRUNNER_TEMPORAL_KEY_FILE)",
            )
