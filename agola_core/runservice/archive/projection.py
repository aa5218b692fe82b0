"""The readdb's tables of archived runs and used task ids; `run_search` has the queries of lists.

A list is wanted in the order of ids, filtered by phase, result and groups, whatever the number of runs. So each run is
listed under its group and under each group above it, and for each of those the newest run of every group is kept;
`owner` is the number of the run's own group. A run that says what made it begin is listed under each of these paths
with that event once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from agola_core.datamanager import Action, Put
from agola_core.db import Tx
from agola_core.runservice.model.run_event import event_of
from agola_core.runservice.model.types import Run

RUN = "run"
RUN_CONFIG = "runconfig"
RUN_COUNTER = "runcounter"

DATA_TYPES = (RUN, RUN_CONFIG, RUN_COUNTER)
"""The run service's data types, in Agola's order of export."""

ALL = ""
"""The path under which all runs are listed; the others end with a slash."""

_IDS_AT_ONCE = 500


class _Tasks(msgspec.Struct):
    """The part of a run's configuration that is indexed."""

    tasks: dict[str, msgspec.Raw] = {}


_decode = msgspec.json.Decoder(Run).decode
_decode_tasks = msgspec.json.Decoder(_Tasks).decode


class RunProjection:
    """Tables of archived runs and of the task ids of all runs: configurations are stored when runs are created."""

    name = "runs"
    version = 6
    data_types = (RUN, RUN_CONFIG)
    schema = """
    CREATE TABLE kind (
        number INTEGER PRIMARY KEY,
        phase TEXT NOT NULL,
        result TEXT NOT NULL,
        UNIQUE (phase, result)
    );
    CREATE TABLE path (
        number INTEGER PRIMARY KEY,
        event TEXT NOT NULL,
        path TEXT NOT NULL,
        UNIQUE (event, path)
    );
    CREATE TABLE run (
        id TEXT PRIMARY KEY,
        grouppath TEXT NOT NULL,
        kind INTEGER NOT NULL,
        event TEXT NOT NULL,
        endtime TEXT,
        data BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX run_group ON run (grouppath, kind, id);
    CREATE INDEX run_event ON run (grouppath, kind, event, id) WHERE event != '';
    CREATE TABLE listed (
        path INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        run TEXT NOT NULL,
        owner INTEGER NOT NULL,
        PRIMARY KEY (path, kind, run)
    ) WITHOUT ROWID;
    CREATE TABLE newest (
        path INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        run TEXT NOT NULL,
        owner INTEGER NOT NULL,
        PRIMARY KEY (path, kind, run)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX newest_owner ON newest (path, owner, kind);
    CREATE TABLE task (
        id TEXT NOT NULL,
        run TEXT NOT NULL,
        PRIMARY KEY (id, run)
    ) WITHOUT ROWID;
    CREATE INDEX task_run ON task (run);
    """

    def apply(self, tx: Tx, actions: Iterable[Action]) -> None:
        """Apply actions to the tables."""
        runs = _Runs(tx)
        for action in actions:
            if action.data_type == RUN_CONFIG:
                tx.execute("DELETE FROM task WHERE run = ?", (action.id,))
                if isinstance(action, Put):
                    rows = [(task_id, action.id) for task_id in _decode_tasks(action.data).tasks]
                    tx.executemany("INSERT INTO task VALUES (?, ?)", rows)
                continue
            run = _decode(action.data) if isinstance(action, Put) else None
            runs.remove(action.id)
            if run is not None and isinstance(action, Put):
                runs.add(action.id, run, action.data)
        runs.update_newest()


