"""fastrunner: a durable, very fast runner for Open Workflow DSL 1.0 documents, behind gRPC."""

from fastrunner._version import __version__

__all__ = ["__version__"]
