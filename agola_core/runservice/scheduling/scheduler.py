"""Brings one run a step on: what its executors reported, which tasks start, whether it has ended.

`advance` is called for a run whenever the coordinator changed something of it, one thread at a time for a run; it
reads the mirror, decides (see `step` and the pure `advance`), and commits everything in one transaction, behind
compares of the revisions that it decided on. What was overtaken is refused, and decided anew when the mirror has
caught up. A task is handed to its executor only after that, so no two services start it twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from hashlib import sha256
from threading import Lock

from msgspec.structs import replace

from agola_core.errors import AgolaError, ConflictError, NotFoundError
from agola_core.runservice.model.types import ExecutorTask, Run, RunPhase
from agola_core.runservice.rules import advance
from agola_core.runservice.rules.advance import Fetched
from agola_core.runservice.scheduling.slots import Room, WaitingRuns
from agola_core.runservice.scheduling.transition import Limits, Seen, Step
from agola_core.runservice.state.change_groups import GroupsToken
from agola_core.runservice.state.mirror import Mirror
from agola_core.runservice.state.run_record import delete_ops, part_sizes
from agola_core.runservice.state.secrets import RunSecrets
from agola_core.runservice.state.store import RunStore, Stored, forget_ops
from agola_core.runtime.forks import renewed

logger = logging.getLogger(__name__)

_MOST_OPS = 256
_BEHIND_SECONDS = 2.0


class _Progress:
    """What is known of a run beside its state; used by one thread at a time.

    Attributes:
        committed: The revision of the newest step.
        thorough: Whether all its tasks are to be looked at for something to fetch.
        ended: The tasks that have ended since it was last looked what they left.
        unfetched: The ended tasks that have something to fetch.
    """

    __slots__ = ("committed", "ended", "thorough", "unfetched")

    def __init__(self) -> None:
        self.committed = 0
        self.thorough = True
        self.ended: set[str] = set()
        self.unfetched: set[str] = set()


class Scheduler:
    """Advances runs.

    Args:
        store: Active runs and their tasks.
        mirror: The same in memory.
        read_definition: Returns a run's configuration, with its secrets.
        now: The time.
        is_lost: Returns whether an executor has been silent for too long.
        again: Asks for a run to be advanced soon.
        share: Asks likewise, for one that every service was told of.
        tell: Tells an executor of a task.
        fetch: Called with a run and a task whose logs or archives are to be fetched.
        archive: Called with a finished run whose logs and archives are all settled.
        start_queued: Whether queued runs start by themselves, one of each group at a time.
    """

    def __init__(
        self,
        store: RunStore,
        mirror: Mirror,
        read_definition: Callable[[str], RunSecrets],
        now: Callable[[], datetime],
        *,
        is_lost: Callable[[str], bool],
        again: Callable[[str], None],
        share: Callable[[str], None],
        tell: Callable[[ExecutorTask], None],
        fetch: Callable[[str, str], None],
        archive: Callable[[Stored], None],
        start_queued: bool,
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._read_definition = read_definition
        self._now = now
        self._is_lost = is_lost
        self._again = again
        self._share = share
        self._tell = tell
        self._fetch = fetch
        self._archive = archive
        self._starts_queued = start_queued
        self._room = Room(mirror)
        self._waiting = WaitingRuns()
        self._lock = renewed(Lock())
        self._notes: dict[str, list[Fetched]] = {}
        self._ended: dict[str, set[str]] = {}
        self._progress: dict[str, _Progress] = {}

    def advance(self, run_id: str) -> None:
        """Bring a run as far as it gets now."""
        progress = self._progress.setdefault(run_id, _Progress())
        self._mirror.wait_for(progress.committed, _BEHIND_SECONDS)
        with self._lock:  # first: what is seen is then at least as new
            progress.ended |= self._ended.pop(run_id, set())
        seen = self._look(run_id)
        if seen is None:
            self._progress.pop(run_id, None)
            return
        try:
            definition = self._read_definition(run_id)
        except NotFoundError:
            self._forget_lost(seen)
            return
        with self._lock:
            notes = self._notes.pop(run_id, [])
        with self._room.placing() as placing:
            step = Step(seen, definition, self._limits(seen.stored.run), self._now())
            step.decide(notes, placing)
            self._waiting.put(run_id, step.unplaced)
            if step.run == seen.stored.run and not step.ops:
                self._fetch_ended(seen.stored.run, progress)
                self._follow_up(seen.stored, progress)
                return
            revision = self._store.commit(seen.stored, step.run, step.compare, step.ops)
            if revision:
                placing.committed(revision)
        if not revision:
            with self._lock:
                self._notes[run_id] = notes + self._notes.get(run_id, [])
            self._mirror.wait_for(seen.revision + 1, _BEHIND_SECONDS)
            self._again(run_id)
            return
        progress.committed = revision  # its event brings us back, to decide on what is now
        for task in step.tell:
            self._tell(task)
        self._fetch_ended(seen.stored.run, progress, urgent=not progress.thorough)
        progress.unfetched -= {note.task_id for note in notes if not advance.to_fetch(step.run.tasks[note.task_id])}

    def _forget_lost(self, seen: Seen) -> None:
        """Remove a run whose configuration is lost: a recovery took a state from before the run was made."""
        run = seen.stored.run
        ops = [*delete_ops(run), *(op for task in seen.held.values() for op in forget_ops(task))]
        if self._store.write(self._store.run_compare(seen.stored), ops):
            logger.error("run %s is lost, and removed: the store was recovered to a state from before it", run.id)

    def tasks_ended(self, run_id: str, tasks: Iterable[str]) -> None:
        """Note that tasks of a run have ended: what they left is to be fetched."""
        with self._lock:
            self._ended.setdefault(run_id, set()).update(tasks)

    def look_over(self, run_id: str) -> None:
        """Ask for a run to be advanced with nothing about it taken for known: part of the sweep."""
        progress = self._progress.get(run_id)
        if progress is not None:
            progress.thorough = True

    def settle(self, run_id: str, fetched: Iterable[Fetched]) -> None:
        """Note that logs or archives of a run were fetched, or are lost; part of its next step."""
        with self._lock:
            self._notes.setdefault(run_id, []).extend(fetched)
        self._again(run_id)

    def executor_moved(self, executor_id: str) -> None:
        """Look at what waits for an executor that came or has room, or at the tasks of one that is gone."""
        with self._mirror.condition:
            tasks = self._mirror.tasks
            executor = self._mirror.executors.get(executor_id)
            room: int | None = None
            if executor is not None and executor.active_tasks_limit:
                room = executor.active_tasks_limit - tasks.load[executor_id]
            here = executor is not None and executor_id in self._mirror.alive
            held = [tasks.by_id[task_id] for task_id in tasks.by_executor.get(executor_id, ())] if not here else []
        if here and executor is not None:
            concerned = self._waiting.first(executor, room)
        else:
            concerned = list({task.run_id for task in held if not task.status.phase.is_finished})
        for run_id in concerned:
            self._share(run_id)

    def _look(self, run_id: str) -> Seen | None:
        """Return what is to be decided on; None for a run that is no longer active, whose tasks are forgotten."""
        with self._mirror.condition:
            stored = self._mirror.runs.get(run_id)
            held = dict(self._mirror.tasks.by_run.get(run_id, {}))
            revision = self._mirror.revision
            owners = {task.status.executor_id for task in held.values() if not task.status.phase.is_finished}
            gone = {name: "executor deleted" for name in owners if name not in self._mirror.executors}
        if stored is None:
            self._waiting.put(run_id, [])
            with self._lock:
                self._notes.pop(run_id, None)
                self._ended.pop(run_id, None)
            self._store.forget_tasks(held.values())
            return None
        gone.update({name: "executor lost" for name in owners - gone.keys() if self._is_lost(name)})
        return Seen(stored, held, gone, revision)

    def _limits(self, run: Run) -> Limits:
        coordinator = self._store.coordinator
        own = len(part_sizes(len(run.tasks))) + 8  # the run, its event, and slots
        return Limits(min(_MOST_OPS, coordinator.max_txn_ops) - own, coordinator.max_txn_bytes // 2)

    # Afterwards

    def _fetch_ended(self, run: Run, progress: _Progress, *, urgent: bool = False) -> None:
        """Ask for what ended tasks left; only for those with archives, which others wait for, where it is urgent."""
        if progress.thorough and not urgent:
            progress.thorough = False
            progress.unfetched.clear()
            progress.ended = set(run.tasks)
        looked = {task_id for task_id in progress.ended if not urgent or run.tasks[task_id].workspace_archives}
        progress.ended -= looked
        for task_id in looked:
            if advance.to_fetch(run.tasks[task_id]):
                progress.unfetched.add(task_id)
                self._fetch(run.id, task_id)

    def _follow_up(self, stored: Stored, progress: _Progress) -> None:
        """Begin what a run that gets no further by itself waits for."""
        run = stored.run
        if run.phase.is_finished:
            following = self._mirror.runs.next_queued(run.group)
            if following is not None:
                self._again(following)
            # Another service may have fetched some of it.
            progress.unfetched = {task_id for task_id in progress.unfetched if advance.to_fetch(run.tasks[task_id])}
            if not progress.unfetched:
                self._archive(stored)
        elif run.phase is RunPhase.QUEUED and self._starts_queued:
            self._start_queued(run)

    def _start_queued(self, run: Run) -> None:
        """Start a queued run unless another of its group runs or waits before it: Agola's scheduler's rule.

        Agola's scheduler guards it by a change group of the run's group; so does this, and both may be at work.
        """
        if self._mirror.runs.next_queued(run.group) != run.id:
            return
        group = sha256(f"changegroup-{run.group}".encode()).hexdigest()
        token = self._store.groups.token([group])
        self._mirror.wait_for((GroupsToken.decode(token).groups or {})[group], _BEHIND_SECONDS)
        with self._mirror.condition:
            if self._mirror.runs.next_queued(run.group) != run.id:
                return

        def start(current: Run) -> Run:
            if current.phase is not RunPhase.QUEUED:
                return current
            return replace(current, phase=RunPhase.RUNNING, start_time=self._now())

        try:
            self._store.change_run(run.id, start, token)
        except ConflictError:
            self._again(run.id)
        except AgolaError:  # it is gone, or the coordinator is: the sweep looks again
            logger.info("run %s was not started", run.id, exc_info=True)
