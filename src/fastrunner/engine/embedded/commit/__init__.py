"""Stage 3, journal: what a commit writes, counts and deletes."""
