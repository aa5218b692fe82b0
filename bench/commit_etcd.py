"""commit-etcd: WALs of one 1 KiB put from 32 threads on a real etcd, beside bare puts from 32 threads.

The reference is what the etcd3 package does for `put`: one `KV.Put` call each, on one connection, here with the
same message definitions. Both take turns on the same etcd.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import grpc

import agola_core
from agola_core import Put
from agola_pytest.servers.etcd import EtcdMissingError, start_etcd
from bench.commit import PAYLOAD, rate
from bench.result import Result

ROUNDS = 7
THREADS = 32


def run() -> list[Result]:
    try:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory, start_etcd(Path(directory) / "etcd") as etcd:
            return _measure(Path(directory), etcd.endpoint, etcd.url("bench"))
    except EtcdMissingError as error:
        print(f"commit-etcd is left out: {error}")
        return []


def _measure(root: Path, endpoint: str, url: str) -> list[Result]:
    from agola_core.coordinator.etcd import messages as rpc

    method = rpc._method("KV", "Put")
    with (
        agola_core.open(storage=str(root / "storage"), coordinator=url, data_types=["object"]) as dm,
        grpc.insecure_channel(endpoint) as channel,
    ):
        bare = channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)

        def put(number: int) -> None:
            bare(method.request(key=b"bare/%d" % number, value=PAYLOAD))

        def commit(number: int) -> None:
            dm.write_wal([Put("object", str(number), PAYLOAD)])

        turns = {"put-1": (put, 1), "ours-1": (commit, 1), "put-32": (put, THREADS), "ours-32": (commit, THREADS)}
        rates: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(ROUNDS):
            for name, (work, threads) in turns.items():
                rates[name].append(rate(work, threads))
    median = {name: statistics.median(values) for name, values in rates.items()}
    return [
        Result("commit-etcd 32 / 32 bare puts", median["ours-32"], median["put-32"], 2),
        Result("commit-etcd 1 / 1 bare put", median["ours-1"], median["put-1"], 0.5),
    ]
