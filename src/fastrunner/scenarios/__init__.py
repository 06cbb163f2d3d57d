"""Support: `fastrunner test`: documents executed by the core in virtual time, against what their scenarios expect.

    files.py     scenario files, read and checked
    stubs.py     what answers in the place of calls, runs and subflows
    drive.py     one execution: the walk, and a clock that jumps
    verdict.py   what came of it beside what was expected
    report.py    what is printed, and JUnit's XML

Rules: nothing is connected to, nothing is run, no clock is read; the same file has the same verdict everywhere.
"""
