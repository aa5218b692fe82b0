"""Shows the progress of long work as a bar on a terminal; elsewhere nothing, or a line now and then."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from agola_core.runtime.progress import Report

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


_LINE_SECONDS = 5.0


class Bar:
    """Shows reports as a bar on standard error. A context manager; itself what takes the reports.

    Args:
        lines: Where standard error is no terminal, tell of work that takes long by a line every five seconds.
    """

    def __init__(self, *, lines: bool = False) -> None:
        self._lines = lines
        self._told = 0.0
        self._is_open = False
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, report: Report) -> None:
        """Show a report."""
        if self._progress is None and self._is_open and sys.stderr.isatty():
            self._progress = _started()
        if self._progress is None:
            self._tell(report)
            return
        size, rate = f"{report.size / 1e6:,.1f} MB", f"{report.rate:,.0f}/s"
        total = max(report.total, report.done) if report.total is not None else None
        if self._task is None:
            self._task = self._progress.add_task(report.work, total=total, size=size, rate=rate)
        if report.ended:
            total = report.done
        self._progress.update(self._task, completed=report.done, total=total, size=size, rate=rate)
        if report.ended:
            self._stop()

    def __enter__(self) -> Self:
        """Begin to show, from the first report on."""
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state standing."""
        self._is_open = False
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None
        self._told = 0.0

    def _tell(self, report: Report) -> None:
        if self._lines and (report.seconds - self._told >= _LINE_SECONDS or (report.ended and self._told)):
            self._told = 0.0 if report.ended else report.seconds
            of = "" if report.total is None or report.ended else f" of about {report.total:,}"
            click.echo(f"{report.work}: {report.done:,}{of}, {report.rate:,.0f}/s", err=True)


def _started() -> Progress:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[size]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    progress.start()
    return progress
