"""Stage 5, tasks: `call: grpc`. `arguments` says what is to be called; `sources` gathers .proto files, which `compiler`
compiles in a process of its own, and `reflection` asks a server instead; of either comes a `described`. `messages` is
JSON to protobuf and back, `channels` the connections, `exchange` a call on the wire, `perform` all of it, `outcome`
what the workflow hears.

Rules: only `sources`, `compiler`, `reflection`, `channels`, `exchange` and `perform` do I/O. Nothing of a description
ever reaches protobuf's default pool. docs/tasks.md says what authors can rely on.
"""
