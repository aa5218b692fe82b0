"""Handles executors' calls: heartbeats, task status reports, and requests for their tasks."""

from __future__ import annotations

import hmac
from datetime import timedelta

from msgspec.structs import replace

from agola_core.errors import BadRequestError, ForbiddenError, NotFoundError
from agola_core.runservice.model.types import (
    ZERO_TIME,
    Executor,
    ExecutorPhase,
    ExecutorTask,
    ExecutorTaskStatus,
    ExecutorTaskStepStatus,
)
from agola_core.runservice.state.run_state import RunState
from agola_core.runservice.state.secrets import hidden
from agola_core.runtime.clock import boot_clock

_REFRESH = timedelta(seconds=5)
_RENEWALS = 12  # of an executor's lease in its time: each one is a commit
_SEEN_SECONDS = 10.0  # the mirror follows in milliseconds; until it has started, nobody asks it
MAX_ID_BYTES = 200
_MAX_LOG_TEXT = 4096  # of a log that a report brings


class ExecutorSide:
    """Answers executors.

    Args:
        state: Executors and their tasks.
        ttl: Seconds after its last heartbeat at which an executor counts as lost.
    """

    def __init__(self, state: RunState, ttl: float) -> None:
        self._store = state.store
        self._mirror = state.mirror
        self._ttl = ttl
        self._now = state.now
        self._catch_up = state.catch_up
        self._renewed: dict[str, tuple[int, float]] = {}  # by executor: its lease, and when that was last renewed

    def executors(self) -> list[Executor]:
        """Return the executors that have reported themselves, by id, without their tokens."""
        return [replace(executor, listen_token="") for executor in self._store.executors()]

    def is_token_of(self, executor_id: str, token: str) -> bool:
        """Return whether a token is an executor's own, or the executor has none."""
        known = self._mirror.executors.get(executor_id)
        if known is not None and _same(known.listen_token, token):
            return True
        return self._binds(executor_id, token)  # the mirror may be behind

    def take_executor_status(self, executor: Executor, *, proven: bool = False) -> None:
        """Record an executor's heartbeat, with the service's time, and renew its lease.

        The first report that has a token binds the id to it.

        Agola's rule for dynamic executors: those of the same group that the reporting one does not name as its
        siblings are deleted; here only if they no longer send heartbeats.

        Args:
            executor: What it reports.
            proven: Whether the reporter has proved the id by other means than its own token, and may change that.

        Raises:
            BadRequestError: The id is malformed.
            ForbiddenError: The id is bound to another token.
        """
        _check_id(executor.id)
        now = self._now()
        if not proven and self._differs(executor) and not self._binds(executor.id, executor.listen_token):
            raise ForbiddenError(
                f"executor {executor.id!r} is bound to another token: an admin can forget it, then it is bound anew"
            )
        # Before the report itself: an executor that is known and not alive is one that has gone.
        self._keep_alive(executor.id)
        known = self._mirror.executors.get(executor.id)
        if known is None or self._differs(executor) or now - known.last_status_update_time >= _REFRESH:
            self._store.put_executor(replace(executor, last_status_update_time=now))
            if proven:  # a former token counts no longer, and the mirror would still take it for the executor's
                self._catch_up(_SEEN_SECONDS)
        for other in list(self._mirror.executors.values()):
            if (
                other.dynamic
                and other.id not in {executor.id, *executor.siblings_executors}
                and other.executor_group == executor.executor_group
                and other.id not in self._mirror.alive
            ):
                self._store.delete_executor(other.id)

    def _keep_alive(self, executor_id: str) -> None:
        """Renew an executor's lease if that is due; it lasts so much longer that no heartbeat counts for less."""
        pause = self._ttl / _RENEWALS
        lease, now = self._mirror.alive.get(executor_id), boot_clock()
        if lease is not None:
            renewed, since = self._renewed.get(executor_id, (0, 0.0))
            if renewed == lease and now - since < pause:
                return
            if self._store.coordinator.keep_alive(lease) > 0.0:
                self._renewed[executor_id] = lease, now
                return
        self._renewed.pop(executor_id, None)
        self._store.put_alive(executor_id, self._ttl + pause)

    def _differs(self, executor: Executor) -> bool:
        known = self._mirror.executors.get(executor.id)
        return known is None or _content(known) != _content(executor)

    def _binds(self, executor_id: str, token: str) -> bool:
        stored = self._store.executor(executor_id)
        return stored is None or not stored.listen_token or _same(stored.listen_token, token)

    def delete_executor(self, executor_id: str) -> None:
        """Forget an executor; its unfinished tasks fail, or are tried elsewhere. Unknown ones are no error."""
        self._renewed.pop(executor_id, None)
        self._store.delete_executor(executor_id)

    def tasks(self, executor_id: str) -> list[ExecutorTask]:
        """Return every task that is held for an executor, finished ones included."""
        return self._store.tasks_of(executor_id)

    def task(self, task_id: str) -> ExecutorTask:
        """Return one task.

        Raises:
            NotFoundError: No executor holds it any more.
        """
        task = self._store.task(task_id)
        if task is None:
            raise NotFoundError(f"task {task_id!r} does not exist")
        return task

    def take_task_status(self, executor_id: str, reported: ExecutorTask) -> None:
        """Take a task's status from its executor; one of another executor or attempt changes nothing.

        Agola's executors do not know attempts: from them, none is said, and the executor alone decides.

        Raises:
            BadRequestError: There is no such task.
        """

        def change(task: ExecutorTask) -> ExecutorTask:
            if reported.run_id != task.run_id:
                raise BadRequestError(f"task {task.id!r} is not of run {reported.run_id!r}")
            if task.status.executor_id != executor_id or reported.attempt not in {0, task.attempt}:
                return task
            if task.status.phase.is_finished or _sets_back(task, reported):
                return task
            return replace(
                task,
                status=_taken(reported, executor_id, task.secrets),
                setup_error=hidden(reported.setup_error, task.secrets),
                fail_error=hidden(reported.fail_error, task.secrets),
            )

        known = self._mirror.held(reported.run_id, reported.id)
        if known is not None:
            changed = change(known)
            if changed != known and self._store.replace_task(known, changed):
                return  # the usual case; what is known may be old, so it refuses nothing
        if self._store.change_task(reported.id, change) is None:
            raise BadRequestError(f"task {reported.id!r} does not exist")