class _Runs:
    """Changes the tables of runs in one transaction."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._kinds: dict[tuple[str, str], int] = {}
        self._paths: dict[tuple[str, str], list[int]] = {}
        self._touched: dict[tuple[str, int, str], None] = {}

    def add(self, run_id: str, run: Run, data: bytes) -> None:
        """Add a run that is not there."""
        path, kind, event = run.group + "/", self._kind(run.phase.value, run.result.value), event_of(run)
        ended = run.end_time or run.enqueue_time
        row = (run_id, path, kind, event, ended.isoformat() if ended else None, data)
        self._tx.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)", row)
        owner = self._numbers(path, "")[-1]
        for listed in {"", event}:
            rows = [(number, kind, run_id, owner) for number in self._numbers(path, listed)]
            self._tx.executemany("INSERT INTO listed VALUES (?, ?, ?, ?)", rows)
            self._touched[path, kind, listed] = None

    def remove(self, run_id: str) -> None:
        """Remove a run if it is there."""
        found = next(self._tx.rows("SELECT grouppath, kind, event FROM run WHERE id = ?", (run_id,)), None)
        if found is None:
            return
        path, kind, event = found
        self._tx.execute("DELETE FROM run WHERE id = ?", (run_id,))
        for listed in {"", event}:
            self._tx.executemany(
                "DELETE FROM listed WHERE path = ? AND kind = ? AND run = ?",
                [(number, kind, run_id) for number in self._numbers(path, listed)],
            )
            self._touched[path, kind, listed] = None

    def update_newest(self) -> None:
        """Find the newest runs of the groups that have changed."""
        for path, kind, event in self._touched:  # all before others come, as a run may have gone from one to another
            owner = self._numbers(path, "")[-1]
            self._tx.executemany(
                "DELETE FROM newest WHERE path = ? AND owner = ? AND kind = ?",
                [(number, owner, kind) for number in self._numbers(path, event)],
            )
        for path, kind, event in self._touched:
            sql = "SELECT max(id) FROM run WHERE grouppath = :path AND kind = :kind"
            if event:
                sql += " AND event = :event AND event != ''"  # so SQLite takes the index of those that have one
            newest = next(self._tx.rows(sql, {"path": path, "kind": kind, "event": event}))[0]
            if newest is not None:
                owner = self._numbers(path, "")[-1]
                rows = [(number, kind, newest, owner) for number in self._numbers(path, event)]
                self._tx.executemany("INSERT INTO newest VALUES (?, ?, ?, ?)", rows)

    def _kind(self, phase: str, result: str) -> int:
        number = self._kinds.get((phase, result))
        if number is None:
            self._tx.execute("INSERT OR IGNORE INTO kind (phase, result) VALUES (?, ?)", (phase, result))
            sql = "SELECT number FROM kind WHERE phase = ? AND result = ?"
            number = self._kinds[phase, result] = next(self._tx.rows(sql, (phase, result)))[0]
        return number

    def _numbers(self, path: str, event: str) -> list[int]:
        """Return the numbers of the paths under which a group's runs of an event are listed; the last is its own."""
        numbers = self._paths.get((path, event))
        if numbers is None:
            above = [path[: index + 1] for index, character in enumerate(path) if character == "/"]
            paths = [(event, name) for name in (ALL, *above)]
            self._tx.executemany("INSERT OR IGNORE INTO path (event, path) VALUES (?, ?)", paths)
            sql = "SELECT number FROM path WHERE event = ? AND path = ?"
            numbers = self._paths[path, event] = [next(self._tx.rows(sql, name))[0] for name in paths]
        return numbers


def is_run_service(data_types: Iterable[str]) -> bool:
    """Return whether a store or an export with these data types is a run service's."""
    return set(DATA_TYPES).issubset(data_types)


def find_tasks(tx: Tx, task_ids: Iterable[str]) -> dict[str, str]:
    """Return those task ids that runs have, each with the first such run."""
    found: dict[str, str] = {}
    wanted = list(task_ids)
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        part = wanted[start : start + _IDS_AT_ONCE]
        sql = f"SELECT id, min(run) FROM task WHERE id IN ({', '.join('?' * len(part))}) GROUP BY id"  # noqa: S608 - no values in it
        found.update(tx.rows(sql, part))
    return found


def find_ended(tx: Tx, group: str) -> list[tuple[str, str, datetime | None]]:
    """Return id, group and end of the archived runs of a group and of groups below it, newest first."""
    path = group.rstrip("/")  # an exact range of paths, in which no character is a wildcard
    sql = "SELECT id, grouppath, endtime FROM run WHERE grouppath >= ? AND grouppath < ? ORDER BY id DESC"
    return [
        (run_id, group_path[:-1], datetime.fromisoformat(end) if end else None)
        for run_id, group_path, end in tx.rows(sql, [f"{path}/", f"{path}0"])  # "0" is the character after "/"
    ]
