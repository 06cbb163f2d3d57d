"""Support: the HTTP API, `/api/v1`: what it serves, over a backend that answers.

    guard -> operations -> Backend                shapes say what bodies are, openapi tells it

Rule: nothing here knows who answers; what a backend does not have it refuses.
"""
