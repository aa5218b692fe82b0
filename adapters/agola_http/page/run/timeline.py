"""Draws a run's timeline: when each task waited and ran, step by step, and what the run's end waited for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from agola_core.runservice.model.requests import RunBundle
from agola_core.runservice.model.types import RunTask
from agola_http.page.views import in_words, step_name, took

ROW, MARGIN = 30, 22  # in pixels; style.css has the height of a row, too
_MARKS = 5
_SHORT, _SHORT_PIXELS = 1.0, "4"
"""Percent of the width: 4 pixels of a phone's; on a desk one percent are more."""


class Piece(NamedTuple):
    """A part of a bar: what it is, and where it is, in percent of the width.

    One that is shorter than can be seen and met is drawn as wide as can be.
    """

    kind: str
    title: str
    x: float
    width: float

    @property
    def is_short(self) -> bool:
        """Whether it is drawn wider than it is."""
        return self.width < _SHORT

    @property
    def drawn(self) -> tuple[str, str]:
        """Where it is drawn, and how wide."""
        return f"{min(self.x, 100 - _SHORT)}%", _SHORT_PIXELS if self.is_short else f"{self.width}%"


class Bar(NamedTuple):
    """The bar of a task, or of a closed fold of tasks.

    Attributes:
        ids: The tasks that have begun; one that is not in a closed fold stands alone.
        fold: The id of the fold; "" for a task.
        y: How far down it is, in pixels.
        critical: Whether the run's end waited for it, or for one of them.
        pieces: Its parts.
    """

    ids: tuple[str, ...]
    fold: str
    y: int
    critical: bool
    pieces: tuple[Piece, ...]


class Timeline(NamedTuple):
    """A drawn timeline: its height in pixels, and the times that are marked, each with its place in percent."""

    height: int
    bars: tuple[Bar, ...]
    marks: tuple[tuple[float, str], ...]


def timeline(bundle: RunBundle, now: datetime, closed: Mapping[str, str] = MappingProxyType({})) -> Timeline:
    """Return the timeline of a run.

    Args:
        bundle: The run.
        now: Where it ends if the run has not ended.
        closed: The closed folds that tasks are in: a fold is one bar.
    """
    begun = sorted(
        (task for task in bundle.run.tasks.values() if task.start_time), key=lambda task: (task.start_time, task.id)
    )
    start = _start(bundle)
    if not begun or start is None:
        return Timeline(0, (), ())
    end = max([task.end_time or now for task in begun] + [start])
    seconds = (end - start).total_seconds()
    scale = _Scale(start, max(seconds, 0.001))
    critical = critical_path(bundle, now)
    rows: dict[str, list[RunTask]] = {}
    for task in begun:
        rows.setdefault(closed.get(task.id, f"task {task.id}"), []).append(task)
    bars = tuple(
        Bar(
            tuple(task.id for task in tasks),
            closed.get(tasks[0].id, ""),
            MARGIN + row * ROW,
            any(task.id in critical for task in tasks),
            tuple(_pieces(tasks[0], bundle, scale, now) if len(tasks) == 1 else _together(tasks, scale, now)),
        )
        for row, tasks in enumerate(rows.values())
    )
    marks = tuple((100 * part / _MARKS, in_words(seconds * part / _MARKS)) for part in range(_MARKS))
    return Timeline(MARGIN + len(bars) * ROW, bars, marks)


def critical_path(bundle: RunBundle, now: datetime) -> set[str]:
    """Return the tasks that the end of a run waited for: the last one to end, its last parent, and so on.

    Tasks that a restart kept had ended before the run began: it waited for none of them.
    """
    start = _start(bundle)
    begun = (task for task in bundle.run.tasks.values() if task.start_time)
    ends = {task.id: task.end_time or now for task in begun if start is None or (task.end_time or now) >= start}
    config, found = bundle.run_config.tasks, set[str]()
    last = max(ends, key=lambda name: (ends[name], name), default=None)
    while last is not None and last not in found:
        found.add(last)
        parents = [name for name in (config[last].depends or {} if last in config else {}) if name in ends]
        last = max(parents, key=lambda name: (ends[name], name), default=None)
    return found


def _start(bundle: RunBundle) -> datetime | None:
    return bundle.run.start_time or bundle.run.enqueue_time


class _Scale(NamedTuple):
    start: datetime
    seconds: float

    def piece(self, kind: str, title: str, begin: datetime, end: datetime) -> Piece:
        left = self._place(begin)
        return Piece(kind, title, round(left, 3), round(max(self._place(end) - left, 0.0), 3))

    def _place(self, time: datetime) -> float:
        # a task that a restart kept ran before the run
        return min(max(100 * (time - self.start).total_seconds() / self.seconds, 0.0), 100.0)


def _together(tasks: list[RunTask], scale: _Scale, now: datetime) -> list[Piece]:
    """Return the part of a fold's bar: from the first beginning to the last end."""
    begin, end = min(task.start_time or now for task in tasks), max(task.end_time or now for task in tasks)
    return [scale.piece("ran", f"ran within {took(begin, end, now)}", begin, end)]


def _pieces(task: RunTask, bundle: RunBundle, scale: _Scale, now: datetime) -> list[Piece]:
    config = bundle.run_config.tasks.get(task.id)
    parents = (bundle.run.tasks.get(name) for name in (config.depends or {} if config else {}))
    ready = max([parent.end_time for parent in parents if parent and parent.end_time] + [scale.start])
    begin, end = task.start_time or now, task.end_time or now
    pieces = [scale.piece("queued", f"waited {took(ready, begin, now)}", ready, begin)] if begin > ready else []
    pieces.append(scale.piece("ran", f"ran {took(begin, end, now)}", begin, end))
    for step, state in zip(config.steps if config else [], task.steps, strict=False):
        if state.start_time:
            until = state.end_time or now
            title = f"{step_name(step)}: {took(state.start_time, until, now)}"
            pieces.append(scale.piece(f"step {state.phase or ''}", title, state.start_time, until))
    return pieces
