"""Stage 3, journal: the registry of one worker: look-ups on the loop, everything else in a thread of its own.

RegisterWorkflow -> the engine compiles -> register -> durable in the file -> reply
`workflow_ref`, `run: workflow` -> find -> the text, which the engine's plan cache knows by itself
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fastrunner.base.clock import wall_ms
from fastrunner.engine import Definition, DefinitionRef
from fastrunner.engine.pinned import pinned_text
from fastrunner.registry.file import After, RegistryFile
from fastrunner.registry.folder import Compile, load_folder

if TYPE_CHECKING:
    from fastrunner._core import Plan

__all__ = ["Registry"]

T = TypeVar("T")


class Registry:
    """The definitions that this worker and all the others have registered."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the data directory."""
        self._reading = RegistryFile(folder)
        self._writing = RegistryFile(folder)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")

    def find(self, ref: DefinitionRef) -> Definition:
        """One version, or the highest one. Raises UnknownWorkflow, Damaged, StorageFailed, StorageFull."""
        return self._reading.find(ref)

    async def look_up(self, ref: DefinitionRef) -> Definition:
        """See Lookups."""
        return self.find(ref)

    async def register(self, plan: "Plan", document: str) -> tuple[Definition, bool]:
        """Registers what a document says it is; also whether this call has done it. Durable, and seen by every worker,
        when it returns. Raises AlreadyRegistered, StorageFailed, StorageFull."""
        ref, pinned = DefinitionRef(plan.namespace, plan.name, plan.version), pinned_text(plan.resources)
        created = await self._in_thread(lambda: self._writing.register(ref, document, wall_ms(), pinned))
        return self.find(ref), created

    async def delete(self, ref: DefinitionRef) -> None:
        """Removes a version. Durable, and seen by every worker, when it returns. Raises UnknownWorkflow, StorageFailed,
        StorageFull."""
        await self._in_thread(lambda: self._writing.delete(ref))

    async def page(
        self, namespace: str, name: str, within: frozenset[str] | None, after: After | None, count_max: int
    ) -> list[Definition]:
        """Definitions after a place, of some namespaces (None: of all), ordered by namespace and name, the highest
        version first. Raises StorageFailed."""
        return await self._in_thread(lambda: self._writing.page(namespace, name, within, after, count_max))

    async def _in_thread(self, action: "Callable[[], T]") -> "T":
        # Whoever asked may leave; what has begun is finished.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, action))

    async def load(self, folder: Path, compile_document: Compile) -> None:
        """Registers every document of a folder, as `load_folder` does."""
        await load_folder(self, folder, compile_document)

    async def has_text(self, document: str) -> bool:
        """Whether some version is registered with a text, and undamaged. Raises StorageFailed."""
        return self._reading.has_text(document)

    def close(self) -> None:
        """Waits for what is being written, and gives the file back."""
        self._thread.shutdown(wait=True)
        self._writing.close()
        self._reading.close()
