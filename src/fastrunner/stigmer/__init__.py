"""Support: a reference Stigmer Service: receives progress, checks it, keeps it."""
