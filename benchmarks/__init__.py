"""Benchmarks: what things cost, as ratios between rows of one run on one machine. `make bench` runs them."""
