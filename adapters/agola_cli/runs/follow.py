"""Follows a run to its result: shows its state and logs, and stops it on Ctrl-C."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from agola_cli.connect.run_names import runs_before
from agola_cli.output.display import Display, PlainDisplay
from agola_cli.runs.interruption import Interruption
from agola_cli.runs.log_follower import FOLLOWED, LogFollower
from agola_cli.runs.patience import Patience
from agola_core.errors import AgolaError
from agola_core.runservice.model.reports import RunTests
from agola_core.runservice.model.requests import LogPart, RunBundle
from agola_core.runservice.model.types import Run, RunPhase, TaskStatus
from agola_core.runservice.rules.advance import archives_fetched

if TYPE_CHECKING:
    from agola_cli.connect.target import Service

_WAIT_SECONDS = 0.5
_STOP_TRIES = 10
ENDING_SECONDS = 15.0
"""How long a run that has ended is waited for until what it made is stored."""


def follow_run(
    service: Service,
    bundle: RunBundle,
    interruption: Interruption,
    *,
    option: str = "",
    as_json: bool = False,
    timestamps: bool = False,
    fail_fast: bool = False,
    halt: Callable[[], str] = lambda: "",
    check: Callable[[], object] = lambda: None,
) -> Run:
    """Show a run until it ends, and return it; an interruption stops it, and so does a closed output.

    Everything that its tasks wrote is shown before its result.

    Args:
        service: Has the run.
        bundle: The run.
        interruption: Asked for by the user.
        option: What names the service in a command, with a space in front.
        as_json: Whether standard output is kept for JSON.
        timestamps: Whether each line of a log shows when it was written.
        fail_fast: Whether the first failure that is not ignored stops the run.
        halt: Returns the reason to stop the run; "" to continue.
        check: Called while the run is running; raises an error if it cannot continue.

    Raises:
        OSError: The output cannot be written; the run was stopped.
    """
    run, stopped, explained = bundle.run, False, False
    display = _display_for(bundle, as_json=as_json, option=option)
    kept = {task_id for task_id, task in run.tasks.items() if task.status.is_finished}  # from the run it restarts
    patience = Patience(service, display.say, option, lambda: interruption.asked)
    tasks = bundle.run_config.tasks
    part = LogPart(timestamps=timestamps)
    follower = LogFollower(patience, display, tasks, lambda task_id: task_id not in kept, display.end_task, part)
    with display:
        while True:
            display.show(run, unfollowed=kept | _unfollowed(run))
            follower.take(run)
            if run.phase.is_finished:
                break
            if (interruption.asked or display.failure) and not stopped:
                stopped = True
                display.say("interrupted: stopping the run; Ctrl-C again kills it at once")
                stop_run(service, run.id)
            if fail_fast and not stopped and (name := _first_failure(bundle, run)):
                stopped = True
                display.say(f"{name} has failed: stopping the run (--fail-fast)")
                stop_run(service, run.id)
            if not stopped and (reason := halt()):
                stopped = True
                display.say(reason)
                stop_run(service, run.id)
            check()
            before, run = run, patience.wait_change(run, _WAIT_SECONDS)
            if run is before and run.phase is RunPhase.QUEUED and not explained:
                explained = True
                for other in runs_before(service, run):
                    display.say(f"queued behind run {other.id} #{other.counter} of its group, {run.group}")
        follower.join()
        tests = _reported(patience, bundle, run, interruption, display)
    display.end_run(run, tests, option)
    if display.failure is not None:
        raise display.failure
    return run


def _reported(
    patience: Patience, bundle: RunBundle, run: Run, interruption: Interruption, display: Display
) -> RunTests:
    """Return what the tasks reported, once what they saved is stored, which is soon.

    The result is known: a service that goes away now is waited for as long as one that is slow, and is no error.
    """
    deadline = time.monotonic() + ENDING_SECONDS
    patience = msgspec.structs.replace(patience, seconds=ENDING_SECONDS)
    try:
        while not all(archives_fetched(task) for task in run.tasks.values()):
            if interruption.asked or time.monotonic() > deadline:
                break
            run = patience.wait_change(run, _WAIT_SECONDS)
        if any(task.reports for task in run.tasks.values()):
            return patience.service.run_tests(msgspec.structs.replace(bundle, run=run))
    except AgolaError as error:
        display.say(f"what the tasks reported and saved cannot be read: {error}")
    return RunTests()


def stop_run(service: Service, run_id: str) -> None:
    """Stop a run, or cancel it when it has not started; harmless when it has ended."""
    for _ in range(_STOP_TRIES):  # it may start between the two
        with suppress(AgolaError):
            service.stop_run(run_id)
            return
        with suppress(AgolaError):
            service.change_run_phase(run_id, RunPhase.CANCELLED)
            return


def _display_for(bundle: RunBundle, *, as_json: bool, option: str) -> Display:
    """Return what shows a run: a live graph on a terminal, lines elsewhere, on standard error beside JSON."""
    if sys.stdout.isatty() and not as_json and os.environ.get("TERM", "dumb") != "dumb":
        from agola_cli.output.live_display import LiveDisplay  # noqa: PLC0415 - few use it

        return LiveDisplay(bundle, option=option)
    return PlainDisplay(bundle, err=as_json, option=option)


def _first_failure(bundle: RunBundle, run: Run) -> str | None:
    """Return the name of a task whose failure counts; None if there is none."""
    tasks = bundle.run_config.tasks
    failed = (
        tasks[task_id]
        for task_id, task in run.tasks.items()
        if task.status is TaskStatus.FAILED and not tasks[task_id].ignore_failure
    )
    return next((task.name for task in failed), None)


def _unfollowed(run: Run) -> set[str]:
    """Return the tasks that have ended without a log to show."""
    ended: set[TaskStatus] = {status for status in TaskStatus if status.is_finished} - FOLLOWED
    return {task_id for task_id, task in run.tasks.items() if task.status in ended}