def _taken(reported: ExecutorTask, executor_id: str, secrets: list[str]) -> ExecutorTaskStatus:
    """Return a reported status without secrets in its texts, and without texts that are no short logs."""

    def checked(step: ExecutorTaskStepStatus) -> ExecutorTaskStepStatus:
        if not step.log_text:
            return step
        is_short = len(step.log_text) <= _MAX_LOG_TEXT
        return replace(step, log_text=hidden(step.log_text, secrets) if is_short else None)

    status = reported.status
    steps = [checked(step) for step in status.steps]
    return replace(status, executor_id=executor_id, setup_step=checked(status.setup_step), steps=steps)


def _same(token: str, shown: str) -> bool:
    return bool(token) and hmac.compare_digest(token.encode(), shown.encode())


def _sets_back(task: ExecutorTask, reported: ExecutorTask) -> bool:
    """Return whether a report is older than what is known: something that began or ended is said not to have."""
    if reported.status.phase.is_finished:
        return False
    return _rank(reported.status.phase) < _rank(task.status.phase) or any(
        _rank(said.phase) < _rank(known.phase)
        for known, said in zip(task.status.steps, reported.status.steps, strict=False)
    )


def _rank(phase: ExecutorPhase) -> int:
    return 0 if phase is ExecutorPhase.NOT_STARTED else 1 + phase.is_finished


def _content(executor: Executor) -> Executor:
    return replace(executor, last_status_update_time=ZERO_TIME)


def _check_id(executor_id: str) -> None:
    if not executor_id or "/" in executor_id or len(executor_id.encode(errors="replace")) > MAX_ID_BYTES:
        raise BadRequestError(f"malformed executor id {executor_id[:80]!r}")
