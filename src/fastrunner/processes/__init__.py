"""Support: the process tree: the supervisor, its children, and what they share. Only this room may know all others."""
