"""Support: the goals of the runner, each measured as a ratio or a figure in one run; `python -m benchmarks.goals`."""
