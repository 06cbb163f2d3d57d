"""Stage 1, service: gRPC requests in, replies and streams out.

Handlers (`handlers`, `submissions`, `queries`) know no transport: method name, request bytes and call facts in; reply
bytes, now or after a commit, or a stream, out. `transport/` serves them over HTTP/2; links between
workers call the same handlers for requests that others forward. This package's `__init__` imports nothing, so
that `methods` can be used where grpc must not be imported.
"""
