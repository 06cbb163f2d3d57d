"""Support: what operators do with a data directory: check, compact, export."""
