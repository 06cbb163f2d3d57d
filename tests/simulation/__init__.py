"""The engine, its store and the callback pipeline in a world without threads, sockets or real time.

    python -m tests.simulation --seeds 1000 [--first 0]

Everything that happens follows from the seed: an event loop with a virtual clock, commits and receivers that fail when
the seed says so, lives of the runner that end by a kill or a drain. A failing seed fails again.
"""
