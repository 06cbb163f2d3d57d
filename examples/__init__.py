"""Support: workflows to learn from, the service they call, and what the demo and the tests expect of them."""
