"""`agola-core runs logs`: prints the logs of a run's steps, or follows them while they grow."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain

import click
import msgspec

from agola_cli.connect.run_names import resolve_run
from agola_cli.connect.target import Service, Target, target_options
from agola_cli.options.types import REGEXP, TIME, Whole
from agola_cli.output.display import PlainDisplay, step_name
from agola_cli.output.records import printable
from agola_cli.runs.launch.selection import is_called
from agola_cli.runs.log_follower import LogFollower, for_each_line
from agola_cli.runs.patience import Patience
from agola_cli.runs.timed_line import shown_time, timed_line
from agola_core.encoding.suggestions import did_you_mean
from agola_core.errors import AgolaError, BadRequestError, NotFoundError, UnavailableError
from agola_core.runservice.model.requests import LogPart, RunBundle
from agola_core.runservice.model.types import ExecutorPhase, RunConfigTask, RunResult, RunTaskStep

_WAIT_SECONDS = 0.5
_MOST_LINES = 2**40  # of any log: below the machine's largest integer


@click.command("logs")
@click.argument("run_id", metavar="RUN")
@click.option(
    "--task", "task_names", multiple=True, metavar="NAME", help="Only this task, or tasks of this matrix; repeatable."
)
@click.option("--step", type=Whole(0), help="Only this step, from 0.")
@click.option("--setup", is_flag=True, help="The log of the task's set-up.")
@click.option("--failed", is_flag=True, help="Only the steps that failed.")
@click.option("--tail", type=Whole(0), metavar="N", help="Only the last N lines of each step.")
@click.option("--grep", type=REGEXP, metavar="REGEXP", help="Only the lines in which this regular expression is found.")
@click.option("--since", type=TIME, help="Only the lines that were written from this time on.")
@click.option("--timestamps", is_flag=True, help="Show before each line when it was written.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends; each line with its task's name in front.")
@target_options
def logs_command(
    run_id: str,
    task_names: tuple[str, ...],
    step: int | None,
    setup: bool,
    failed: bool,
    tail: int | None,
    grep: re.Pattern[str] | None,
    since: datetime | None,
    timestamps: bool,
    follow: bool,
    target: Target,
) -> int:
    """Print the logs of a run; RUN is an id, a number, or `last`.

    \b
    agola-core runs logs last --task build --step 1
    agola-core runs logs last --task build --setup
    agola-core runs logs last --failed --tail 20
    agola-core runs logs last --grep 'error|warning'
    agola-core runs logs last --timestamps --since 10m     what was written in the last ten minutes
    agola-core runs logs last -f              several tasks at once; ends with 1 when the run fails
    agola-core runs logs last -f --timestamps --tail 20

    A log of an older version has no times of its lines: `-` stands for them, and --since takes it whole. Where a log
    cannot be read the command ends with 3; with --follow a service that is away is waited for, two minutes each time.
    """
    with target.open_service() as connection:
        service = connection.service
        bundle = service.get_run(resolve_run(service, run_id))
        tasks = chosen_tasks(bundle, task_names)
        most = None if tail is None else min(tail, _MOST_LINES)
        if not follow:
            _check_step(tasks, step)
            logs = list(_logs(tasks, step, setup=setup))
            if failed:
                logs = [item for item in logs if _has_failed(bundle, item[0], item[1])]
            if since is not None:
                logs = [item for item in logs if _ran_since(bundle, item[0], item[1], since)]
            chosen = _Filter(most, grep, since, timestamps)
            _print_logs(service, bundle, logs, chosen, one_step=step is not None or setup)
            return 0
        if step is not None or setup or failed or grep:
            raise BadRequestError("--follow shows whole tasks: leave out --step, --setup, --failed and --grep")
        if not connection.live and not bundle.run.phase.is_finished:
            raise BadRequestError("no service works on this store: the run does not go on")
        display = PlainDisplay(bundle, option=connection.option)
        patience = Patience(service, lambda text: click.echo(text, err=True), connection.option)
        part = LogPart(timestamps=timestamps, since=since, tail=most)
        return _follow(patience, bundle, {task.id for task in tasks}, display, part)


class _Filter(msgspec.Struct, frozen=True):
    """Which lines of a log are shown, and how.

    Attributes:
        tail: Only the last ones, so many; None for all.
        grep: Only those in which it is found; None for all.
        since: Only those that were written from this time on; None for all.
        timestamps: Each with its time.
    """

    tail: int | None
    grep: re.Pattern[str] | None
    since: datetime | None
    timestamps: bool

    @property
    def part(self) -> LogPart:
        """What of a log is asked for."""
        tail = self.tail if self.grep is None else None
        return LogPart(timestamps=self.timestamps or self.since is not None, since=self.since, tail=tail)

    def show(self, pieces: Iterator[bytes], write: Callable[[bytes], object]) -> int:
        """Write what is shown of a log; return how many lines have no known time although it was asked for.

        Args:
            pieces: The log.
            write: Takes it.
        """
        if self == _EVERYTHING:
            for piece in pieces:
                write(piece)
            return 0
        last: deque[str] = deque(maxlen=self.tail)
        put = last.append if self.tail is not None else lambda line: write(f"{line}\n".encode())
        untimed = 0

        def show(line: str) -> None:
            nonlocal untimed
            time = ""
            if self.part.timestamps:
                line, written = timed_line(line)
                untimed += written is None
                time = f"{shown_time(written)} " if self.timestamps else ""
            if self.grep is None or self.grep.search(line):
                put(time + line)

        for_each_line(pieces, show)
        for line in last:
            write(f"{line}\n".encode())
        return untimed


_EVERYTHING = _Filter(None, None, None, timestamps=False)


def _print_logs(
    service: Service, bundle: RunBundle, logs: list[tuple[str, int | None, str]], chosen: _Filter, *, one_step: bool
) -> None:
    output = sys.stdout.buffer
    unread = 0
    for task_id, number, title in logs:
        try:
            pieces = service.open_log(bundle.run.id, task_id, number, part=chosen.part)
            first = next(pieces, b"")
        except AgolaError as error:
            if one_step:
                raise
            if isinstance(error, NotFoundError) and not _has_begun(bundle, task_id, number):
                continue
            unread += 1
            why = "it is not in the store" if isinstance(error, NotFoundError) else error
            click.echo(f"the log of {title} cannot be read: {why}", err=True)
            continue
        if not one_step:
            click.echo(f"--- {title}", err=True)
        untimed = chosen.show(chain([first], pieces), output.write)
        output.flush()
        if untimed:
            click.echo(f"{title}: it is not known when {untimed} of these lines were written", err=True)
    if unread:
        raise UnavailableError(f"{unread} of the logs could not be read")


def _status(bundle: RunBundle, task_id: str, step: int | None) -> RunTaskStep:
    task = bundle.run.tasks[task_id]
    return task.setup_step if step is None else task.steps[step]


def _has_begun(bundle: RunBundle, task_id: str, step: int | None) -> bool:
    """Return whether there was a log: a step that never began has none."""
    return _status(bundle, task_id, step).start_time is not None


def _has_failed(bundle: RunBundle, task_id: str, step: int | None) -> bool:
    return _status(bundle, task_id, step).phase is ExecutorPhase.FAILED


def _ran_since(bundle: RunBundle, task_id: str, step: int | None, since: datetime) -> bool:
    status = _status(bundle, task_id, step)
    return status.start_time is not None and (status.end_time is None or status.end_time >= since)


def _follow(patience: Patience, bundle: RunBundle, wanted: set[str], display: PlainDisplay, part: LogPart) -> int:
    run = bundle.run
    follower = LogFollower(patience, display, bundle.run_config.tasks, wanted.__contains__, part=part)
    follower.take(run)
    while not run.phase.is_finished and not all(run.tasks[item].status.is_finished for item in wanted):
        run = patience.wait_change(run, _WAIT_SECONDS)
        follower.take(run)
        if display.failure is not None:
            raise display.failure
    follower.join()
    if follower.has_lost:
        raise UnavailableError("not all of the logs could be read")
    return 1 if run.result in {RunResult.FAILED, RunResult.STOPPED} else 0


def _check_step(tasks: list[RunConfigTask], step: int | None) -> None:
    if step is not None and all(step >= len(task.steps) for task in tasks):
        most = max((len(task.steps) for task in tasks), default=0)
        raise NotFoundError(f"no such step: {step}; the tasks have at most {most}, counted from 0")


def chosen_tasks(bundle: RunBundle, names: tuple[str, ...]) -> list[RunConfigTask]:
    """Return the tasks of a run that have one of the names, or are of a matrix of one; all of them without any.

    Raises:
        NotFoundError: No task has one of the names.
    """
    tasks = sorted(bundle.run_config.tasks.values(), key=lambda item: (item.level, item.name))
    for name in names:
        if not any(is_called(task.name, name) for task in tasks):
            known = sorted(task.name for task in tasks)
            hint = did_you_mean(name, known) or f"; there are {', '.join(map(repr, known)) or 'none'}"
            raise NotFoundError(f"run {bundle.run.id} has no task {name!r}{hint}")
    return [task for task in tasks if not names or any(is_called(task.name, name) for name in names)]


def _logs(tasks: list[RunConfigTask], step: int | None, *, setup: bool) -> Iterator[tuple[str, int | None, str]]:
    for task in tasks:
        if setup:
            yield task.id, None, f"{printable(task.name)}: set-up"
            continue
        for number, item in enumerate(task.steps):
            if step is None or number == step:
                yield task.id, number, f"{printable(task.name)}: {step_name(item)}"
