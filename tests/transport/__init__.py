"""Conformance of our own serving side: a real server in a process of its own, driven by clients of all kinds."""
