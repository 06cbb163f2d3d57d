"""Stage 4, walk: executions in memory and whose turn it is."""
