"""Stage 3, journal: the payload codec: what lies in Temporal's histories, seen from outside.

    value -> JSON -> over 256 KiB: a blob, and a claim to it -> sealed -> history
    history -> opened -> a claim: the blob, proven by its hash, and opened -> JSON -> value

Rules:
- The SDK has payloads encoded and decoded outside of workflow code, so this may do I/O; a failure here fails the task
  of the workflow or the activity, which Temporal has done again.
- Whether something is sealed or a claim it says itself, so histories that were begun without a key or a blob store, or
  with an earlier key, stay readable.
- A blob is of one execution and the day it was written: `payloads/<day>/<owner>/<SHA-256>`. The owner is the execution
  that a client has started; its children's blobs are its own, for histories of parents have results of children. So
  what may be deleted is known by a look at Temporal, and nobody writes anew where somebody may be deleting.
- A large value is sealed by its hash, so that the same one is the same blob again.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import orjson
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    DefaultFailureConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from fastrunner.access.sealing import NotOpened, Sealer
from fastrunner.base import clock, limits
from fastrunner.blobs import BlobMissing, BlobStore
from fastrunner.engine.temporal.payloads import Values
from fastrunner.errors import Unavailable

__all__ = ["PAYLOADS", "Codec", "NotReadable", "converter_of", "day_of", "execution_of", "owner_of"]

PAYLOADS: Final = "payloads/"
"""Below it lie the blobs of payloads."""

_SEALED: Final = b"binary/encrypted"
"""The encoding of a payload that is sealed: what Temporal's own tools call such ones."""
_CLAIM: Final = b"fastrunner/claim"
"""The encoding of a payload that says where another one lies."""
_CONTEXT: Final = b"temporal payload"
_SHARED: Final = "shared"
"""The owner of what belongs to no execution."""
_ESCAPED: Final = re.compile("_([0-9a-f]{2})")
_SEGMENT_SIZE_CHARS_MAX: Final = 200
_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")


