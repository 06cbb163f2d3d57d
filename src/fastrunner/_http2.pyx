"""Stage 1 of the data path, service, compiled: HTTP/2 and gRPC's messages as a server has them. The assembly root;
`_http2.pyi` is its contract, `http2/` its parts."""

include "http2/tables.pxi"
include "http2/fields.pxi"
include "http2/hpack.pxi"
include "http2/frames.pxi"
include "http2/output.pxi"
include "http2/calls.pxi"
include "http2/bounds.pxi"
include "http2/session.pxi"
