"""What the last runs of a group tell: how long they took, how they ended, which tasks are slow or unsteady. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from statistics import median

import msgspec

from agola_core.runservice.model.types import Run, RunConfig, RunResult, TaskStatus
from agola_http.page.views import in_words, state_of, took

BAR_WIDTH, BAR_HEIGHT = 8, 28
_LEAST_HEIGHT = 3
_SHOWN_TASKS = 5


class RunBar(msgspec.Struct, frozen=True):
    """A run as a bar: its place and height in pixels."""

    id: str
    title: str
    state: str
    x: int
    height: int


class GroupHistory(msgspec.Struct, frozen=True):
    """The last runs of a group.

    Attributes:
        group: The group.
        bars: The runs, oldest first.
        rate: How many of those that succeeded or failed succeeded, in words; "" for none.
        median: What half of them took at most.
        newest: The newest one's id.
        state: The newest one's.
    """

    group: str
    bars: tuple[RunBar, ...]
    rate: str
    median: str
    newest: str
    state: str


class TaskHistory(msgspec.Struct, frozen=True):
    """A task, by its name, in the last runs of a group.

    Attributes:
        name: Its name.
        ran: In how many runs it succeeded or failed.
        failed: In how many it failed.
        changes: How often it ended otherwise than in the run before.
        seconds: The median of what it took.
        median: The same in words.
    """

    name: str
    ran: int
    failed: int
    changes: int
    seconds: float
    median: str


def by_group(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Return runs by their groups, in the order in which the groups come up."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.group, []).append(run)
    return found


def group_history(group: str, runs: list[Run], now: datetime) -> GroupHistory:
    """Return the history of a group.

    Args:
        group: The group.
        runs: Its last runs, newest first; not empty.
        now: What those that go on took until now.
    """
    spans = [_seconds(run.start_time, run.end_time or now) for run in runs]
    longest = max(spans) or 1.0
    bars = tuple(
        RunBar(
            run.id,
            f"#{run.counter} {state_of(run)} {took(run.start_time, run.end_time, now)}",
            state_of(run),
            place * BAR_WIDTH,
            max(_LEAST_HEIGHT, round(BAR_HEIGHT * seconds / longest)),
        )
        for place, (run, seconds) in enumerate(zip(reversed(runs), reversed(spans), strict=True))
    )
    ended = [run for run in runs if run.result in {RunResult.SUCCESS, RunResult.FAILED}]
    good = sum(run.result is RunResult.SUCCESS for run in ended)
    rate = f"{100 * good / len(ended):.0f} % of {len(ended)}" if ended else ""
    middle = median(_seconds(run.start_time, run.end_time) for run in ended) if ended else 0.0
    return GroupHistory(group, bars, rate, in_words(middle) if ended else "", runs[0].id, state_of(runs[0]))


def task_histories(runs: list[tuple[Run, RunConfig]]) -> tuple[list[TaskHistory], list[TaskHistory]]:
    """Return the slowest tasks, and those that most often ended otherwise than in the run before.

    Args:
        runs: The last runs, newest first, each with its configuration.
    """
    found: dict[str, list[tuple[bool, float]]] = {}
    for run, config in reversed(runs):
        for task in config.tasks.values():
            state = run.tasks.get(task.id)
            if state is not None and state.status in {TaskStatus.SUCCESS, TaskStatus.FAILED}:
                ended = state.status is TaskStatus.FAILED, _seconds(state.start_time, state.end_time)
                found.setdefault(task.name, []).append(ended)
    tasks = [_task_history(name, ends) for name, ends in found.items()]
    slowest = sorted(tasks, key=lambda task: (-task.seconds, task.name))[:_SHOWN_TASKS]
    unsteady = sorted((task for task in tasks if task.changes), key=lambda task: (-task.changes, task.name))
    return slowest, unsteady[:_SHOWN_TASKS]


def _task_history(name: str, ends: list[tuple[bool, float]]) -> TaskHistory:
    middle = median(seconds for _, seconds in ends)
    changes = sum(before != after for (before, _), (after, _) in pairwise(ends))
    return TaskHistory(name, len(ends), sum(failed for failed, _ in ends), changes, middle, in_words(middle))


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return max(0.0, (end - start).total_seconds()) if start and end else 0.0
