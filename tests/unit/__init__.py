"""Support: tests of single modules of the process around the core."""
