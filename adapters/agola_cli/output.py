"""How records look for people: tables and times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click

from agola_core.runservice.types import Run, RunPhase, RunResult, TaskStatus

_COLOURS = {
    "success": "green",
    "finished": "green",
    "failed": "red",
    "setuperror": "red",
    "stopped": "yellow",
    "cancelled": "yellow",
    "interrupted": "yellow",
    "running": "cyan",
}


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns; coloured words where they are a state, on a terminal."""
    lines = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for number, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        if number:
            cells = [coloured(cell) for cell in cells]
        click.echo("  ".join(cells).rstrip())


def coloured(text: str) -> str:
    """Return a state in its colour."""
    colour = _COLOURS.get(text.strip())
    return click.style(text, fg=colour) if colour else text


def duration(start: datetime | None, end: datetime | None) -> str:
    """Return how long something took, or has taken."""
    if start is None:
        return ""
    seconds = ((end or datetime.now(UTC)) - start).total_seconds()
    if seconds < 60:
        return f"{seconds:.1f}s"
    return f"{int(seconds // 60)}m{int(seconds % 60):02}s"


def outcome(run: Run, *, live: bool) -> str:
    """Return what a run is, in a word: its result, or how far it is; interrupted when nobody works on it."""
    if run.result is not RunResult.UNKNOWN:
        return run.result.value
    if run.phase in {RunPhase.RUNNING, RunPhase.QUEUED} and not live:
        return "interrupted"
    return run.phase.value


def task_mark(status: TaskStatus) -> str:
    """Return the sign of a task's state."""
    return {
        TaskStatus.NOT_STARTED: "·",
        TaskStatus.RUNNING: "▶",
        TaskStatus.SUCCESS: "✓",
        TaskStatus.FAILED: "✗",
        TaskStatus.STOPPED: "■",
        TaskStatus.CANCELLED: "■",
        TaskStatus.SKIPPED: "↷",
    }[status]
