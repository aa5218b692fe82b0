"""Advances one run by one step: records what its executors reported, starts tasks, and finishes it.

`advance` is called for a run whenever the coordinator changed part of it, by one thread at a time. It reads the mirror,
decides (see `transition` and the pure `rules.advance`), and commits everything in one transaction, with compares of the
revisions that it saw. A decision that was overtaken is refused, and made again once the mirror has caught up. An
executor is told of a task only after the commit, so no two services start it twice.
"""

from __future__ import annotations

import logging
import time
from hashlib import sha256

from msgspec.structs import replace

from agola_core.errors import AgolaError, ConflictError, NotFoundError
from agola_core.runservice.archive.archiver import Archiver
from agola_core.runservice.artifacts.fetcher import Fetcher
from agola_core.runservice.model.options import ServiceOptions
from agola_core.runservice.model.types import Run, RunPhase
from agola_core.runservice.rules import advance
from agola_core.runservice.scheduling.dispatch import Dispatcher
from agola_core.runservice.scheduling.run_ownership import RunOwnership
from agola_core.runservice.scheduling.slots import ExecutorSlots, WaitingRuns
from agola_core.runservice.scheduling.transition import Limits, RunSnapshot, Transition
from agola_core.runservice.state.change_groups import GroupsToken
from agola_core.runservice.state.memory.mirror import Changes
from agola_core.runservice.state.memory.pending import PendingRuns
from agola_core.runservice.state.run_record import delete_ops, part_sizes
from agola_core.runservice.state.run_state import RunState
from agola_core.runservice.state.secrets import SecretStore
from agola_core.runservice.state.store import StoredRun, forget_ops

logger = logging.getLogger(__name__)

_MOST_OPS = 256
_BEHIND_SECONDS = 2.0


class _Progress:
    """What the scheduler knows about a run besides its state; used by one thread at a time.

    Attributes:
        committed: The revision of the newest transition.
        recheck: Whether to look at all its tasks for something to fetch.
        ended: The tasks that have ended and were not looked at since.
        unfetched: The ended tasks that have something to fetch.
    """

    __slots__ = ("committed", "ended", "recheck", "unfetched")

    def __init__(self) -> None:
        self.committed = 0
        self.recheck = True
        self.ended: set[str] = set()
        self.unfetched: set[str] = set()


