"""A kind of task that no document has: its part, and what is driven where it is built."""
