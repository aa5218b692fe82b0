"""An in-memory index of active runs by id, group and phase. Not thread-safe."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from agola_core.runservice.model.types import Run, RunPhase
from agola_core.runservice.state.store import StoredRun


class ActiveRuns:
    """Active runs by id, with the revisions that they were read at."""

    def __init__(self) -> None:
        self._runs: dict[str, StoredRun] = {}
        self._ids: list[str] = []  # sorted
        self._by_phase: dict[RunPhase, set[str]] = {phase: set() for phase in RunPhase}
        self._by_group: dict[str, set[str]] = {}
        self._groups: list[str] = []  # sorted, each with a "/" at its end, so that a prefix is a range
        self._queued: dict[str, list[str]] = {}
        self._running: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._runs)

    def __contains__(self, run_id: str) -> bool:
        """Return whether a run is active."""
        return run_id in self._runs

    def ids(self) -> list[str]:
        """Return all ids."""
        return list(self._runs)

    def get(self, run_id: str) -> StoredRun | None:
        """Return a run; None if it is not active."""
        return self._runs.get(run_id)

    def put(self, stored: StoredRun) -> None:
        """Add or replace a run."""
        run = stored.run
        before = self._runs.get(run.id)
        self._runs[run.id] = stored
        if before is None:
            insort(self._ids, run.id)
            group = run.group + "/"
            if group not in self._by_group:
                self._by_group[group] = set()
                insort(self._groups, group)
            self._by_group[group].add(run.id)
        elif before.run.phase is not run.phase:
            self._by_phase[before.run.phase].discard(run.id)
        self._by_phase[run.phase].add(run.id)
        if before is None or before.run.phase is not run.phase:
            self._leave(run)
            if run.phase is RunPhase.QUEUED:
                insort(self._queued.setdefault(run.group, []), run.id)
            elif run.phase is RunPhase.RUNNING:
                self._running.setdefault(run.group, set()).add(run.id)

    def remove(self, run_id: str) -> None:
        """Remove a run."""
        stored = self._runs.pop(run_id, None)
        if stored is None:
            return
        del self._ids[bisect_left(self._ids, run_id)]
        run = stored.run
        self._by_phase[run.phase].discard(run_id)
        self._leave(run)
        group = run.group + "/"
        members = self._by_group[group]
        members.discard(run_id)
        if not members:
            del self._by_group[group]
            del self._groups[bisect_left(self._groups, group)]

    def clear(self) -> None:
        """Remove all runs."""
        self.__init__()  # type: ignore[misc]

    def next_queued(self, group: str) -> str | None:
        """Return the oldest queued run of exactly this group, if none of the group is running."""
        queued = self._queued.get(group)
        return queued[0] if queued and group not in self._running else None

    def candidates(self, groups: Iterable[str], phases: Iterable[RunPhase], *, ascending: bool) -> Iterator[Run]:
        """Yield at least all runs of these groups and phases, by their ids; no groups or phases mean any."""
        wanted_groups, wanted_phases = list(groups), list(phases)
        if wanted_groups:
            found = sorted({run_id for group in wanted_groups for run_id in self._below(group)})
        elif wanted_phases:
            found = sorted(set().union(*(self._by_phase[phase] for phase in wanted_phases)))
        else:
            found = self._ids
        return (self._runs[run_id].run for run_id in (found if ascending else reversed(found)))

    def _below(self, group: str) -> Iterator[str]:
        prefix = group.rstrip("/") + "/"
        position = bisect_left(self._groups, prefix)
        while position < len(self._groups) and self._groups[position].startswith(prefix):
            yield from self._by_group[self._groups[position]]
            position += 1

    def _leave(self, run: Run) -> None:
        queued = self._queued.get(run.group, [])
        position = bisect_left(queued, run.id)
        if position < len(queued) and queued[position] == run.id:
            del queued[position]
            if not queued:
                del self._queued[run.group]
        running = self._running.get(run.group, set())
        running.discard(run.id)
        if not running:
            self._running.pop(run.group, None)
