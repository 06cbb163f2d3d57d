"""Support: blob stores for tests: a folder, and a server that speaks S3, in this process."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from unittest.mock import patch
from uuid import uuid4

from tests.outside import require

__all__ = ["serving_s3"]


@contextmanager
def serving_s3() -> Iterator[str]:
    """A server with one empty bucket, and the environment to reach it; gives the URL of a store in it."""
    require(find_spec("moto"), "moto", module=True)
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    try:
        with patch.dict("os.environ", environment):
            # What one server was given the next one of this process has, too.
            bucket = f"tests-{uuid4().hex}"
            urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/{bucket}", method="PUT")).read()
            yield f"s3://{bucket}/some/prefix"
    finally:
        server.stop()
