"""commit-etcd: WALs of one 1 KiB put from 32 threads on a real etcd, beside bare puts from 32 threads.

The reference is what the etcd3 package does for `put`: one `KV.Put` call each, on one connection, here with the
same message definitions. Both take turns on the same etcd.
"""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path

import grpc

import agola_core
from agola_core import Put
from agola_pytest.servers.etcd import EtcdMissingError, start_etcd
from bench.commits.commit import PAYLOAD
from bench.machine import workplace
from bench.result import Line
from bench.turns import Work, compared, take_turns

BUDGET = 20.0
THREADS = 32


def run() -> list[Line]:
    try:
        with tempfile.TemporaryDirectory(dir=workplace()) as directory, start_etcd(Path(directory) / "etcd") as etcd:
            return _measure(Path(directory), etcd.endpoint, etcd.url("bench"))
    except EtcdMissingError as error:
        print(f"commit-etcd is left out: {error}")
        return []


def _measure(root: Path, endpoint: str, url: str) -> list[Line]:
    from agola_core.coordinator.etcd import messages as rpc

    method = rpc._method("KV", "Put")
    with (
        agola_core.open(storage=str(root / "storage"), coordinator=url, data_types=["object"]) as dm,
        grpc.insecure_channel(endpoint) as channel,
    ):
        bare = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)

        numbers = count()

        def put(_: int) -> None:
            bare(method.request(key=b"bare/%d" % next(numbers), value=PAYLOAD))

        def commit(_: int) -> None:
            dm.write_wal([Put("object", str(next(numbers)), PAYLOAD)])

        works: dict[str, tuple[Work, int]] = {
            "put-1": (put, 1),
            "ours-1": (commit, 1),
            "put-32": (put, THREADS),
            "ours-32": (commit, THREADS),
        }
        found = take_turns(works, budget=BUDGET)
    return [
        compared("commit-etcd 32 / 32 bare puts", found["ours-32"], found["put-32"], 2),
        compared("commit-etcd 1 / 1 bare put", found["ours-1"], found["put-1"], 0.6),
    ]
