"""Runs the benchmarks, prints one table, and writes it as JSON to bench/results/."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bench import (
    append,
    checkpoint,
    commit,
    commit_etcd,
    commits3,
    hop,
    logs,
    moves,
    opening,
    read,
    readdb,
    runs,
    size,
    tasks,
)
from bench.result import Limit, Result

BENCHES = {
    "commit-s3": commits3.run,
    "commit": commit.run,
    "commit-etcd": commit_etcd.run,
    "append": append.run,
    "read": read.run,
    "checkpoint-amp": checkpoint.run,
    "open": opening.run,
    "export": moves.run,
    "readdb-rebuild": readdb.rebuild,
    "readdb-lag": readdb.lag,
    "logs": logs.run,
    "runs": runs.run,
    "task-hop": hop.run,
    "tasks": tasks.run,
    "size": size.run,
}


def main(names: list[str]) -> int:
    unknown = set(names) - BENCHES.keys()
    if unknown:
        print(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    results: list[Result | Limit] = []
    for name in names or BENCHES:
        results += BENCHES[name]()
    headings = ("name", "ours", "reference", "unit", "ratio", "goal", "held")
    rows = [headings, *(result.row() for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    target = Path(__file__).parent / "results" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps([dict(zip(headings, result.row(), strict=True)) for result in results], indent=1))
    print(f"written to {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
