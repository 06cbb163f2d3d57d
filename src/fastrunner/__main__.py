"""Support: `python -m fastrunner`."""

from fastrunner.cli import main

main(prog_name="fastrunner")
