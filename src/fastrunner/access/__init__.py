"""Support: who may call, where calls may go, and what workflows may know."""
