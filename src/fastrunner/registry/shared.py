"""Stage 3, journal: the registry of all replicas that share a blob store.

    registry/versions/<namespace>/<name>/<version>    document, its resources, and a hash of both
    registry/texts/<SHA-256 of a document>            which version has it: so that folders are loaded without fetching

Rules: a version is written if nobody has before, in one step, so of two replicas that register another text one is
refused. What was registered never changes, but for a damaged copy that comes again. Every look-up asks the store what
there is, one request; a text is read once and known by its mark afterwards.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from fastrunner.base import limits
from fastrunner.blobs import BlobMissing, BlobStore, Listed
from fastrunner.engine import Definition, DefinitionRef
from fastrunner.engine.pinned import pinned_text
from fastrunner.errors import AlreadyRegistered, Damaged, UnknownWorkflow
from fastrunner.registry.folder import Compile, load_folder
from fastrunner.registry.versions import rank_of

if TYPE_CHECKING:
    from fastrunner._core import Plan

__all__ = ["SharedRegistry"]

_VERSIONS: Final = "registry/versions/"
_TEXTS: Final = "registry/texts/"
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
"""What namespaces, names and versions of accepted documents are; nothing else is registered."""


@dataclass(frozen=True, slots=True)
class _Texts:
    """What is written of a version."""

    document: str
    pinned: str


class SharedRegistry:
    """The definitions that all replicas have registered."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._known: OrderedDict[tuple[str, str], _Texts] = OrderedDict()
        """By name and mark."""

    async def look_up(self, ref: DefinitionRef) -> Definition:
        """See Lookups. Raises UnknownWorkflow, Damaged, StorageFailed."""
        versions = await self._versions_of(ref)
        latest = max(versions, key=_place_of, default=None)
        version = ref.version or latest
        if latest is None or version not in versions:
            raise UnknownWorkflow(ref.namespace, ref.name, ref.version)
        found = DefinitionRef(ref.namespace, ref.name, version)
        try:
            texts = await self._read(found, versions[version])
        except BlobMissing:
            # Deleted meanwhile.
            raise UnknownWorkflow(ref.namespace, ref.name, ref.version) from None
        return Definition(found, versions[version].modified_ms, version == latest, texts.document, texts.pinned)

    async def register(self, plan: "Plan", document: str) -> tuple[Definition, bool]:
        """See WorkflowRegistry. Durable, and seen by every replica, when it returns. Raises AlreadyRegistered,
        StorageFailed."""
        ref = DefinitionRef(plan.namespace, plan.name, plan.version)
        name = _name_of(ref)
        data = _written(_Texts(document, pinned_text(plan.resources)))
        created = await self._blobs.put_new(name, data)
        if not created:
            there = _read_texts((await self._blobs.get(name)).data)
            if there is None:
                await self._blobs.put(name, data)
            elif there.document != document:
                raise AlreadyRegistered(ref.namespace, ref.name, ref.version)
        await self._blobs.put(_text_name(document), name.encode())
        return await self.look_up(ref), created

    async def delete(self, ref: DefinitionRef) -> None:
        """See WorkflowRegistry. Raises UnknownWorkflow, StorageFailed."""
        if ref.version not in await self._versions_of(ref):
            raise UnknownWorkflow(ref.namespace, ref.name, ref.version)
        await self._blobs.delete(_name_of(ref))

    async def page(
        self,
        namespace: str,
        name: str,
        within: frozenset[str] | None,
        after: tuple[str, str, str] | None,
        count_max: int,
    ) -> list[Definition]:
        """See WorkflowRegistry. Raises StorageFailed."""
        if not all(_WORD.fullmatch(word) for word in (namespace, name) if word):
            return []
        below = f"{_VERSIONS}{namespace}/{name}/" if namespace and name else f"{_VERSIONS}{namespace}/"
        found: dict[tuple[str, str], dict[str, Listed]] = {}
        async for listed in self._blobs.names(below if namespace else _VERSIONS):
            of_namespace, of_name, version = listed.name.removeprefix(_VERSIONS).split("/")
            if (not name or of_name == name) and (within is None or of_namespace in within):
                found.setdefault((of_namespace, of_name), {})[version] = listed
        page: list[Definition] = []
        for key in sorted(found):
            versions = sorted(found[key], key=_place_of, reverse=True)
            for version in versions:
                if after is None or _is_after((*key, version), after):
                    ref, registered_ms = DefinitionRef(*key, version), found[key][version].modified_ms
                    page.append(Definition(ref, registered_ms, version == versions[0]))
                    if len(page) == count_max:
                        return page
        return page

    async def load(self, folder: Path, compile_document: Compile) -> None:
        """Registers every document of a folder, as `load_folder` does."""
        await load_folder(self, folder, compile_document)

    async def has_text(self, document: str) -> bool:
        """Whether some version is registered with a text, and undamaged. Raises StorageFailed."""
        try:
            name = (await self._blobs.get(_text_name(document))).data.decode()
            texts = _read_texts((await self._blobs.get(name)).data)
        except BlobMissing:
            return False
        return texts is not None and texts.document == document

    def close(self) -> None:
        """There is nothing to give back."""

    async def _versions_of(self, ref: DefinitionRef) -> dict[str, Listed]:
        """All versions of a workflow."""
        if not (_WORD.fullmatch(ref.namespace) and _WORD.fullmatch(ref.name)):
            return {}
        prefix = f"{_VERSIONS}{ref.namespace}/{ref.name}/"
        return {listed.name.removeprefix(prefix): listed async for listed in self._blobs.names(prefix)}

    async def _read(self, ref: DefinitionRef, listed: Listed) -> _Texts:
        known = self._known.get((listed.name, listed.mark))
        if known is not None:
            self._known.move_to_end((listed.name, listed.mark))
            return known
        blob = await self._blobs.get(listed.name)
        texts = _read_texts(blob.data)
        if texts is None:
            raise Damaged(f"the registered document of {ref} is damaged: register it again")
        self._known[listed.name, blob.mark] = texts
        if len(self._known) > limits.PLANS_CACHED_MAX:
            self._known.popitem(last=False)
        return texts


def _name_of(ref: DefinitionRef) -> str:
    return f"{_VERSIONS}{ref.namespace}/{ref.name}/{ref.version}"


def _text_name(document: str) -> str:
    return f"{_TEXTS}{sha256(document.encode()).hexdigest()}"


def _place_of(version: str) -> tuple[bytes, str]:
    return rank_of(version), version


def _is_after(place: tuple[str, str, str], after: tuple[str, str, str]) -> bool:
    """Whether a definition comes later in lists: by namespace and name, the highest version first."""
    if place[:2] != after[:2]:
        return place[:2] > after[:2]
    return not after[2] or _place_of(place[2]) < _place_of(after[2])


def _written(texts: _Texts) -> bytes:
    proven = orjson.dumps([texts.document, texts.pinned])
    return sha256(proven).hexdigest().encode() + b"\n" + proven


def _read_texts(data: bytes) -> _Texts | None:
    """What was written; None if it is damaged."""
    digest, _, proven = data.partition(b"\n")
    if sha256(proven).hexdigest().encode() != digest:
        return None
    return _Texts(*orjson.loads(proven))
