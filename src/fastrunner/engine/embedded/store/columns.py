"""Stage 3, journal: of which types the columns of what is read are.

Rules: tables are strict, so a value of another type, or none where there must be one, is damage to the row. Who reads
looks at the types first, so that nothing after has to expect them.
"""

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, Final

__all__ = ["INSPECTED", "READ", "RESEALED", "are_sound"]

_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "i": int,
    "s": str,
    "b": bytes,
    "I": (int, NoneType),
    "S": (str, NoneType),
    "B": (bytes, NoneType),
    "?": object,
}

READ: Final[Mapping[str, str]] = {
    "select_acceptance": "ibs",
    "select_deadlines": "iis",
    "select_deletable": "iisi",
    "select_ended": "iiiiii",
    "select_event_facts": "ssiiisS",
    "select_events": "iibii",
    "select_env": "b",
    "select_execution": "sssssiiiiiSSbsssiii",
    "select_feed": "iissssiibii",
    "select_feed_bounds": "ii",
    "select_filter": "bis",
    "select_ids": "s",
    "select_inbox": "iBI",
    "select_large_value": "b",
    "select_listeners": "iisiiiibisi",
    "select_listeners_of": "iisiiiibisi",
    "select_may_take": "s",
    "select_next_events": "I",
    "select_orders": "ssis",
    "select_parent": "siii",
    "select_plan": "ssb",
    "select_plan_key_of": "i",
    "select_position": "i",
    "select_progress": "iii",
    "select_running": "i",
    "select_standing": "sii",
    "select_spans": "isb",
    "select_taken": "i",
    "select_trace": "s",
    "select_unacknowledged": "isiiibii",
    "select_undeliverable": "iisi",
    "select_undelivered_ids": "siii",
    "select_unfinished": "isbiiiiiiBBISBIIs",
    "select_unfinished_head": "isbiiiiii",
    "select_unsent": "iii",
    "select_untold": "ississs",
}
"""One letter for each column of a statement of `queries.sql`; a capital one for what may be missing."""

INSPECTED: Final[Mapping[str, str]] = {
    "claims": "isi",
    "event_inbox": "isiii",
    "events": "iSiibii",
    "events_taken": "iS",
    "executions": "issiiiiSSiiiiiIb",
    "export": "isssssiiiiiSSii",
    "export_events": "iibii",
    "inbox_events": "ibii",
    "large_value": "b",
    "large_values": "bbi",
    "listeners": "iSibi",
    "orders": "iSis",
    "plans": "ibssisssi",
    "requests": "iSibbsii",
    "snapshots": "iSb",
}
"""The same of `inspect.sql`."""

RESEALED: Final[Mapping[str, str]] = {
    "events": "isiiibii",
    "executions": "isbsiiSSii",
    "inbox_events": "ibi",
    "large_values": "ibb",
    "listeners": "isiibi",
    "requests": "isibbsii",
    "snapshots": "isb",
}
"""The same of `reseal.sql`."""


def are_sound(types: str, row: Sequence[Any]) -> bool:
    """Whether the values of a row are of such types."""
    return all(isinstance(value, _TYPES[letter]) for letter, value in zip(types, row, strict=True))
