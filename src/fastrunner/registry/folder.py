"""Stage 3, journal: workflow documents in a folder, which are registered at start."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from fastrunner.engine import Definition
from fastrunner.errors import RunnerError

if TYPE_CHECKING:
    from fastrunner._core import Plan

__all__ = ["Compile", "load_folder"]

_log = logging.getLogger(__name__)

_SUFFIXES: Final = frozenset((".yaml", ".yml", ".json"))

Compile = Callable[[str], "Awaitable[Plan]"]
"""Makes a plan of a document. Raises DocumentRefused and other refusals."""


class _Registering(Protocol):
    async def has_text(self, document: str) -> bool: ...

    async def register(self, plan: "Plan", document: str) -> tuple[Definition, bool]: ...


async def load_folder(registry: _Registering, folder: Path, compile_document: Compile) -> None:
    """Registers every document of a folder, and of those below it. What is wrong with one is logged, and keeps none of
    the others away. Nothing is fetched again for a text that is registered."""
    files = await asyncio.to_thread(lambda: sorted(_documents_in(folder)))
    registered_count = 0
    for path in files:
        try:
            document = await asyncio.to_thread(partial(path.read_text, encoding="utf-8"))
            if not await registry.has_text(document):
                _, created = await registry.register(await compile_document(document), document)
                registered_count += created
        except (RunnerError, OSError, UnicodeDecodeError) as error:
            _log.error("the workflow in %s is not registered: %s", path, error)
    _log.info("%d of the %d workflows in %s are newly registered", registered_count, len(files), folder)


def _documents_in(folder: Path) -> Iterator[Path]:
    """Files of workflows by their names. Kubernetes mounts files as links, beside folders that begin with two dots."""
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.suffix.lower() in _SUFFIXES and not any(part.startswith(".") for part in inside) and path.is_file():
            yield path
