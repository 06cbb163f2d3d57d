"""Stage 3, journal: whether and as what a request is taken."""
