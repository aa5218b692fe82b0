"""Shows the progress of long work as a bar on a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from agola_core.runtime.progress import Report

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """Shows reports as a bar on standard error. A context manager; itself what takes the reports."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, report: Report) -> None:
        """Show a report."""
        if self._progress is None:
            return
        size, rate = f"{report.size / 1e6:,.1f} MB", f"{report.rate:,.0f}/s"
        total = max(report.total, report.done) if report.total is not None else None
        if self._task is None:
            self._task = self._progress.add_task(report.work, total=total, size=size, rate=rate)
        if report.ended:
            total = report.done
        self._progress.update(self._task, completed=report.done, total=total, size=size, rate=rate)

    def __enter__(self) -> Self:
        """Begin to show, if standard error is a terminal."""
        if sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415 - slow to import
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[size]}"),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state standing."""
        if self._progress is not None:
            self._progress.stop()
