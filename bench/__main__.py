"""Runs the benchmarks, prints one table, and writes it as JSON to bench/results/."""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

import msgspec

from bench.commits import append, commit, commit_etcd, commits3
from bench.machine import describe as machine_facts
from bench.result import HEADINGS, Line
from bench.runservice import executors, hop, idle, loglag, logs, runs, runslist, runstart, tasks
from bench.stores import checkpoint, events, moves, opening, read, readdb, scale

BENCHES = {
    "commit-s3": commits3.run,
    "commit": commit.run,
    "commit-etcd": commit_etcd.run,
    "append": append.run,
    "events": events.run,
    "read": read.run,
    "checkpoint-amp": checkpoint.run,
    "open": opening.run,
    "scale": scale.run,
    "export": moves.run,
    "readdb-rebuild": readdb.rebuild,
    "readdb-lag": readdb.lag,
    "logs": logs.run,
    "log-lag": loglag.run,
    "runs": runs.run,
    "runs-list": runslist.run,
    "task-hop": hop.run,
    "tasks": tasks.run,
    "run-start": runstart.run,
    "executors": executors.run,
    "idle": idle.run,
}


def main(names: list[str]) -> int:
    unknown = set(names) - BENCHES.keys()
    if unknown:
        print(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    machine = machine_facts()
    print(*(f"{name}: {fact}" for name, fact in machine.items()), sep="\n")
    lines: list[Line] = []
    failed: list[str] = []
    began = time.monotonic()
    for name in names or BENCHES:
        started = time.monotonic()
        try:
            lines += BENCHES[name]()
        except Exception:  # noqa: BLE001 - the others are measured all the same
            traceback.print_exc()
            failed.append(name)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    print_table(lines)
    target = Path(__file__).parent / "results" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    target.parent.mkdir(exist_ok=True)
    table = [dict(zip(HEADINGS, line.row(), strict=True)) for line in lines]
    written = msgspec.json.encode({"machine": machine, "table": table, "turns": lines, "failed": failed})
    target.write_bytes(msgspec.json.format(written))
    where = target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target
    print(f"{time.monotonic() - began:.0f} s; written to {where}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def print_table(lines: list[Line]) -> None:
    """Print the lines in columns."""
    rows = [HEADINGS, *(line.row() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
