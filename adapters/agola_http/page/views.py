"""View models of runs, tasks and steps for the templates. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

from agola_core.errors import NotFoundError
from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.run_event import event_of
from agola_core.runservice.model.types import (
    ExecutorPhase,
    Run,
    RunConfig,
    RunConfigTask,
    RunPhase,
    RunResult,
    RunStep,
    RunTask,
    RunTaskStep,
    TaskStatus,
)

_MARKS = {
    "success": "✓",
    "failed": "✗",
    "setuperror": "✗",
    "running": "▶",
    "stopped": "■",
    "cancelled": "■",
    "skipped": "↷",
    "waiting": "?",
    "ignored": "!",
}
WAITING = "waiting"
"""The state of a task, and so of its run, that waits for somebody's approval."""
IGNORED = "ignored"
"""The state of a task that failed and whose failure does not count."""
_DIGITS = re.compile(r"([0-9]{1,15})")
_RANKS = {"failed": 0, WAITING: 1, "running": 2, "stopped": 3, IGNORED: 4}


SETUP = "setup"
"""What stands for a step's number where a task's set-up is meant."""


class StepView(msgspec.Struct, frozen=True):
    """A step of a task, or its set-up.

    Attributes:
        key: Its number, or `SETUP`: what an address names it by.
    """

    key: str
    name: str
    state: str
    mark: str
    took: str
    exit_code: int | None
    has_log: bool


class TaskView(msgspec.Struct, frozen=True):
    """A task of a run."""

    id: str
    name: str
    state: str
    mark: str
    took: str
    reason: str
    after: str
    waits: bool
    steps: tuple[StepView, ...]

    def step(self, key: str) -> StepView:
        """Return a step by its key.

        Raises:
            NotFoundError: There is none.
        """
        for step in self.steps:
            if step.key == key:
                return step
        raise NotFoundError(f"task {self.name!r} has no step {key[:80]!r}")


class RunView(msgspec.Struct, frozen=True):
    """A run, as a list or its own page shows it."""

    id: str
    name: str
    number: int
    group: str
    state: str
    mark: str
    took: str
    made: str
    made_at: str
    ago: str
    branch: str
    commit: str
    commit_url: str
    message: str
    by: str
    event: str
    is_finished: bool
    can_stop: bool
    restarted_from: str


def state_of(run: Run) -> str:
    """Return what a run is, in a word: its result, or how far it is, or that it waits for somebody's approval."""
    if run.phase is RunPhase.RUNNING and any(_waits(task) for task in run.tasks.values()):
        return WAITING
    return run.result.value if run.result is not RunResult.UNKNOWN else run.phase.value


def view_run(run: Run, now: datetime) -> RunView:
    """Return what is shown of a run."""
    state = state_of(run)
    return RunView(
        id=run.id,
        name=run.name,
        number=run.counter,
        group=run.group,
        state=state,
        mark=mark(state),
        took=took(run.start_time, run.end_time, now),
        made=run.enqueue_time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if run.enqueue_time else "",
        made_at=run.enqueue_time.astimezone(UTC).isoformat(timespec="seconds") if run.enqueue_time else "",
        ago=ago(run.enqueue_time, now),
        branch=branch_of(run),
        commit=run.annotations.get("commit_sha", "")[:10],
        commit_url=_web_url(run.annotations.get("commit_link", "")),
        message=commit_message(run),
        by=started_by(run),
        event=event_of(run),
        is_finished=run.phase.is_finished,
        can_stop=run.phase is RunPhase.QUEUED or (run.phase is RunPhase.RUNNING and not run.stop),
        restarted_from=run.restarted_from,
    )


def view_tasks(bundle: RunBundle, now: datetime) -> list[TaskView]:
    """Return what is shown of a run's tasks: those that failed or wait first, the rest in the order of the graph."""
    config = bundle.run_config.tasks
    ordered = sorted(config.values(), key=lambda task: (task.level, natural(task.name)))
    tasks = [
        _view_task(task, config, bundle.run.tasks[task.id], now) for task in ordered if task.id in bundle.run.tasks
    ]
    return sorted(tasks, key=lambda task: _RANKS.get(task.state, len(_RANKS)))


