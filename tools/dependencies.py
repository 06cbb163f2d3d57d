"""Prints the run-time dependencies of pyproject.toml, those of its extras included, one per line: for `pip install`."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = [each for name, extra in project["optional-dependencies"].items() if name != "all" for each in extra]
print("\n".join([*project["dependencies"], *extras]))
