"""runs-list: every filter of `GET /runs`, and the page's list, with many archived runs, beside the same with 1,000.

Also how soon a `serve` answers whose readdb is there, how long the readdb's build takes, and `agola-core runs list`
without a service. `AGOLA_BENCH_RUNS` says how many runs; the goals are for 1,000,000.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

from bench import options
from bench.machine import workplace
from bench.processes import agola_core_command
from bench.result import Line, limit, ratio
from bench.runservice.archivedruns import import_runs, run_id

COUNT = options.number("AGOLA_BENCH_RUNS", 200_000, least=1000)
FEW = 1000
ROUNDS = 5
CALLS = 20
MEDIAN_MS, SLOWEST_MS = 20, 60
API = "/api/v1alpha"
LISTS = {
    "no filter": f"{API}/runs",
    "oldest first": f"{API}/runs?asc",
    "phase=running, none": f"{API}/runs?phase=running",
    "phase=cancelled": f"{API}/runs?phase=cancelled",
    "result=failed": f"{API}/runs?result=failed",
    "phase and result": f"{API}/runs?phase=finished&result=stopped",
    "group, wide": f"{API}/runs?group=/project",
    "group and result": f"{API}/runs?group=/project/5&result=failed",
    "group, none": f"{API}/runs?group=/nothing",
    "lastrun": f"{API}/runs?lastrun",
    "lastrun, oldest first": f"{API}/runs?lastrun&asc",
    "lastrun of a group": f"{API}/runs?lastrun&group=/project/5/pr",
    "lastrun and result": f"{API}/runs?lastrun&result=failed",
    "page": "/",
    "page, failed": "/?state=failed",
    "page, running": "/?state=running",
    "page, group": "/?group=/project/5",
}


def run() -> list[Line]:
    with tempfile.TemporaryDirectory(dir=workplace()) as name, ExitStack() as stack:
        many, few = Path(name, "many"), Path(name, "few")
        import_runs(many, COUNT)
        import_runs(few, FEW)
        lines = _without_service(many, few)
        slowest: list[float] = []
        clients = [stack.enter_context(_client(path)) for path in (many, few)]
        middle = f"&start={run_id(COUNT // 2)}"
        later = {f"{filter_}, from the middle": LISTS[filter_] + middle for filter_ in ("result=failed", "lastrun")}
        for filter_, path in {**LISTS, **later}.items():
            turns = [(_times(clients[0], path), _times(clients[1], path)) for _ in range(ROUNDS)]
            ours = [statistics.median(times) for times, _ in turns]
            reference = [statistics.median(times) for _, times in turns]
            lines.append(limit(f"runs-list {COUNT:,}, {filter_} / {FEW:,}", ours, reference, MEDIAN_MS, "ms"))
            slowest += [time for times, _ in turns for time in times]
        late = statistics.quantiles(slowest, n=100)[-1]
        lines.append(limit(f"runs-list {COUNT:,}, 99th percentile of all / 1 ms", late, 1, SLOWEST_MS, "ms"))
        return lines


def _without_service(many: Path, few: Path) -> list[Line]:
    built = _list(many)
    _list(few)
    turns = [(_list(many), _list(few)) for _ in range(ROUNDS)]
    answers = [(_first_answer(many), _first_answer(few)) for _ in range(ROUNDS)]
    return [
        ratio(f"runs list of {COUNT:,}, the first time (a readdb is built) / 1 s", built, 1, 0, "s"),
        limit(
            f"runs list of {COUNT:,} without a service / {FEW:,}",
            [ours for ours, _ in turns],
            [reference for _, reference in turns],
            0.3,
            "s",
        ),
        limit(
            f"serve's first answer with {COUNT:,} / {FEW:,}",
            [ours for ours, _ in answers],
            [reference for _, reference in answers],
            1,
            "s",
        ),
    ]


def _list(data_dir: Path) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "agola_cli.main", "runs", "list", "--data-dir", data_dir],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def _first_answer(data_dir: Path) -> float:
    started = time.perf_counter()
    with _client(data_dir) as client:
        client.get(f"{API}/runs").raise_for_status()
        return time.perf_counter() - started


@contextmanager
def _client(data_dir: Path) -> Iterator[httpx2.Client]:
    serve = ("serve", "--no-tokens", "--port", "0", "--data-dir", data_dir)
    with agola_core_command(*serve) as (url, _), httpx2.Client(base_url=url, timeout=60) as client:
        yield client


def _times(client: httpx2.Client, path: str) -> list[float]:
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        client.get(path).raise_for_status()
        times.append(1000 * (time.perf_counter() - started))
    return times
