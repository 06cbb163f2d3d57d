"""Support: tests that kill processes and look at what is left."""
