"""Lists of archived runs: what they hold, and that what SQLite visits for one does not follow the number of runs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product

import apsw
import msgspec
import pytest

from agola_core.datamanager import Action, Delete, Put
from agola_core.db import Tx
from agola_core.runservice.archive import run_search
from agola_core.runservice.archive.projection import RUN, RunProjection, find_ended
from agola_core.runservice.archive.run_search import find_runs, select, select_ordered
from agola_core.runservice.model.requests import RunQuery
from agola_core.runservice.model.run_event import TRIGGER, WEBHOOK_EVENT
from agola_core.runservice.model.types import Run, RunPhase, RunResult
from agola_core.runservice.state.memory.active_runs import ActiveRuns
from agola_core.runservice.state.store import StoredRun
from agola_core.runtime.context import Context
from agola_core.sequence import Sequence

PHASES = ((), (RunPhase.RUNNING,), (RunPhase.FINISHED,), (RunPhase.SETUP_ERROR, RunPhase.CANCELLED))
RESULTS = ((), (RunResult.UNKNOWN,), (RunResult.FAILED, RunResult.STOPPED))
EVENTS = ((), ("push",), ("tag", "manual"))
GROUPS = (
    (),
    ("/",),
    ("/project/1/pr",),
    ("/project/1/pr/2/",),
    ("/project/0", "/project/0/branch/main"),
    ("/none",),
    ("/project/%",),
)


@pytest.fixture
def tx() -> Iterator[Tx]:
    connection = apsw.Connection(":memory:")
    connection.execute(RunProjection.schema)
    yield Tx(connection, Context(), ":memory:")
    connection.close()


def made(number: int, generator: random.Random) -> Run:
    project = f"/project/{generator.randrange(3)}"
    names = (f"{project}/branch/main", f"{project}/pr/{generator.randrange(4)}", project)
    phase, result = generator.choice(
        [
            (RunPhase.FINISHED, RunResult.SUCCESS),
            (RunPhase.FINISHED, RunResult.FAILED),
            (RunPhase.FINISHED, RunResult.STOPPED),
            (RunPhase.CANCELLED, RunResult.UNKNOWN),
            (RunPhase.SETUP_ERROR, RunResult.UNKNOWN),
        ]
    )
    ended = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    run_id = str(Sequence(1, number))
    said = generator.choice(
        [
            {},
            {WEBHOOK_EVENT: "push", TRIGGER: "webhook"},
            {WEBHOOK_EVENT: "tag"},
            {WEBHOOK_EVENT: "", TRIGGER: "manual"},
            {TRIGGER: "webhook"},
        ]
    )
    group = generator.choice(names)
    return Run(id=run_id, group=group, phase=phase, result=result, end_time=ended, annotations=said)


def put(run: Run) -> Put:
    return Put(RUN, run.id, msgspec.json.encode(run))


def queries(start: str) -> Iterator[RunQuery]:
    for phases, results, groups, events, first, ascending, last_run, limit in product(
        PHASES, RESULTS, GROUPS, EVENTS, ("", start), (False, True), (False, True), (5, 1000)
    ):
        yield RunQuery(
            phases=phases,
            results=results,
            groups=groups,
            events=events,
            start=first,
            ascending=ascending,
            last_run=last_run,
            limit=limit,
        )


@pytest.mark.parametrize("walked", [0, 10, 2000])
def test_every_list_is_what_the_rule_says_after_puts_changes_and_deletes(tx, monkeypatch, walked):
    monkeypatch.setattr(run_search, "_WALKED", walked)
    generator = random.Random(20)
    projection = RunProjection()
    runs: dict[str, Run] = {}
    for _ in range(20):
        actions: list[Action] = []
        for _ in range(15):
            run = made(generator.randrange(150), generator)
            if generator.random() < 0.2:
                actions.append(Delete(RUN, run.id))
                runs.pop(run.id, None)
            else:
                actions.append(put(run))
                runs[run.id] = run
        projection.apply(tx, actions)
    assert 60 < len(runs) < 150
    active = ActiveRuns()
    for run in runs.values():
        active.put(StoredRun(run, 1))
    for query in queries(sorted(runs)[len(runs) // 2]):
        expected = select(runs.values(), query)
        assert find_runs(tx, query) == expected, query
        candidates = active.candidates(query.groups, query.phases, ascending=query.ascending)
        assert select_ordered(candidates, query) == expected, query
    assert len(find_ended(tx, "/project/1")) == len(select(runs.values(), RunQuery(groups=("/project/1",), limit=1000)))
    for run_id in runs:
        active.remove(run_id)
    assert list(active.candidates((), (), ascending=True)) == []
    projection.apply(tx, [Delete(RUN, run_id) for run_id in runs])
    for table in ("run", "listed", "newest"):
        assert list(tx.rows(f"SELECT * FROM {table}")) == []


def test_what_a_list_visits_does_not_follow_the_number_of_runs(tx, monkeypatch):
    monkeypatch.setattr(run_search, "_WALKED", 4)  # of 2,000 and of 8,000 runs
    generator = random.Random(21)
    projection = RunProjection()
    visited: list[dict[tuple[RunQuery, bool], int]] = []
    for first, last in ((0, 2000), (2000, 8000)):
        projection.apply(tx, [put(made(number, generator)) for number in range(first, last)])
        wanted = (query for query in queries(str(Sequence(1, last // 2))) if query.limit == 5)
        visited.append(
            {(msgspec.structs.replace(query, start=""), bool(query.start)): steps(tx, query) for query in wanted}
        )
    few, many = visited
    grown = {query: (few[query], many[query]) for query in few if many[query] > 1.5 * few[query] + 700}
    assert grown == {}
    for events, most in zip(EVENTS, (6000, 7500, 15_000), strict=True):  # some for each path, kind and group
        assert max(count for (query, _), count in many.items() if query.events == events) < most
    rare = [made(number, generator) for number in range(8000, 8003)]
    assert steps(tx, RunQuery(phases=(RunPhase.RUNNING,))) < 100
    projection.apply(tx, [put(msgspec.structs.replace(run, phase=RunPhase.RUNNING)) for run in rare])
    assert steps(tx, RunQuery(phases=(RunPhase.RUNNING,))) < 400


def test_no_more_active_runs_are_looked_at_than_are_listed():
    active = ActiveRuns()
    for number in range(1000):
        active.put(StoredRun(Run(id=str(Sequence(1, number)), group=f"/project/{number}", phase=RunPhase.RUNNING), 1))
    for query in (RunQuery(limit=5), RunQuery(limit=5, ascending=True), RunQuery(limit=5, last_run=True)):
        candidates = active.candidates((), (), ascending=query.ascending)
        found = select_ordered(candidates, query)
        assert len(found) == 5
        assert len(list(candidates)) == 995


def steps(tx: Tx, query: RunQuery) -> int:
    """Return how many instructions SQLite's machine runs for a list: each row that is visited takes some."""
    count = 0

    def step() -> bool:
        nonlocal count
        count += 1
        return False

    tx._connection.set_progress_handler(step, 1)
    try:
        find_runs(tx, query)
    finally:
        tx._connection.set_progress_handler(None)
    return count
