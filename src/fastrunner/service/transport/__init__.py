"""Stage 1, service: the one transport under the handlers: grpcio's completion queue on the loop's own thread."""
