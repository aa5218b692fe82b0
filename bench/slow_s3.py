"""A proxy before an S3 server that delays every request, in a process of its own.

In the process that is measured it would take its share of the interpreter. `python -m bench.slow_s3 ENDPOINT SECONDS`
prints its URL, then, for each line that it reads, the numbers of requests so far as a JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from agola_pytest.faults.s3_proxy import S3Proxy
from agola_pytest.servers.s3 import S3Server


class SlowS3(S3Server):
    """An S3 server whose requests take longer (see `start_slow_s3`)."""

    def __init__(self, endpoint: str, process: subprocess.Popen[str], server: S3Server) -> None:
        super().__init__(endpoint, bucket=server.bucket, place=server.place, credentials=server.credentials)
        self._proxy = process

    def requests(self) -> Counter[str]:
        """Return how many requests of each kind there were: GET, LIST, PUT, HEAD, DELETE, POST."""
        assert self._proxy.stdin is not None
        assert self._proxy.stdout is not None
        self._proxy.stdin.write("\n")
        self._proxy.stdin.flush()
        return Counter(json.loads(self._proxy.stdout.readline()))


@contextmanager
def start_slow_s3(server: S3Server, delay: float) -> Iterator[SlowS3]:
    """Run the proxy for the length of the block.

    Args:
        server: The server behind it.
        delay: Of each request, in seconds.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.slow_s3", server.endpoint, str(delay)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield SlowS3(process.stdout.readline().strip(), process, server)
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def _serve(endpoint: str, delay: float) -> None:
    with S3Proxy(S3Server(endpoint), delay) as proxy:
        print(proxy.endpoint, flush=True)
        for _ in sys.stdin:
            kinds = ("LIST" if "list-type" in request.query else request.method for request in proxy.requests)
            print(json.dumps(Counter(kinds)), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], float(sys.argv[2]))
