"""Prints the run-time dependencies of pyproject.toml, one per line, quoted for no shell: for `pip install`."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
print("\n".join(project["project"]["dependencies"]))
