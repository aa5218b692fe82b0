"""Lists of runs: the archived ones from the readdb, and the rule by which any run belongs to a list.

The readdb's part reads the entries of each wanted path and kind in the order of ids, and merges them until the list is
full: what is visited follows the length of the list and not the number of runs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice, product
from typing import Any

import msgspec

from agola_core.db import Tx
from agola_core.runservice.archive.projection import ALL
from agola_core.runservice.model.requests import RunQuery
from agola_core.runservice.model.run_event import event_of
from agola_core.runservice.model.types import Run

_WALKED = 2000
_decode = msgspec.json.Decoder(Run).decode


def find_runs(tx: Tx, query: RunQuery) -> list[Run]:
    """Return the archived runs that match a query."""
    search = _Search(tx, query)
    found: Iterator[str] = iter(())
    if search.paths and search.kinds:
        found = search.newest() if query.last_run else search.listed()
    sql = "SELECT data FROM run WHERE id = ?"
    return [_decode(data) for run_id in islice(found, query.limit) for (data,) in tx.rows(sql, (run_id,))]


def find_run(tx: Tx, run_id: str) -> Run | None:
    """Return an archived run; None when there is none."""
    return next((_decode(data) for (data,) in tx.rows("SELECT data FROM run WHERE id = ?", (run_id,))), None)


class _Search:
    """One query of archived runs.

    Attributes:
        paths: The numbers of the paths whose runs are wanted.
        kinds: The numbers of the pairs of phase and result that are wanted, of those that there are.
    """

    def __init__(self, tx: Tx, query: RunQuery) -> None:
        self._tx = tx
        self._start = query.start
        self._ascending = query.ascending
        wanted = {group.rstrip("/") + "/" for group in query.groups} or {ALL}
        self._events = set(query.events) or {""}
        sql = "SELECT number FROM path WHERE event = ? AND path = ?"
        asked = product(self._events, wanted)
        self.paths = [number for event, path in asked for (number,) in tx.rows(sql, (event, path))]
        self.kinds = [
            number
            for number, phase, result in tx.rows("SELECT number, phase, result FROM kind")
            if (not query.phases or phase in query.phases) and (not query.results or result in query.results)
        ]
        self._bound = ("AND run > ?" if query.ascending else "AND run < ?") if query.start else ""
        self._params = [query.start] if query.start else []
        self._order = f"ORDER BY run {'ASC' if query.ascending else 'DESC'}"

    def listed(self) -> Iterator[str]:
        """Yield the ids of all runs, in order."""
        sql = f"SELECT run FROM listed WHERE path = ? AND kind = ? {self._bound} {self._order}"  # noqa: S608 - no values in it
        before = None
        for (run_id,) in self._merged(sql):
            if run_id != before:  # a run may be listed under several of the paths
                yield run_id
            before = run_id

    def newest(self) -> Iterator[str]:
        """Yield the id of the newest run of each group, in order."""
        found = self._newest_before_start() if self._start and not self._ascending else self._newest()
        seen: set[int] = set()
        for run_id, owner in found:
            if owner not in seen and not (self._ascending and self._has_newer(run_id, owner)):
                seen.add(owner)
                yield run_id

    def _newest(self, more: Iterable[tuple[str, int]] = ()) -> Iterator[tuple[str, int]]:
        """Yield the newest runs of groups by kind, each with its group."""
        sql = f"SELECT run, owner FROM newest WHERE path = ? AND kind = ? {self._bound} {self._order}"  # noqa: S608 - no values in it
        return self._merged(sql, more)

    def _newest_before_start(self) -> Iterator[tuple[str, int]]:
        """Yield runs with their groups, newest first, among them the newest of each group below the start.

        Downwards from the start, the first run of a group is its newest. Where few groups have very many runs, the
        groups are looked at in the place of the runs.
        """
        sql = f"SELECT run, owner FROM listed WHERE path = ? AND kind = ? {self._bound} {self._order}"  # noqa: S608 - no values in it
        runs = self._merged(sql)
        yield from islice(runs, _WALKED)
        if next(runs, None) is not None:
            yield from self._newest(self._groups_with_newer())

    def _groups_with_newer(self) -> list[tuple[str, int]]:
        """Return, for each group that has runs at or above the start, those before it that are the newest by kind."""
        sql = "SELECT owner FROM newest WHERE path = ? AND kind = ? AND run >= ?"
        owners = {
            owner
            for path in self.paths
            for kind in self.kinds
            for (owner,) in self._tx.rows(sql, (path, kind, self._start))
        }
        sql = """
        SELECT max(id) FROM run
        WHERE grouppath = (SELECT path FROM path WHERE number = :owner) AND kind = :kind AND id < :start
        """
        if self._events != {""}:
            sql += " AND event = :event AND event != ''"
        found = [
            (run_id, owner)
            for owner, kind, event in product(owners, self.kinds, self._events)
            for (run_id,) in self._tx.rows(sql, {"owner": owner, "kind": kind, "start": self._start, "event": event})
            if run_id is not None
        ]
        return sorted(found, reverse=True)

    def _merged(self, sql: str, more: Iterable[tuple[Any, ...]] = ()) -> Iterator[tuple[Any, ...]]:
        streams = [self._tx.rows(sql, [path, kind, *self._params]) for path in self.paths for kind in self.kinds]
        return heapq.merge(*streams, more, reverse=not self._ascending)

    def _has_newer(self, run_id: str, owner: int) -> bool:
        """Return whether a group has a newer run of the wanted kinds."""
        sql = "SELECT 1 FROM newest WHERE path = ? AND owner = ? AND kind = ? AND run > ?"
        return any(
            next(self._tx.rows(sql, (path, owner, kind, run_id)), None) is not None
            for path in self.paths
            for kind in self.kinds
        )


def select_ordered(runs: Iterable[Run], query: RunQuery) -> list[Run]:
    """Return the runs that match a query, as `select` does, of runs in the query's order: no more are looked at."""
    if query.last_run and query.ascending:  # the newest of a group comes last
        return select(runs, query)
    found = (run for run in runs if matches(run, query))
    if not query.last_run:
        return list(islice(found, query.limit))
    newest: dict[str, Run] = {}
    while len(newest) < query.limit and (run := next(found, None)) is not None:
        newest.setdefault(run.group, run)
    return list(newest.values())


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
        and (not query.events or event_of(run) in query.events)
        and (not query.groups or any(path.startswith(group.rstrip("/") + "/") for group in query.groups))
    )
