"""Support: tests against the DSL: its schema, its conformance kit, its examples and ours."""
