"""Stage 1, routing: where an execution lives, and the way there. It knows no service."""
