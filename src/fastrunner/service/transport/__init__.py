"""Stage 1, service: the one transport under the handlers: HTTP/2 on sockets of the loop, which `_http2` understands."""
