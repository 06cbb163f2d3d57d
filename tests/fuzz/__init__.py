"""Fuzz targets: bytes chosen by a fuzzer become programs and data; each module's first line states what must hold."""
