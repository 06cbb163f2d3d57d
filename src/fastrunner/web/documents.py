"""Support: documents as the HTTP API shows them: the text, where its tasks stand, and the ways between them.

Rules: of what serves HTTP this alone knows the core; a large document is read in steps, between which others have
their turn.
"""

import asyncio
from collections.abc import Generator
from typing import Final, TypeVar

from fastrunner import _core
from fastrunner.diagram.graph import graph_of, json_of
from fastrunner.web.api import shapes

__all__ = ["LOAD_STEP_UNITS", "document_of", "graph_of_document", "stepped"]

T = TypeVar("T")

LOAD_STEP_UNITS: Final = 1_000
"""Half a millisecond of reading YAML."""


async def document_of(document: str) -> shapes.Document:
    """A document that validates, with the places of its tasks."""
    says = (await stepped(_core.load_in_steps(document, LOAD_STEP_UNITS)))["document"]
    places = await stepped(_core.outline_in_steps(document, LOAD_STEP_UNITS))
    names = tuple(shapes.TaskPlace.model_fields)
    return shapes.Document.model_construct(
        namespace=says["namespace"],
        name=says["name"],
        version=says["version"],
        document=document,
        tasks=[shapes.TaskPlace.model_construct(**{name: getattr(place, name) for name in names}) for place in places],
    )


async def graph_of_document(document: str) -> bytes:
    """JSON text of a Graph of a document that validates."""
    data = await stepped(_core.load_in_steps(document, LOAD_STEP_UNITS))
    # A thread, because a graph of thousands of tasks takes a tenth of a second, and is seldom asked for.
    return await asyncio.to_thread(lambda: json_of(graph_of(data)))


async def stepped(steps: Generator[None, None, T]) -> T:
    """What a generator returns; between its steps others have their turn."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            outcome: T = end.value
            return outcome
        await asyncio.sleep(0)
