"""Support: what every part may use: clocks, logs, crash points, bounds. It knows nobody above it."""