class NotReadable(Unavailable):
    """A payload cannot be read here; the message says what is missing."""

    def __init__(self, why: str) -> None:
        super().__init__(f"what Temporal has cannot be read here: {why}")


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a payload says about the blob that it stands for."""

    name: str
    """Of the blob; it ends with the SHA-256 of what is written there."""
    digest: str = ""
    """SHA-256 of the payload, in hexadecimal; of one that is not sealed empty."""


@dataclass(slots=True)
class _Recent:
    """Blobs that this worker has lately written or read."""

    data_by_name: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    size_bytes: int = 0

    def get(self, name: str) -> bytes | None:
        data = self.data_by_name.get(name)
        if data is not None:
            self.data_by_name.move_to_end(name)
        return data

    def add(self, name: str, data: bytes) -> None:
        if name in self.data_by_name or len(data) > limits.TEMPORAL_BLOBS_CACHED_SIZE_BYTES_MAX:
            return
        self.data_by_name[name] = data
        self.size_bytes += len(data)
        while self.size_bytes > limits.TEMPORAL_BLOBS_CACHED_SIZE_BYTES_MAX:
            self.size_bytes -= len(self.data_by_name.popitem(last=False)[1])


class Codec(PayloadCodec):
    """Seals payloads, and puts large ones elsewhere, where they are nobody's in particular."""

    def __init__(
        self, sealer: Sealer | None, blobs: BlobStore | None, execution_id: str = "", recent: _Recent | None = None
    ) -> None:
        self._sealer = sealer
        self._blobs = blobs
        self._execution_id = execution_id
        """To which blobs belong."""
        self._recent = recent or _Recent()

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See PayloadCodec. Raises StorageFailed."""
        return [await self._encoded(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See PayloadCodec. Raises NotReadable, StorageFailed."""
        return [await self._decoded(payload) for payload in payloads]

    async def _encoded(self, payload: Payload) -> Payload:
        if self._blobs is not None and payload.ByteSize() > limits.TEMPORAL_INLINE_SIZE_BYTES_MAX:
            payload = await self._put(self._blobs, payload.SerializeToString(deterministic=True))
        if self._sealer is None:
            return payload
        sealed = self._sealer.seal(payload.SerializeToString(), _CONTEXT)
        return Payload(metadata={"encoding": _SEALED}, data=sealed)

    async def _put(self, blobs: BlobStore, data: bytes) -> Payload:
        digest = sha256(data).digest()
        if self._sealer is not None:
            data = self._sealer.seal_by_hash(data, digest)
        name = f"{PAYLOADS}{day_of(clock.wall_ms())}/{owner_of(self._execution_id)}/{sha256(data).hexdigest()}"
        if self._recent.get(name) is None:
            await blobs.put(name, data)
            self._recent.add(name, data)
        claim = {"name": name} if self._sealer is None else {"name": name, "digest": digest.hex()}
        return Payload(metadata={"encoding": _CLAIM}, data=orjson.dumps(claim))

    async def _decoded(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") == _SEALED:
            payload = Payload.FromString(self._opened(payload.data, _CONTEXT))
        if payload.metadata.get("encoding") == _CLAIM:
            claim = _Claim(**orjson.loads(payload.data))
            data = await self._get(claim.name)
            if claim.digest:
                data = self._opened(data, bytes.fromhex(claim.digest))
            payload = Payload.FromString(data)
        return payload

    def _opened(self, data: bytes, context: bytes) -> bytes:
        if self._sealer is None:
            raise NotReadable("it is sealed: give this runner the FASTRUNNER_TEMPORAL_KEY_FILE of the others")
        try:
            return self._sealer.open(data, context)
        except NotOpened as error:
            raise NotReadable(f"it {error}") from None

    async def _get(self, name: str) -> bytes:
        if self._blobs is None:
            raise NotReadable("it lies in a blob store: give this runner the FASTRUNNER_BLOB_URL of the others")
        data = self._recent.get(name)
        if data is not None:
            return data
        try:
            data = (await self._blobs.get(name)).data
        except BlobMissing:
            raise NotReadable(f"there is no {name} in the blob store: is FASTRUNNER_BLOB_URL the others'?") from None
        if sha256(data).hexdigest() != name.rpartition("/")[2]:
            raise NotReadable(f"{name} in the blob store is not what was written")
        self._recent.add(name, data)
        return data


class _OwnedCodec(Codec, WithSerializationContext):
    """A codec whose blobs belong to executions."""

    def with_context(self, context: SerializationContext) -> "_OwnedCodec":
        """The same for what belongs to an execution."""
        execution_id = ""
        if isinstance(context, WorkflowSerializationContext | ActivitySerializationContext):
            execution_id = context.workflow_id or ""
        if execution_id == self._execution_id:
            return self
        return _OwnedCodec(self._sealer, self._blobs, execution_id, self._recent)


def converter_of(sealer: Sealer | None, blobs: BlobStore | None) -> DataConverter:
    """How a client of Temporal makes payloads of values. With keys the messages of failures are sealed, too."""
    failures = DefaultFailureConverter if sealer is None else DefaultFailureConverterWithEncodedAttributes
    # For a codec that asks whose a payload is the library makes a converter anew, several times for each payload.
    codec = Codec(sealer, None) if blobs is None else _OwnedCodec(sealer, blobs)
    return DataConverter(Values, payload_codec=codec, failure_converter_class=failures)


def day_of(at_ms: int) -> str:
    """The day of a moment, as names have it: eight digits, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y%m%d")


def owner_of(execution_id: str) -> str:
    """Whose the blobs of an execution are, as names have it: the one that a client has started. `shared` where an id,
    that of a child whose parents' ids are long, does not say who that is."""
    root = execution_id.partition("~")[0]
    if not root:
        return _SHARED
    # `_` is none of the plain ones, so no two ids become one, and none becomes `shared` but with its mark.
    text = "".join(char if char in _PLAIN else "".join(f"_{byte:02x}" for byte in char.encode()) for char in root)
    text = f"{text}_"
    return "/".join(text[at : at + _SEGMENT_SIZE_CHARS_MAX] for at in range(0, len(text), _SEGMENT_SIZE_CHARS_MAX))


def execution_of(owner: str) -> str | None:
    """Whose blobs an owner's are, again; None if they are nobody's in particular."""
    if owner == _SHARED:
        return None
    text = owner.replace("/", "").removesuffix("_")
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text).encode("latin-1").decode()
