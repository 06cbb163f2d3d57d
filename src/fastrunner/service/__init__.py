"""Stage 1, service: gRPC requests in, replies and streams out.

Handlers (`handlers`, `queries`, `batch`) know no transport: method name, request bytes and call facts in; reply bytes,
now or after a commit, or a stream, out. `transport` serves them over grpcio's completion queue (`call_queue`); the
router calls the same handlers for requests that other workers forward. This package's `__init__` imports nothing, so
that `routing` and `methods` can be used where grpc must not be imported.
"""
