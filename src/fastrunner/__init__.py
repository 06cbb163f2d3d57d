"""fastrunner: a durable, very fast runner for Open Workflow DSL 1.x documents, behind gRPC."""

from fastrunner._version import __version__

__all__ = ["__version__"]
