"""Support: tests of the compiled core alone, without I/O."""
