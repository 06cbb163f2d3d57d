"""The codec server as a real process: what Temporal's UI and command line are shown, and who is shown it."""

import asyncio
import base64
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from fastrunner.access.callers import line_of
from fastrunner.access.sealing import DataKeys, Sealer, add_key
from fastrunner.base import limits
from fastrunner.blobs.directory import Directory
from tests.outside import require

require(find_spec("temporalio"), "temporalio", module=True)

UI = "http://localhost:8233"
LARGE = {"n": "x" * limits.TEMPORAL_INLINE_SIZE_BYTES_MAX}
SMALL = {"n": "a-value-of-these-tests"}


@contextlib.asynccontextmanager
async def serving(environment: Mapping[str, str], *options: str) -> AsyncIterator[str]:
    """A codec server; gives its URL."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("FASTRUNNER_", "TEMPORAL_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fastrunner", "temporal", "codec-server", "--port", "0", "--ui-origin", UI, *options,
        env={**inherited, "TEMPORAL_SERVICE_ADDRESS": "127.0.0.1:9", **environment}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield f"http://127.0.0.1:{json.loads(line)['serving']['http_port']}"
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0


def settings(folder: Path) -> dict[str, str]:
    add_key(folder / "keys", "one")
    (folder / "callers").write_text(
        "\n".join(
            [
                line_of("ui", "read,submit", "", "frt_ui"),
                line_of("reader", "read", "", "frt_reader"),
                line_of("shop", "read,submit", "shop", "frt_shop"),
            ]
        )
    )
    return {
        "FASTRUNNER_TEMPORAL_KEY_FILE": str(folder / "keys"),
        "FASTRUNNER_BLOB_URL": f"file://{folder}/blobs",
        "FASTRUNNER_CALLERS_FILE": str(folder / "callers"),
    }


async def sealed(folder: Path) -> Any:
    """Payloads as replicas with the same settings write them, as JSON."""
    from google.protobuf import json_format
    from temporalio.api.common.v1 import Payloads

    from fastrunner.engine.temporal.codec import converter_of

    converter = converter_of(Sealer(DataKeys.read(folder / "keys")), Directory(folder / "blobs"))
    return json_format.MessageToDict(Payloads(payloads=await converter.encode([SMALL, LARGE])))


def values_in(body: bytes) -> list[Any]:
    from google.protobuf import json_format
    from temporalio.api.common.v1 import Payloads

    return [json.loads(payload.data) for payload in json_format.Parse(body, Payloads()).payloads]


async def test_the_ui_is_shown_what_is_sealed(tmp_path: Path) -> None:
    """Small and large values; what it encodes is sealed; pages of other origins and other callers are refused."""
    environment = settings(tmp_path)
    given = await sealed(tmp_path)
    as_ui = {"Authorization": "Bearer frt_ui", "Origin": UI, "X-Namespace": "default"}
    async with serving(environment) as url, aiohttp.ClientSession() as client:
        asked = {"Origin": UI, "Access-Control-Request-Method": "POST"}
        async with client.options(f"{url}/decode", headers=asked) as allowed:
            assert (allowed.status, allowed.headers["Access-Control-Allow-Origin"]) == (204, UI)
            assert {"authorization", "x-namespace"} <= set(allowed.headers["Access-Control-Allow-Headers"].split(", "))
        async with client.post(f"{url}/decode", json=given, headers=as_ui) as shown:
            assert (shown.status, shown.headers["Access-Control-Allow-Origin"]) == (200, UI)
            plain = await shown.read()
            assert values_in(plain) == [SMALL, LARGE]
        async with client.post(f"{url}/encode", data=plain, headers=as_ui) as encoded:
            body = await encoded.read()
            assert encoded.status == 200
            assert b"binary/encrypted" not in plain
            assert SMALL["n"].encode() not in body
        async with client.post(f"{url}/decode", data=body, headers={"Authorization": "Bearer frt_reader"}) as again:
            assert values_in(await again.read()) == [SMALL, LARGE]
        refused = [
            ("/decode", {**as_ui, "Origin": "http://evil.example"}, 403),
            ("/decode", {**as_ui, "Host": "evil.example"}, 421),
            ("/decode", {"Origin": UI}, 401),
            ("/decode", {"Authorization": "Bearer frt_other"}, 401),
            ("/decode", {"Authorization": "Bearer frt_shop"}, 403),
            ("/encode", {"Authorization": "Bearer frt_reader"}, 403),
            ("/other", as_ui, 404),
        ]
        for path, headers, status in refused:
            async with client.post(f"{url}{path}", json=given, headers=headers) as answer:
                assert answer.status == status, (path, headers)
                assert "evil" not in answer.headers.get("Access-Control-Allow-Origin", "")
        for body, status in ((b"[]", 400), (b'{"payloads": 1}', 400), (b"{", 400)):
            async with client.post(f"{url}/decode", data=body, headers=as_ui) as answer:
                assert answer.status == status
        huge = io.BytesIO(b" " * (limits.CODEC_BODY_SIZE_BYTES_MAX + 1))
        async with client.post(f"{url}/decode", data=huge, headers=as_ui) as answer:
            assert answer.status == 413
        lost = orjson.loads(orjson.dumps(given))
        add_key(tmp_path / "others", "other")
        stranger = Sealer(DataKeys.read(tmp_path / "others"))
        lost["payloads"][0]["data"] = base64.b64encode(stranger.seal(b"", b"")).decode()
        async with client.post(f"{url}/decode", json=lost, headers=as_ui) as answer:
            assert answer.status == 503
            assert "'other', which FASTRUNNER_TEMPORAL_KEY_FILE has not" in (await answer.json())["detail"]


@pytest.mark.parametrize(
    ("options", "without", "why"),
    [
        (["--host", "0.0.0.0"], "FASTRUNNER_CALLERS_FILE", "nothing tells them apart"),
        (["--ui-origin", "localhost"], "", "is no origin"),
        ([], "TEMPORAL_SERVICE_ADDRESS", "TEMPORAL_SERVICE_ADDRESS"),
    ],
)
def test_servers_that_do_not_start(tmp_path: Path, options: list[str], without: str, why: str) -> None:
    environment = {**os.environ, "TEMPORAL_SERVICE_ADDRESS": "127.0.0.1:9", **settings(tmp_path)}
    environment.pop(without, None)
    command = [sys.executable, "-m", "fastrunner", "temporal", "codec-server", "--port", "0", "--ui-origin", UI]
    ended = subprocess.run(
        [*command, *options], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert why in ended.stderr
