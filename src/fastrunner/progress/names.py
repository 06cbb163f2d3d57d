"""Stage 6, events: the words of our progress events: statuses, and the events that end an execution."""

from typing import Final

STATUSES: Final = ("pending", "running", "completed", "failed", "cancelled", "paused")
"""What an execution can be."""

FINAL_STATUSES: Final = frozenset({"completed", "failed", "cancelled"})
"""What it stays for ever."""

TERMINAL_EVENTS: Final = frozenset(f"workflow_{status}" for status in FINAL_STATUSES)
"""Exactly one of them is an execution's last event."""

STATE_EVENTS: Final = TERMINAL_EVENTS | {"workflow_started", "workflow_paused", "workflow_resumed"}
"""Those that say that an execution is something else than before."""