class Scheduler:
    """Advances runs."""

    def __init__(
        self,
        state: RunState,
        pending: PendingRuns,
        ownership: RunOwnership,
        secrets: SecretStore,
        dispatcher: Dispatcher,
        fetcher: Fetcher,
        archiver: Archiver,
        options: ServiceOptions,
    ) -> None:
        self._state = state
        self._store = state.store
        self._mirror = state.mirror
        self._pending = pending
        self._ownership = ownership
        self._secrets = secrets
        self._dispatcher = dispatcher
        self._fetcher = fetcher
        self._archiver = archiver
        self._options = options
        self._slots = ExecutorSlots(state.mirror)
        self._waiting = WaitingRuns()
        self._progress: dict[str, _Progress] = {}
        self._started = time.monotonic()

    def start(self) -> None:
        """Count the time that silent executors have from now on."""
        self._started = time.monotonic()

    def take(self, changes: Changes) -> None:
        """Queue the runs that changes of the mirror affect."""
        for run_id, tasks in changes.ended.items():
            self._pending.add_ended(run_id, tasks)
        for run_id in changes.runs:
            self._ownership.add(run_id)
        for executor_id in changes.executors:
            self.executor_changed(executor_id)

    def executor_changed(self, executor_id: str) -> None:
        """Queue the runs that wait for an executor with a free slot, or that have tasks on a lost one."""
        with self._mirror.condition:
            tasks = self._mirror.tasks
            executor = self._mirror.executors.get(executor_id)
            free: int | None = None
            if executor is not None and executor.active_tasks_limit:
                free = executor.active_tasks_limit - tasks.load[executor_id]
            here = executor is not None and executor_id in self._mirror.alive
            held = [tasks.by_id[task_id] for task_id in tasks.by_executor.get(executor_id, ())] if not here else []
        if here and executor is not None:
            affected = self._waiting.first(executor, free)
        else:
            affected = list({task.run_id for task in held if not task.status.phase.is_finished})
        for run_id in affected:
            self._ownership.add(run_id)

    def recheck(self, run_id: str) -> None:
        """Queue a run at low priority, to be advanced without cached progress: part of the sweep."""
        progress = self._progress.get(run_id)
        if progress is not None:
            progress.recheck = True
        self._pending.queue.add_low_priority(run_id)

    def advance(self, run_id: str) -> None:
        """Advance a run as far as it gets now."""
        progress = self._progress.setdefault(run_id, _Progress())
        self._mirror.wait_for(progress.committed, _BEHIND_SECONDS)
        progress.ended |= self._pending.take_ended(run_id)  # first: the snapshot is then at least as new
        seen = self._snapshot(run_id)
        if seen is None:
            self._progress.pop(run_id, None)
            return
        run = seen.stored.run
        try:
            definition = self._secrets.find(run_id)
        except NotFoundError:
            self._remove_lost(seen)
            return
        fetched = self._pending.take_fetched(run_id)
        with self._slots.assignment() as assignment:
            transition = Transition(seen, definition, self._limits(run), self._state.now())
            transition.decide(fetched, assignment)
            self._waiting.put(run_id, transition.unplaced)
            if transition.run == run and not transition.ops:
                self._fetch_ended(run, progress)
                self._follow_up(seen.stored, progress)
                return
            revision = self._store.commit(seen.stored, transition.run, transition.compare, transition.ops)
            if revision:
                assignment.committed(revision)
        if not revision:
            self._mirror.wait_for(seen.revision + 1, _BEHIND_SECONDS)
            self._pending.put_back(run_id, fetched)
            return
        progress.committed = revision  # its watch event queues the run again, for what is possible then
        for task in transition.changed_tasks:
            self._dispatcher.tell(task)
        self._fetch_ended(run, progress, urgent=not progress.recheck)
        tasks = transition.run.tasks
        progress.unfetched -= {item.task_id for item in fetched if not advance.to_fetch(tasks[item.task_id])}

    def _remove_lost(self, seen: RunSnapshot) -> None:
        """Remove a run without a configuration: a recovery restored a state from before the run was created."""
        run = seen.stored.run
        ops = [*delete_ops(run), *(op for task in seen.held.values() for op in forget_ops(task))]
        if self._store.write(self._store.run_compare(seen.stored), ops):
            logger.error("run %s is lost, and removed: the store was recovered to a state from before it", run.id)

    def _snapshot(self, run_id: str) -> RunSnapshot | None:
        """Return what is known of a run; None when it is no longer active, and its tasks are deleted."""
        with self._mirror.condition:
            stored = self._mirror.runs.get(run_id)
            held = dict(self._mirror.tasks.by_run.get(run_id, {}))
            revision = self._mirror.revision
            owners = {task.status.executor_id for task in held.values() if not task.status.phase.is_finished}
            gone = {name: "executor deleted" for name in owners if name not in self._mirror.executors}
        if stored is None:
            self._waiting.put(run_id, [])
            self._pending.take_fetched(run_id)
            self._pending.take_ended(run_id)
            self._store.forget_tasks(held.values())
            return None
        gone.update({name: "executor lost" for name in owners - gone.keys() if self._is_lost(name)})
        return RunSnapshot(stored, held, gone, revision)

    def _is_lost(self, executor_id: str) -> bool:
        """Return whether an executor's lease ended, and it had the time to send this service a heartbeat."""
        return executor_id not in self._mirror.alive and (
            time.monotonic() - self._started >= self._options.executor_ttl
        )

    def _limits(self, run: Run) -> Limits:
        coordinator = self._store.coordinator
        own = len(part_sizes(len(run.tasks))) + 8  # the run, its event, and slots
        return Limits(min(_MOST_OPS, coordinator.max_txn_ops) - own, coordinator.max_txn_bytes // 2)

    # Afterwards

    def _fetch_ended(self, run: Run, progress: _Progress, *, urgent: bool = False) -> None:
        """Queue what ended tasks left; if urgent, only tasks with archives, which other tasks wait for."""
        if progress.recheck and not urgent:
            progress.recheck = False
            progress.unfetched.clear()
            progress.ended = set(run.tasks)
        looked = {task_id for task_id in progress.ended if not urgent or run.tasks[task_id].workspace_archives}
        progress.ended -= looked
        for task_id in looked:
            if advance.to_fetch(run.tasks[task_id]):
                progress.unfetched.add(task_id)
                self._fetcher.add(run.id, task_id)

    def _follow_up(self, stored: StoredRun, progress: _Progress) -> None:
        """Begin what comes next for a run that cannot be advanced now."""
        run = stored.run
        if run.phase.is_finished:
            following = self._mirror.runs.next_queued(run.group)
            if following is not None:
                self._pending.queue.add(following)
            # Another service may have fetched some of it.
            progress.unfetched = {task_id for task_id in progress.unfetched if advance.to_fetch(run.tasks[task_id])}
            if not progress.unfetched:
                self._archiver.archive(stored)
        elif run.phase is RunPhase.QUEUED and self._options.start_queued:
            self._start_queued(run)

    def _start_queued(self, run: Run) -> None:
        """Start a queued run unless another of its group runs or was queued before it: Agola's scheduler's rule.

        As Agola's scheduler does, it guards the start by a change group of the run's group, so both may be active.
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
            return replace(current, phase=RunPhase.RUNNING, start_time=self._state.now())

        try:
            self._store.change_run(run.id, start, token)
        except ConflictError:
            self._pending.queue.add(run.id)
        except AgolaError:  # the run or the coordinator is gone: the sweep looks again
            logger.info("run %s was not started", run.id, exc_info=True)
