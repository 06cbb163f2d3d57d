"""Stage 3, journal: the distributed engine: one Temporal workflow per execution, which hosts the same walk.

The libraries come with an extra, `fastrunner[temporal]`: nothing outside imports this package before that is there.
"""
