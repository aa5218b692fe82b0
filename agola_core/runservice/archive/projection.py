"""The readdb's tables of archived runs and used task ids, and the queries on them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from agola_core.datamanager import Action, Put
from agola_core.db import Tx
from agola_core.runservice.model.requests import RunQuery
from agola_core.runservice.model.types import Run

RUN = "run"
RUN_CONFIG = "runconfig"
RUN_COUNTER = "runcounter"

DATA_TYPES = (RUN, RUN_CONFIG, RUN_COUNTER)
"""The run service's data types, in Agola's order of export."""

_IDS_AT_ONCE = 500


class _Tasks(msgspec.Struct):
    """The part of a run's configuration that is indexed."""

    tasks: dict[str, msgspec.Raw] = {}


_decode = msgspec.json.Decoder(Run).decode
_decode_tasks = msgspec.json.Decoder(_Tasks).decode


class RunProjection:
    """Tables of archived runs and of the task ids of all runs: configurations are stored when runs are created."""

    name = "runs"
    version = 3
    data_types = (RUN, RUN_CONFIG)
    schema = """
    CREATE TABLE run (
        id TEXT PRIMARY KEY,
        grouppath TEXT NOT NULL,
        phase TEXT NOT NULL,
        result TEXT NOT NULL,
        endtime TEXT,
        data BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX run_group ON run (grouppath, id);
    CREATE TABLE task (
        id TEXT NOT NULL,
        run TEXT NOT NULL,
        PRIMARY KEY (id, run)
    ) WITHOUT ROWID;
    CREATE INDEX task_run ON task (run);
    """

    def apply(self, tx: Tx, actions: Iterable[Action]) -> None:
        """Apply actions to the tables."""
        for action in actions:
            if action.data_type == RUN_CONFIG:
                tx.execute("DELETE FROM task WHERE run = ?", (action.id,))
                if isinstance(action, Put):
                    for task_id in _decode_tasks(action.data).tasks:
                        tx.execute("INSERT INTO task VALUES (?, ?)", (task_id, action.id))
            elif isinstance(action, Put):
                run = _decode(action.data)
                ended = run.end_time or run.enqueue_time
                tx.execute(
                    "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        action.id,
                        run.group + "/",
                        run.phase.value,
                        run.result.value,
                        ended.isoformat() if ended else None,
                        action.data,
                    ),
                )
            else:
                tx.execute("DELETE FROM run WHERE id = ?", (action.id,))


def find_runs(tx: Tx, query: RunQuery) -> list[Run]:
    """Return the archived runs that match a query."""
    where, params = ["1"], list[str | int]()
    if query.start:
        where.append("id > ?" if query.ascending else "id < ?")
        params.append(query.start)
    for column, values in (("phase", query.phases), ("result", query.results)):
        if values:
            where.append(f"{column} IN ({', '.join('?' * len(values))})")
            params.extend(value.value for value in values)
    if query.groups:  # an exact range of paths, in which no character is a wildcard
        where.append("(" + " OR ".join("(grouppath >= ? AND grouppath < ?)" for _ in query.groups) + ")")
        for group in query.groups:
            path = group.rstrip("/")
            params += [f"{path}/", f"{path}0"]  # "0" is the character after "/"
    wanted = " AND ".join(where)
    if query.last_run:
        wanted = f"id IN (SELECT max(id) FROM run WHERE {wanted} GROUP BY grouppath)"  # noqa: S608 - no values in it
    order = "ASC" if query.ascending else "DESC"
    sql = f"SELECT data FROM run WHERE {wanted} ORDER BY id {order} LIMIT ?"  # noqa: S608 - no values in it
    return [_decode(data) for (data,) in tx.rows(sql, [*params, query.limit])]


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
    path = group.rstrip("/")
    sql = "SELECT id, grouppath, endtime FROM run WHERE grouppath >= ? AND grouppath < ? ORDER BY id DESC"
    return [
        (run_id, group_path[:-1], datetime.fromisoformat(end) if end else None)
        for run_id, group_path, end in tx.rows(sql, [f"{path}/", f"{path}0"])
    ]


def select(runs: Iterable[Run], query: RunQuery) -> list[Run]:
    """Return the runs that match a query, in its order."""
    found: Iterable[Run] = (run for run in runs if matches(run, query))
    if query.last_run:
        newest: dict[str, Run] = {}
        for run in found:
            known = newest.get(run.group)
            if known is None or run.id > known.id:
                newest[run.group] = run
        found = newest.values()
    return sorted(found, key=lambda run: run.id, reverse=not query.ascending)[: query.limit]


def matches(run: Run, query: RunQuery) -> bool:
    """Return whether a run matches a query, but for its limit."""
    path = f"{run.group}/"
    return (
        (not query.start or (run.id > query.start if query.ascending else run.id < query.start))
        and (not query.phases or run.phase in query.phases)
        and (not query.results or run.result in query.results)
        and (not query.groups or any(path.startswith(group.rstrip("/") + "/") for group in query.groups))
    )
