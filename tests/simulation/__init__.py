"""A runner of one or several workers (engine, store, callback pipeline, service) in a world without threads, sockets or
real time.

    python -m tests.simulation --seeds 1000 [--first 0]

Everything that happens follows from the seed: an event loop with a virtual clock, commits and receivers that fail when
the seed says so, lives of workers and of the whole runner that end by a kill or a drain. A failing seed fails again.
"""
