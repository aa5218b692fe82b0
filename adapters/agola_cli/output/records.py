"""Prints records: as tables for people, as JSON and CSV for programs."""

from __future__ import annotations

import csv
import enum
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence, Sized
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec

from agola_core.runservice.model.types import Run, RunPhase, RunResult, TaskStatus

_LEAST_COLUMNS = 4

F = TypeVar("F", bound=Callable[..., Any])

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


class OutputFormat(enum.StrEnum):
    """How a command prints its records."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"


def format_options(function: F) -> F:
    """Add `-o FORMAT` and `--json`; the command takes `output` and passes it to `print_records`."""
    formats = click.Choice([item.value for item in OutputFormat])
    function = click.option("--json", "output", flag_value="json", help="The same as -o json.")(function)
    return click.option(
        "-o",
        "--output-format",
        "output",
        type=formats,
        default="table",
        show_default=True,
        envvar="AGOLA_OUTPUT_FORMAT",
        show_envvar=True,
        help="The format on standard output.",
    )(function)


def print_records(
    output: str, records: Sequence[object], headings: Sequence[str], row: Callable[[Any], Sequence[object]]
) -> None:
    """Print records in a format.

    Args:
        output: An `OutputFormat`.
        records: What the formats for programs print.
        headings: Of the columns.
        row: Makes a record's cells, for tables and CSV.
    """
    match OutputFormat(output):
        case OutputFormat.TABLE:
            print_table(headings, ([str(cell) for cell in row(record)] for record in records))
        case OutputFormat.JSON:
            click.echo(msgspec.json.encode(records))
        case OutputFormat.NDJSON:
            for record in records:
                click.echo(msgspec.json.encode(record))
        case OutputFormat.CSV:
            buffer = io.StringIO()
            writer = csv.writer(buffer, lineterminator="\n")
            writer.writerow([heading.lower() for heading in headings])
            writer.writerows(row(record) for record in records)
            click.echo(buffer.getvalue(), nl=False)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns, each on one line; states are coloured on a terminal.

    Where a terminal is too narrow the last columns are left out, down to the first four, and named on standard error;
    when those do not fit either, each row becomes a block of lines, so that nothing is cut.
    """
    lines = [list(headings), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    space = _terminal_width()
    while space is not None and len(widths) > _LEAST_COLUMNS and _width(widths) > space:
        widths.pop()
    if space is not None and _width(widths) > space:
        _print_blocks(lines)
        return
    for number, line in enumerate(lines):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        if number:
            cells = [coloured(cell) for cell in cells]
        click.echo("  ".join(cells).rstrip())
    if missing := headings[len(widths) :]:
        click.echo(f"left out, as the terminal is narrow: {', '.join(missing)}", err=True)


def _print_blocks(lines: list[list[str]]) -> None:
    headings = lines[0]
    width = max(len(heading) for heading in headings)
    for number, line in enumerate(lines[1:]):
        if number:
            click.echo()
        for heading, cell in zip(headings, line, strict=True):
            click.echo(f"{heading.ljust(width)}  {coloured(cell)}".rstrip())


def _width(widths: list[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _terminal_width() -> int | None:
    """Return the width of the terminal; None where the output goes elsewhere."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return None
    return shutil.get_terminal_size().columns


def coloured(text: str) -> str:
    """Return a state in its colour."""
    return styled(text, _COLOURS.get(text.strip()))


def styled(text: str, colour: str | None) -> str:
    """Return a text in a colour, unless the terminal or the user wants none."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return text if plain or colour is None else click.style(text, fg=colour)


def printable(text: str) -> str:
    """Return a text that somebody else wrote, on one line, without what a terminal would take for a command."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def echo_foreign(line: str) -> None:
    """Print a line that somebody else wrote: made harmless on a terminal, its very bytes elsewhere."""
    click.echo(printable(line) if sys.stdout.isatty() else line.encode(errors="surrogateescape"))


def counted(items: Sized, noun: str) -> str:
    """Return how many items there are, in words: `1 object`, `2 objects`."""
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


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
