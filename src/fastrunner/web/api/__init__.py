"""Support: the HTTP API, `/api/v1`: what it serves, over a backend that answers.

    guard -> operations -> Backend                shapes say what bodies are, openapi tells it

Rule: nothing here knows who answers; what a backend does not have it refuses.
"""

from typing import Final

__all__ = ["PREFIX"]

PREFIX: Final = "/api/v1"
"""Where the paths of all operations begin."""