def unnamed_config(run: Run) -> RunConfig:
    """Return a configuration in the place of one that cannot be read: ids and numbers stand for names."""
    tasks = {
        task.id: RunConfigTask(
            id=task.id,
            name=task.id,
            depends={},
            steps=[RunStep(name=f"step {number}") for number in range(1, len(task.steps) + 1)],
        )
        for task in run.tasks.values()
    }
    return RunConfig(id=run.id, name=run.name, group=run.group, tasks=tasks)


def branch_of(run: Run) -> str:
    """Return the branch, tag or reference that a run is of, as far as it says so."""
    return next((run.annotations[name] for name in ("branch", "tag", "ref") if run.annotations.get(name)), "")


def commit_message(run: Run) -> str:
    """Return the first line of the message of a run's commit, as far as it says so."""
    return run.annotations.get("message", "").strip().partition("\n")[0]


def started_by(run: Run) -> str:
    """Return who started a run, as far as it says so."""
    return next(
        (run.annotations[name] for name in ("webhook_sender", "user", "user_id") if run.annotations.get(name)), ""
    )


def ago(time: datetime | None, now: datetime) -> str:
    """Return how long ago something was, in words."""
    if time is None:
        return ""
    seconds = max(0.0, (now - time).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "now" if seconds < 5 else f"{seconds // 10 * 10 or 5:.0f} s ago"


def _web_url(url: str) -> str:
    return url if url.startswith(("https://", "http://")) else ""


def mark(state: str) -> str:
    """Return the sign of a state; it is never told by its colour alone."""
    return _MARKS.get(state, "·")


def took(start: datetime | None, end: datetime | None, now: datetime) -> str:
    """Return how long something took, or has taken until now; "" before it starts."""
    return in_words(max(0.0, ((end or now) - start).total_seconds())) if start else ""


def in_words(seconds: float) -> str:
    """Return a duration, in seconds, as people read it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {int(seconds % 60)} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def step_name(step: object) -> str:
    """Return what people call a step."""
    name = getattr(step, "name", "") or ""
    if isinstance(step, RunStep):
        return name or step.command.strip().split("\n")[0]
    return name or type(step).__name__


def _view_task(task: RunConfigTask, config: dict[str, RunConfigTask], state: RunTask, now: datetime) -> TaskView:
    word = WAITING if _waits(state) else state.status.value
    if task.ignore_failure and state.status is TaskStatus.FAILED:
        word = IGNORED
    names = sorted(config[parent].name for parent in task.depends or {} if parent in config)
    steps = [
        _view_step(str(number), step_name(step), item, now)
        for number, (step, item) in enumerate(zip(task.steps, state.steps, strict=False))
    ]
    setup = _view_step(SETUP, "Set-up", state.setup_step, now)
    if setup.has_log:
        steps.insert(0, setup)
    return TaskView(
        id=task.id,
        name=task.name,
        state=word,
        mark=mark(word),
        took=took(state.start_time, state.end_time, now),
        reason=state.reason,
        after=", ".join(names),
        waits=word == WAITING,
        steps=tuple(steps),
    )


def _view_step(key: str, name: str, step: RunTaskStep, now: datetime) -> StepView:
    state = (step.phase or ExecutorPhase.NOT_STARTED).value
    return StepView(
        key=key,
        name=name,
        state=state,
        mark=mark(state),
        took=took(step.start_time, step.end_time, now),
        exit_code=step.exit_code,
        has_log=step.phase not in {None, ExecutorPhase.NOT_STARTED},
    )


def natural(name: str) -> list[tuple[int, str]]:
    """Return what names are ordered by: numbers in them as numbers, so that part 2 stands before part 10."""
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(_DIGITS.split(name))]


def _waits(task: RunTask) -> bool:
    return task.waiting_approval and task.status is TaskStatus.NOT_STARTED
