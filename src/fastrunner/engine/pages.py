"""Stage 3, journal: pages of listings, and how those of several places become one.

Rule: a page that was cut, for its size or for what it would have cost to go on, says up to where it holds everything.
What lies beyond that in another part's page may not be given out yet: something that was cut may come before it.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Page", "merged"]

T = TypeVar("T")

Place = tuple[int, str]
"""(accepted_ms, execution_id): where an execution stands in a listing, which goes from the greatest to the least."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a listing, newest first."""

    items: Sequence[T]
    """What is shown."""
    complete_to: Place | None = None
    """Everything that is to be listed from the page's beginning to here, included, is on it; None: there is no more."""


def merged(pages: Iterable[Page[T]], place_of: Callable[[T], Place], count_max: int) -> Page[T]:
    """One page of at most `count_max` items, of which `pages` are the parts; each in its order."""
    parts = list(pages)
    ends = [part.complete_to for part in parts if part.complete_to is not None]
    complete_to = max(ends) if ends else None
    items: list[T] = []
    for item in heapq.merge(*(part.items for part in parts), key=place_of, reverse=True):
        if complete_to is not None and place_of(item) < complete_to:
            break
        if len(items) == count_max:
            return Page(items, place_of(items[-1]))
        items.append(item)
    return Page(items, complete_to)
