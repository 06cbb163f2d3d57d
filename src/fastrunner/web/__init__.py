"""Support: the HTTP process of a runner: metrics, health, readiness."""
