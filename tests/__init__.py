"""Support: all tests; each folder is one tier, from the core alone to killed processes."""
