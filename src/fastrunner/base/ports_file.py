"""Support: `ports.json`: which ports the runner of a data directory listens on, as others on its machine find it."""

import json
from pathlib import Path
from typing import Any

__all__ = ["ports_in"]


def ports_in(data_dir: Path) -> dict[str, Any]:
    """What a runner wrote into its data directory; empty if none has."""
    try:
        ports = json.loads((data_dir / "ports.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return ports if isinstance(ports, dict) else {}
