"""The list of a run's tasks: which are shown, in which folds, and which one is chosen. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

import msgspec

from agola_http.page.views import IGNORED, WAITING, StepView, TaskView

_VARYING = re.compile(r"\d+|\([^()]*\)")
_FOLDED = 4
"""So many tasks of like names in one state are folded."""
_FEW_TASKS, _MANY_TASKS = 12, 100
_AROUND = 20
_OTHERS = "others"
_ALWAYS_OPEN = {"failed", WAITING, "running", IGNORED}


class TaskFold(msgspec.Struct, frozen=True):
    """Tasks that stand together: one by itself, or those of like names in one state.

    Attributes:
        id: The same for the same tasks, whatever their order.
        name: What their names have in common; "" for tasks that are not folded.
        state: Theirs.
        mark: Of the state.
        tasks: The tasks.
        is_open: Whether it is open.
        shown: Those that are sent: all, those around the chosen one if it alone opens the fold, or none.
    """

    id: str
    name: str
    state: str
    mark: str
    tasks: tuple[TaskView, ...]
    is_open: bool
    shown: tuple[TaskView, ...]


def folds(tasks: list[TaskView], text: str, chosen: str, opened: Collection[str] = ()) -> list[TaskFold]:
    """Return the tasks of a list that have a text in their names, like ones folded.

    Args:
        tasks: All, in the order of the list.
        text: The text; the case of letters does not matter.
        chosen: The id of the task that is shown beside the list; its fold is open.
        opened: The ids of the folds that the reader opened.
    """
    found = []
    like: dict[tuple[str, str], list[TaskView]] = {}
    for task in tasks:
        if text.lower() in task.name.lower():
            like.setdefault(_like(task), []).append(task)
    if len(tasks) > _MANY_TASKS:
        like = _with_others(like)
    for (state, name), items in like.items():
        folded = len(tasks) > _FEW_TASKS and len(items) >= _FOLDED
        mark = hashlib.blake2b(f"{state} {name}".encode(errors="replace"), digest_size=6).hexdigest()
        all_shown = not folded or bool(text) or state in _ALWAYS_OPEN or mark in opened
        shown = items if all_shown else _around(items, chosen)
        found.append(
            TaskFold(mark, name if folded else "", state, items[0].mark, tuple(items), bool(shown), tuple(shown))
        )
    return found


def choose(tasks: list[TaskView]) -> TaskView | None:
    """Return the task that people look for first: one that failed, waits or runs, else the last one with a log."""
    for task in tasks:
        if task.state in {"failed", WAITING, "running"}:
            return task
    return next((task for task in reversed(tasks) if any(step.has_log for step in task.steps)), None)


def choose_step(task: TaskView) -> StepView | None:
    """Return the step of a task that people look for first: the one that failed or runs, else the last one begun."""
    begun = [step for step in task.steps if step.has_log]
    for state in ("failed", "running", "stopped"):
        for step in begun:
            if step.state == state:
                return step
    return begun[-1] if begun else None


def _around(tasks: list[TaskView], chosen: str) -> list[TaskView]:
    place = next((place for place, task in enumerate(tasks) if task.id == chosen), None)
    return [] if place is None else tasks[max(0, place - _AROUND) : place + _AROUND + 1]


def _with_others(like: dict[tuple[str, str], list[TaskView]]) -> dict[tuple[str, str], list[TaskView]]:
    """Return groups of tasks in which the small ones of a state that nobody looks for first are one."""
    joined: dict[tuple[str, str], list[TaskView]] = {}
    for (state, name), items in like.items():
        small = len(items) < _FOLDED and state not in _ALWAYS_OPEN
        joined.setdefault((state, _OTHERS if small else name), []).extend(items)
    return joined


def _like(task: TaskView) -> tuple[str, str]:
    return task.state, _VARYING.sub("…", task.name)
