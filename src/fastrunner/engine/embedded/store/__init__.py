"""Stage 3, journal: the files of a data directory."""
