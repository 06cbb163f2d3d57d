"""Support: a registry of container images that stands for Docker Hub, and an engine that knows no other.

Rule: images are made of a static busybox, so that they run without anything else.
"""

import hashlib
import json
import platform
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.integration.containers import Podman, layer_of

__all__ = ["HELLO", "docker_hub"]

HELLO = "Hello from Docker!\n"
_IMAGES = {"library/hello-world": ("/bin/echo", HELLO.strip()), "library/alpine": ("/bin/sh",)}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class _Images:
    """What the registry has: manifests by name, everything else by digest."""

    def __init__(self, busybox: bytes) -> None:
        self.blobs: dict[str, bytes] = {}
        layer = layer_of(busybox)
        self.manifests = {name: self._manifest(layer, command) for name, command in _IMAGES.items()}

    def _manifest(self, layer: bytes, command: Sequence[str]) -> bytes:
        rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
        machine = platform.machine()
        config = {
            "architecture": _ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Cmd": command},
            "rootfs": rootfs,
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._kept("config.v1+json", json.dumps(config).encode()),
            "layers": [self._kept("layer.v1.tar", layer)],
        }
        return json.dumps(manifest).encode()

    def _kept(self, kind: str, blob: bytes) -> dict[str, object]:
        self.blobs[_digest(blob)] = blob
        return {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": _digest(blob),
            "size": len(blob),
        }

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def manifest(self, request: web.Request) -> web.Response:
        body = self.manifests[request.match_info["name"]]
        return web.Response(body=body, content_type=_MANIFEST, headers={"Docker-Content-Digest": _digest(body)})

    async def blob(self, request: web.Request) -> web.Response:
        return web.Response(body=self.blobs[request.match_info["digest"]])


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


@asynccontextmanager
async def docker_hub(podman: Podman, folder: Path, busybox: bytes) -> AsyncIterator[None]:
    """Has an engine pull from the stand-in whatever it would from Docker Hub."""
    images = _Images(busybox)
    app = web.Application()
    app.router.add_get("/v2/", images.version)
    app.router.add_get("/v2/{name:.+}/manifests/{tag}", images.manifest)
    app.router.add_get("/v2/{name:.+}/blobs/{digest}", images.blob)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    registries = folder / "registries.conf"
    registries.write_text(
        'unqualified-search-registries = ["docker.io"]\n'
        f'[[registry]]\nprefix = "docker.io"\nlocation = "127.0.0.1:{runner.addresses[0][1]}"\ninsecure = true\n'
    )
    podman.variables["CONTAINERS_REGISTRIES_CONF"] = str(registries)
    try:
        yield
    finally:
        await runner.cleanup()
