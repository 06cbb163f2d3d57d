"""Stage 3, journal: the durable engine of one machine. Only `engine` joins its rooms."""
