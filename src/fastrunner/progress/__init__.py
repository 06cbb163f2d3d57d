"""Stage 6, events: our own progress events: their names and how rows of them are framed."""
